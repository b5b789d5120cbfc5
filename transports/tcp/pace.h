// Keeps what is sent in step with what is received, where both are long messages. One for each pipe, owned by it, and
// one for all pipes of a rank, owned by the transport; on its thread.
//
// A socket takes megabytes that nobody has read yet. Their copies in the kernel then leave the caches, pages are taken
// on one core and given back on the other, and in the end the sender sleeps until there is room. Two ranks that send
// each other one turn, and the next when they have received as much, need a few pages, again and again the same. So a
// rank that is ahead, and expects long messages, does not send on. Only between ranks of one host: a network's link
// must never run empty, and the other side's cores copy elsewhere.
//
// This must never decide whether bytes move, only when: a plan may have a rank send more than it receives, or before
// it. So a send is held back for a bounded number of looks; after that the rank may be further ahead, up to twice as
// far each time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace gradrail {

class Pace {
 public:
  // Shorter messages take no part.
  static constexpr std::size_t k_least_bytes = 128 << 10;

  void sent(std::size_t bytes) { ahead_ += static_cast<std::int64_t>(bytes); }
  void received(std::size_t bytes) {
    ahead_ = std::max(ahead_ - static_cast<std::int64_t>(bytes), -k_most_behind);
    if (ahead_ <= 0) allowed_ = 0;
    looks_ = 0;
  }
  // Whether to send now. Asked once in every look while there is something to send.
  [[nodiscard]] bool may_send() {
    if (ahead_ <= allowed_) return true;
    if (++looks_ < k_most_looks) return false;
    looks_ = 0;
    allowed_ = std::max(ahead_, 2 * allowed_);
    return true;
  }
  // There is nothing to keep in step with.
  void reset() { *this = Pace(); }

 private:
  static constexpr int k_most_looks = 256;
  static constexpr std::int64_t k_most_behind = 512 << 10;

  std::int64_t ahead_ = 0;    // bytes sent and not made up for by bytes received
  std::int64_t allowed_ = 0;  // that it may be
  int looks_ = 0;             // in which it was too far ahead, one after the other
};

}  // namespace gradrail

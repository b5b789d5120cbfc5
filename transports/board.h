// Memory in which each of a few ranks of one host shows a short message to all the others at once, where they read it:
// written once instead of once for every reader, and without an answer. Transport::open_board() makes one.
//
// Turns. The k-th show() of every member begins turn k; its messages all have the same number of bytes. Whoever has
// seen() the messages of all others, and has read them, may show the next. There are two sets of places, used by turns
// in turn. That is enough: who shows in turn k has seen everyone's turn k-1, which everyone showed only after having
// read everything of turn k-2, whose places are written now. So nobody ever waits for being read.
//
// Who may write what, and when: a member's head and message are written by that member only. The message becomes the
// readers' by the store of `head` (release; acquire), and the writer's again as said above. A head holds its turn and
// size, so neither an old one nor zeroed memory is ever taken for a new one. Messages of up to 56 bytes lie beside
// their head in one cache line; longer ones lie together, so that few pages are touched where few bytes are shown.
//
// Nothing here waits or fails; who waits must also notice by its endpoints that a member is gone. A Board belongs to
// one thread and must be destroyed before its transport.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "transports/base/copy_short.h"
#include "transports/transport.h"

namespace gradrail {

class Board {
 public:
  static constexpr std::size_t k_most_members = 8;
  static constexpr std::size_t k_most_bytes = 16 << 10;  // of a message

  // `memory`: the same for all members, of bytes_for() bytes, page aligned, zeroed before the first one was made.
  Board(std::byte* memory, std::size_t members, std::size_t me) : memory_(memory), members_(members), me_(me) {}
  Board(const Board&) = delete;
  Board& operator=(const Board&) = delete;
  virtual ~Board() = default;

  [[nodiscard]] static constexpr std::size_t bytes_for(std::size_t members) {
    return k_heads_bytes + k_sets * members * k_most_bytes;
  }
  [[nodiscard]] std::size_t members() const { return members_; }
  [[nodiscard]] std::size_t me() const { return me_; }
  [[nodiscard]] const Traffic& traffic() const { return traffic_; }  // bytes shown

  // Shows this member's message of the next turn; 1 to k_most_bytes bytes.
  void show(std::span<const std::byte> message) {
    ++turn_;
    size_ = message.size();
    Head& mine = head(me_);
    if (size_ <= k_inline_bytes) {
      copy_short(mine.message, message.data(), size_);
      traffic_[static_cast<std::size_t>(Path::in_line)] += size_;
    } else {
      std::memcpy(place(me_), message.data(), size_);
      traffic_[static_cast<std::size_t>(Path::one_copy)] += size_;
    }
    mine.head.store(expected(), std::memory_order_release);
  }
  // Another member's message of this turn, as long as one's own; null as long as it is not there.
  [[nodiscard]] const std::byte* seen(std::size_t member) const {
    const Head& its = head(member);
    if (its.head.load(std::memory_order_acquire) != expected()) return nullptr;
    return size_ <= k_inline_bytes ? its.message : place(member);
  }
  // Whether the member has shown a message of another length in this turn, which should not be: it will not be seen.
  [[nodiscard]] bool at_odds(std::size_t member) const {
    const std::uint64_t its = head(member).head.load(std::memory_order_acquire);
    return its != expected() && its >> k_size_bits == turn_;
  }

 private:
  static constexpr std::size_t k_inline_bytes = 56;
  static constexpr std::size_t k_sets = 2;
  static constexpr int k_size_bits = 16;
  static_assert(k_most_bytes < std::size_t{1} << k_size_bits);

  // Alone in two cache lines: the adjacent-line prefetcher must not drag a neighbour's along.
  struct alignas(128) Head {
    std::atomic<std::uint64_t> head;  // turn, bytes
    std::byte message[k_inline_bytes];
  };
  static constexpr std::size_t k_heads_bytes = 4096;
  static_assert(k_sets * k_most_members * sizeof(Head) <= k_heads_bytes);

  [[nodiscard]] std::uint64_t expected() const { return turn_ << k_size_bits | size_; }
  [[nodiscard]] Head& head(std::size_t member) const {
    return reinterpret_cast<Head*>(memory_)[turn_ % k_sets * k_most_members + member];
  }
  [[nodiscard]] std::byte* place(std::size_t member) const {
    constexpr std::size_t k_step = sizeof(Head);
    const std::size_t stride = (size_ + k_step - 1) / k_step * k_step;
    return memory_ + k_heads_bytes + turn_ % k_sets * members_ * k_most_bytes + member * stride;
  }

  std::byte* memory_;
  std::size_t members_;
  std::size_t me_;
  std::uint64_t turn_ = 0;
  std::size_t size_ = 0;  // of this turn's messages
  Traffic traffic_{};
};

}  // namespace gradrail

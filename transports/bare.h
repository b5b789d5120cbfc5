// The bare operations of an RDMA device between two ranks, without a pipe's protocol: what a benchmark sets beside the
// pipe to tell what the protocol costs from what the device takes.
//
// Both ranks open theirs together, with the same options. Each end has two buffers: its writes and sends leave from
// `outgoing`, which is also what the peer's reads take; its own reads, and the peer's writes and sends, land in
// `incoming`. Every operation moves the first bytes of these, over one of several reliable queue pairs. A write is
// noticed by nobody but who looks at the memory; its last byte comes last.
//
// Belongs to the one thread of the transport that made it, and goes before that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/result.h"

namespace gradrail {

enum class Operation : std::uint8_t { write, send, read };
[[nodiscard]] std::string_view to_string(Operation operation);

struct BareOptions {
  Operation operation = Operation::write;
  int queue_pairs = 1;
  int depth = 128;        // operations outstanding on a queue pair
  std::size_t bytes = 8;  // of the largest one
  int receives = 512;     // posted on a queue pair for sends, which may run ahead of who takes them
};

class Bare {
 public:
  Bare() = default;
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;
  virtual ~Bare() = default;

  // Posts one operation on a queue pair that has room(). Nobody hears of its end but by a later one's, unless it is the
  // `last` or the queue would fill. Errors: system; bad_usage above options.bytes.
  [[nodiscard]] virtual Result<void> post(std::size_t pair, std::size_t bytes, bool last) = 0;
  // Takes in what has ended and arrived, without waiting. Errors: the cause of a failed completion, naming the peer.
  [[nodiscard]] virtual Result<void> poll() = 0;
  // For waits that look at memory: fails once the peer's process has gone.
  [[nodiscard]] virtual Result<void> check_life() = 0;

  // A few bytes to the peer and from it, beside the device. Errors: peer_gone, timed_out.
  [[nodiscard]] virtual Result<void> tell(std::span<const std::byte> bytes, Deadline deadline) = 0;
  [[nodiscard]] virtual Result<Bytes> hear(Deadline deadline) = 0;

  [[nodiscard]] std::span<std::byte> outgoing() const { return outgoing_; }
  [[nodiscard]] std::span<std::byte> incoming() const { return incoming_; }
  // Operations up to so many bytes travel inside their descriptor.
  [[nodiscard]] std::size_t inline_bytes() const { return inline_bytes_; }
  [[nodiscard]] std::size_t pairs() const { return counts_.size(); }
  [[nodiscard]] std::uint64_t posted(std::size_t pair) const { return counts_[pair].posted; }
  [[nodiscard]] std::uint64_t done(std::size_t pair) const { return counts_[pair].done; }
  [[nodiscard]] std::size_t room(std::size_t pair) const {
    return depth_ - static_cast<std::size_t>(counts_[pair].posted - counts_[pair].done);
  }
  // Sends of the peer that have landed, over all queue pairs.
  [[nodiscard]] std::uint64_t received() const { return received_; }

 protected:
  struct Counts {
    std::uint64_t posted = 0;
    std::uint64_t done = 0;  // those up to this one have ended
  };
  std::span<std::byte> outgoing_, incoming_;
  std::size_t inline_bytes_ = 0;
  std::size_t depth_ = 0;
  std::vector<Counts> counts_;
  std::uint64_t received_ = 0;
};

}  // namespace gradrail

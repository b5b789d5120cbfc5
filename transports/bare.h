// The bare operations of a device, or of a library as those of a device, between two ranks, without a pipe's protocol:
// what a benchmark sets beside the pipe to tell what the protocol costs from what the device takes.
//
// Both ranks open theirs together, with the same options. Each end has two buffers: its writes and sends leave from
// `outgoing`, which is also what the peer's reads take; its own reads, and the peer's writes and sends, land in
// `incoming`. Every operation moves the first bytes of these, over one of several reliable queue pairs. A write is
// noticed by nobody but who looks at the memory; its last byte comes last.
//
// The two met over a socket for each queue pair. The first one carries tell() and hear(); the end of any says that the
// peer has gone.
//
// Belongs to the one thread of the transport that made it, and goes before that.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/fd.h"
#include "transports/base/result.h"
#include "transports/transport.h"

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
  explicit Bare(const Peer& peer);
  Bare(const Bare&) = delete;
  Bare& operator=(const Bare&) = delete;
  virtual ~Bare() = default;

  // Posts one operation on a queue pair that has room(). Nobody hears of its end but by a later one's, unless it is the
  // `last` or the queue would fill. Errors: system; bad_usage above options.bytes.
  [[nodiscard]] virtual Result<void> post(std::size_t pair, std::size_t bytes, bool last) = 0;
  // Takes in what has ended and arrived, without waiting. Errors: the cause of a failed completion, naming the peer.
  [[nodiscard]] virtual Result<void> poll() = 0;
  // poll() until so many sends of the peer have landed, at most `looks` times.
  [[nodiscard]] virtual Result<void> poll_until(std::uint64_t received, unsigned looks);
  // The same until the last of so many bytes in `incoming` is `value`. May do nothing.
  [[nodiscard]] virtual Result<void> poll_until_written(std::size_t bytes, std::byte value, unsigned looks);
  // Whether all that has ended has arrived too. May begin to see to it, which poll() then brings to its end.
  [[nodiscard]] virtual bool settled() { return true; }
  // For waits that look at memory: fails once the peer's process has gone.
  [[nodiscard]] Result<void> check_life() const;

  // A few bytes to the peer and from it, beside the device. Errors: peer_gone, timed_out.
  [[nodiscard]] Result<void> tell(std::span<const std::byte> bytes, Deadline deadline);
  [[nodiscard]] virtual Result<Bytes> hear(Deadline deadline);

  void take_channels(std::vector<Fd> channels) { channels_ = std::move(channels); }

  [[nodiscard]] std::span<std::byte> outgoing() const { return outgoing_; }
  [[nodiscard]] std::span<std::byte> incoming() const { return incoming_; }
  // The last of so many bytes there, which a device may write behind the compiler's back.
  [[nodiscard]] std::byte landed(std::size_t bytes) const {
    return std::atomic_ref<std::byte>(incoming_[bytes - 1]).load(std::memory_order_acquire);
  }
  // How an operation of so many bytes travels.
  [[nodiscard]] Path path_of(std::size_t bytes) const { return bytes <= inline_bytes_ ? Path::in_line : path_; }
  [[nodiscard]] std::size_t inline_bytes() const { return inline_bytes_; }
  // Whether the peer's writes land only while poll() is called here.
  [[nodiscard]] bool lands_by_polling() const { return lands_by_polling_; }
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
    std::uint64_t done = 0;  // so many have ended
  };
  std::string who_;  // "rank 3 on host b"
  int peer_;
  std::vector<Fd> channels_;
  std::span<std::byte> outgoing_, incoming_;
  std::size_t inline_bytes_ = 0;
  Path path_ = Path::zero_copy;
  bool lands_by_polling_ = false;
  std::size_t depth_ = 0;
  std::vector<Counts> counts_;
  std::uint64_t received_ = 0;
};

}  // namespace gradrail

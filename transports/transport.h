// The whole contract between collectives and whatever moves bytes.
//
// A Transport belongs to one rank and one thread. It owns connections and registrations; endpoints and regions made by
// it must be destroyed before it. An Endpoint is an ordered pipe to one peer on one lane: the n-th send on one side
// meets the n-th receive on the other, and both name the same number of bytes (a difference is an error on the
// receiving side). Because a pipe completes in order, a completion is a counter: the k-th send posted on an endpoint
// is complete once sends_done() >= k. Posting never blocks and progress() never blocks; only connect() and wait() do,
// never past their limit. Neither posting nor progress allocates once an endpoint has carried its first messages.
//
// A receive may be posted in place: its bytes are then read where the transport has them (the peer's memory, a slot
// ring, a landing buffer) by readable()/consume(). Where traits().writes_in_place, a send may be produced in place too,
// by writable()/commit(), straight into the peer's posted destination or into a slot; or it is copied, part by part,
// from where its bytes come to be, by offer(). That is what fused reductions use.
//
// After a failure an endpoint is dead: failure() says why and who, and every later post returns that error.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/result.h"
#include "transports/memory.h"

namespace gradrail {

// How bytes got from the sender's memory to the receiver's; read from the run, shown in every row.
enum class Path : std::uint8_t {
  in_line,    // inside the message descriptor itself
  one_copy,   // through a slot ring of shared memory
  zero_copy,  // straight between registered buffers
  socket,     // through the kernel's socket buffers
  library,    // as a library chose that does not tell: see Transport::describe()
  attached,   // between the plain memory of the two, through the kernel, by one of them
};
inline constexpr std::size_t k_paths = 6;
[[nodiscard]] std::string_view to_string(Path path);

using Traffic = std::array<std::uint64_t, k_paths>;  // payload bytes sent, by Path

struct Traits {
  std::string_view name;
  bool same_host_only = false;    // peers must share this host's memory
  bool writes_in_place = false;   // send_in_place() is supported
  bool allocates_direct = false;  // allocate() gives memory with direct() == true
  // send_copied() copies out of memory that is not direct() as far as the pipe has room, whatever the peer does, and
  // departed() tells how far.
  bool copies_out = false;
  std::size_t board_members = 0;  // most ranks that open_board() joins; 0: it is not supported
  std::size_t depth = 0;          // sends, and receives, that may be outstanding on one endpoint
};

// What listen() returns and connect() needs from the other side; opaque, travels through the bootstrap.
using Address = Bytes;

struct Peer {
  int rank = 0;
  int lane = 0;      // 0..k_max_lanes-1; each (rank, lane) is a pipe of its own
  std::string host;  // for messages only
  Address address;
};
inline constexpr int k_max_lanes = 256;

class Endpoint {
 public:
  Endpoint(int peer_rank, int lane) : peer_(peer_rank), lane_(lane) {}
  Endpoint(const Endpoint&) = delete;
  Endpoint& operator=(const Endpoint&) = delete;
  virtual ~Endpoint() = default;

  // Posts a send. The source must stay unchanged until it completes, but that a message from the same peer may be
  // received into it of which no byte exists before the byte that it overwrites was read. Any size, zero included,
  // completes.
  // Errors: exhausted beyond traits().depth (nothing was posted), bad_usage for a slice that is not a registered
  // region of this transport, or the endpoint's failure.
  [[nodiscard]] virtual Result<void> send(Slice source) = 0;
  // The same, but never by way of the peer's reading the source itself, if that is not direct(): see departed(). Only
  // where traits().copies_out.
  [[nodiscard]] virtual Result<void> send_copied(Slice source) { return send(source); }
  // Posts a receive into memory. Errors as send.
  [[nodiscard]] virtual Result<void> recv(Slice destination) = 0;

  // Posts a receive of `bytes` to be read in place. Errors as send.
  [[nodiscard]] virtual Result<void> recv_in_place(std::size_t bytes) = 0;
  // Bytes of the oldest incomplete receive that have arrived, if that is one in place; otherwise, or if none has
  // arrived, empty. May be only the next part of the message; every part but the last is a multiple of 64 bytes.
  // Stays valid until consume().
  [[nodiscard]] virtual std::span<const std::byte> readable() = 0;
  // Gives back the first `bytes` of readable() (a multiple of 64, or all of it). The receive completes with its last.
  virtual void consume(std::size_t bytes) = 0;

  // Posts a send whose bytes will be written in place. Only where traits().writes_in_place. Errors as send.
  [[nodiscard]] virtual Result<void> send_in_place(std::size_t bytes);
  // Where the next bytes of the oldest incomplete send go, if that is one in place and there is room; otherwise empty.
  // Every part but the last is a multiple of 64 bytes. The memory may be read only after it was written.
  [[nodiscard]] virtual std::span<std::byte> writable();
  // Sends the first `bytes` of writable() (a multiple of 64, or the message's end). May be followed by more.
  virtual void commit(std::size_t bytes);
  // Instead of these two, for bytes that lie in memory anyhow: copies the next bytes of that message from `bytes` as
  // far as there is room, and says how many. `bytes` is a multiple of 64 long, or ends where the message does.
  [[nodiscard]] virtual std::size_t offer(std::span<const std::byte> bytes);

  // What is outstanding will not be waited for: once this has returned, peers write no more into what was posted to be
  // received. The endpoint is of no more use.
  virtual void withdraw() {}

  // Bytes of the `send`-th send posted (from 1), of `bytes` in all, that were copied out of its source, which may
  // change there. Before it completes that is 0, but for a send_copied().
  [[nodiscard]] virtual std::size_t departed(std::uint64_t send, std::size_t bytes) const {
    return sends_done_ >= send ? bytes : 0;
  }

  // A send() of at least so many bytes from memory that is not direct() is read there by the peer: it costs nothing on
  // the way out, and completes when the peer has read it.
  [[nodiscard]] std::size_t attached_from() const { return attached_from_; }
  [[nodiscard]] std::uint64_t sends_done() const { return sends_done_; }
  [[nodiscard]] std::uint64_t recvs_done() const { return recvs_done_; }
  [[nodiscard]] const Error* failure() const { return failure_ ? &*failure_ : nullptr; }
  [[nodiscard]] const Traffic& traffic() const { return traffic_; }
  [[nodiscard]] int peer() const { return peer_; }
  [[nodiscard]] int lane() const { return lane_; }

 protected:
  std::size_t attached_from_ = SIZE_MAX;
  std::uint64_t sends_done_ = 0;
  std::uint64_t recvs_done_ = 0;
  Traffic traffic_{};
  std::optional<Error> failure_;

 private:
  int peer_;
  int lane_;
};

class Bare;
struct BareOptions;
class Board;

class Transport {
 public:
  Transport() = default;
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;
  virtual ~Transport() = default;

  [[nodiscard]] virtual const Traits& traits() const = 0;
  // For people: which device is used and why, in one line; empty where nothing was chosen.
  [[nodiscard]] virtual std::string describe() const { return {}; }

  // Makes this rank reachable; called once, before connect().
  [[nodiscard]] virtual Result<Address> listen() = 0;
  // Opens one endpoint for each peer, in the order given; the peers must be doing the same with this rank on the same
  // lanes at the same time. Waits until all are open, at most until the deadline; an error names the first missing
  // peer.
  [[nodiscard]] virtual Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers,
                                                                               Deadline deadline) = 0;

  // The device's own operations to a peer that opens the same, for benchmarks; see bare.h. Waits like connect().
  // Errors: unsupported where a transport has none; those of connect(); bad_usage (what the device cannot).
  [[nodiscard]] virtual Result<std::unique_ptr<Bare>> open_bare(const Peer& peer, const BareOptions& options,
                                                                Deadline deadline);

  // Registers memory that the caller owns. It must stay allocated while the region lives.
  [[nodiscard]] virtual Result<std::unique_ptr<Region>> register_memory(Buffer buffer) = 0;
  // Allocates memory (page aligned, zeroed) in the form that this transport moves best, and registers it.
  [[nodiscard]] virtual Result<std::unique_ptr<Region>> allocate(std::size_t bytes) = 0;

  // Opens a board for these ranks: at least two, ascending, this one among them. All do so at the same time and have
  // endpoints open to each other on this lane, once for a lane. Waits for the first of them, at most until the
  // deadline. Only where traits().board_members says so.
  [[nodiscard]] virtual Result<std::unique_ptr<Board>> open_board(std::span<const int> members, int lane,
                                                                  Deadline deadline);

  // Moves whatever can be moved on all endpoints; true if anything moved. Also notices dead peers.
  virtual bool progress() = 0;
  // Gives the core away until something may have moved, for at most `at_most`; zero only yields.
  virtual void wait(Seconds at_most) = 0;
};

}  // namespace gradrail

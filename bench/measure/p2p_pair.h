// Two ranks and one transport: the loops that are timed, in the meaning that perftest gives to them. Each of the two
// has an end, and both call the same function with the same arguments at the same time; `first` starts, and its clock
// counts. A Pair goes over the transport's pipes, p2p_bare.h over the operations of a device. Belongs to one thread;
// goes before the transport.
//
// latency         ping-pong on one pipe; a sample is half the time from one ping to the next
// bandwidth       the first rank keeps `depth` messages outstanding on each lane; from the first post to the second
//                 rank's word that it has them all
// bidirectional   the same both ways at once, until both have them all
// message_rate    bandwidth, of which messages are counted
//
// Every message leaves from, and lands in, the same buffer, as in perftest.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/measure/buffers.h"
#include "bench/measure/memory_kind.h"
#include "transports/base/clock.h"
#include "transports/transport.h"

namespace gradrail {

enum class P2pTest : std::uint8_t { latency, bandwidth, bidirectional, message_rate };
[[nodiscard]] std::string_view to_string(P2pTest test);  // "message-rate"

class PairEnd {
 public:
  struct Load {
    P2pTest test = P2pTest::latency;
    std::size_t bytes = 8;
    std::int64_t messages = 1;  // each way, over all lanes; latency: round trips
    int depth = 64;
  };

  virtual ~PairEnd() = default;
  // Microseconds. Latency: one a round trip; otherwise a single one, the time of all messages divided by their number
  // (each way). Errors: timed_out naming the peer, or the endpoint's failure.
  [[nodiscard]] virtual Result<std::vector<double>> run(const Load& load, Deadline deadline) = 0;

  // Random bytes there and back on every lane, new ones each time; how many came out wrong on this side. Both must pass
  // the same seed.
  [[nodiscard]] virtual Result<std::int64_t> check(std::size_t bytes, std::uint64_t seed, Deadline deadline) = 0;

  [[nodiscard]] virtual Traffic traffic() const = 0;  // of all lanes
  // By which way this side's GPU is reached, and what speaks against better ones; empty for memory of the host.
  [[nodiscard]] virtual std::string memory_path() const { return {}; }

 protected:
  // What a passed deadline says of the peer.
  [[nodiscard]] static tl::unexpected<Error> overdue(const std::string& who, int peer);
};

class Pair final : public PairEnd {
 public:
  struct Options {
    int lanes = 1;
    std::size_t most_bytes = 8;
    BufferKind buffers = BufferKind::registered;
    bool crowded = false;    // more ranks than cores: give the core away at once
    MemoryWish memory = {};  // of the host, where buffers are the transport's own
  };

  // Collective of the two. Errors: those of connect(), of registering memory.
  [[nodiscard]] static Result<Pair> open(Transport& transport, const Peer& peer, bool first, const Options& options,
                                         Deadline deadline);

  Result<std::vector<double>> run(const Load& load, Deadline deadline) override;
  Result<std::int64_t> check(std::size_t bytes, std::uint64_t seed, Deadline deadline) override;
  [[nodiscard]] Traffic traffic() const override;
  [[nodiscard]] std::string memory_path() const override;

 private:
  Pair() = default;
  using Messages = std::vector<std::int64_t>;  // by lane

  // Random bytes into what is sent, none into what is received, and how many there are not those expected.
  [[nodiscard]] Result<void> prepare(std::size_t bytes, std::uint64_t seed);
  [[nodiscard]] Result<std::int64_t> count_wrong(std::size_t bytes, std::uint64_t seed);
  [[nodiscard]] Result<void> meet(Deadline deadline);
  [[nodiscard]] Result<void> post_receives(const Messages& wanted, std::size_t bytes, std::int64_t depth);
  [[nodiscard]] Result<void> post_sends(const Messages& wanted, std::size_t bytes, std::int64_t depth);
  template <class Done>
  [[nodiscard]] Result<void> until(Deadline deadline, const Done& done);
  [[nodiscard]] Result<std::vector<double>> ping(const Load& load, Deadline deadline);
  [[nodiscard]] Result<std::vector<double>> stream(const Load& load, bool sends, bool receives, Deadline deadline);

  struct Lane {
    std::unique_ptr<Endpoint> endpoint;
    std::int64_t sent = 0;      // of the stream that runs
    std::int64_t received = 0;  // posted, that is
    std::uint64_t sends_before = 0;
    std::uint64_t recvs_before = 0;
  };
  [[nodiscard]] Slice out(std::size_t bytes) const { return {out_.get(), 0, bytes}; }
  [[nodiscard]] Slice in(std::size_t bytes) const { return {in_.get(), 0, bytes}; }
  [[nodiscard]] Slice note() const { return {note_.get(), 0, k_note_bytes}; }
  [[nodiscard]] Slice heard() const { return {note_.get(), k_note_room, k_note_bytes}; }

  static constexpr std::size_t k_note_bytes = 8;
  static constexpr std::size_t k_note_room = 64;

  Transport* transport_ = nullptr;
  bool first_ = false;
  bool crowded_ = false;
  std::string who_;
  OwnedMemory own_out_, own_in_;    // where they are not the transport's
  std::vector<std::byte> scratch_;  // of a GPU's bytes
  std::unique_ptr<Region> out_, in_, note_;
  std::vector<Lane> lanes_;
};

}  // namespace gradrail

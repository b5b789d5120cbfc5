// Messages whose sizes only their sender knows, over the communicator's channels: each goes as a front of 16 bytes,
// which says what it is and how long, and then itself. The receiver knows only how many come from each peer, and where
// each would have its place; a front that names something else, too much, or the same again is an error that names the
// peer.
//
//   0  'G' 'P'   magic
//   2  u8        phase of the exchange
//   3  u8        form, the exchange's matter
//   4  u32       origin: whose data it is, which need not be who sends it
//   8  u64       bytes that follow
//
// Owned by an exchange in flight and used by its thread; talks on channels that are the communicator's. Allocates
// nothing once add_peer() was called for all. Parcels of one peer may come in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/exec/channel.h"
#include "collectives/exec/execution.h"
#include "collectives/exec/memory.h"
#include "collectives/exec/step_trace.h"
#include "transports/base/result.h"

namespace gradrail {

struct Parcel {
  std::uint8_t phase = 0;
  std::uint8_t form = 0;
  std::uint32_t origin = 0;
  std::size_t at = 0;  // in the wire memory
  std::size_t bytes = 0;
};

// What an exchange says of parcels that come.
class ParcelOwner {
 public:
  // Where it goes, and at most how long it may be: `at` and `bytes` of the result. Nothing if `peer` is not to send it,
  // or sent it already.
  [[nodiscard]] virtual std::optional<Parcel> place_of(int peer, const Parcel& parcel) = 0;
  // It is there. Errors end the exchange.
  [[nodiscard]] virtual Result<void> arrived(int peer, const Parcel& parcel) = 0;

 protected:
  ~ParcelOwner() = default;
};

class Parcels {
 public:
  // Room for fronts, in the wire memory, of so many parcels to each of so many peers.
  [[nodiscard]] static std::size_t front_bytes(std::size_t peers, std::size_t most);

  // Messages are written into the trace, of their exchange's phases.
  Parcels(ParcelOwner& owner, StepTrace& trace) : owner_(owner), trace_(trace) {}
  // At most `most` parcels are sent to the peer in one run. Fronts are at `fronts` and the next bytes of the wire
  // memory.
  void add_peer(int peer, Channel& channel, std::size_t most, std::size_t& fronts);

  void start(MemoryView wire);
  void expect(int peer, std::size_t parcels);  // so many more from it in this run
  // The bytes must stay until all_sent().
  void send(int peer, const Parcel& parcel);

  [[nodiscard]] bool progress();
  // Everything expected has arrived, and everything given to send() has left.
  [[nodiscard]] bool done() const;
  [[nodiscard]] Execution::Awaited awaited() const;
  [[nodiscard]] const Error* failure() const;
  // Payload sent on these channels since start(), fronts included.
  [[nodiscard]] std::uint64_t sent_bytes() const;

 private:
  static constexpr std::size_t k_front = 16;
  enum class Coming : std::uint8_t { nothing, front, content };
  struct Pipe {
    int peer = 0;
    Channel* channel = nullptr;
    std::size_t fronts = 0;  // the first for what comes, then one for each that goes
    std::vector<Parcel> going;
    std::size_t posted = 0;    // halves of `going`: front, content
    std::uint64_t ticket = 0;  // of the last send
    std::size_t left = 0;      // parcels that are to come
    Coming coming = Coming::nothing;
    std::uint64_t awaited = 0;  // the receive that `coming` stands for
    Parcel parcel;              // that is coming
    Clock::time_point since;    // the post of what is awaited; where a trace is wanted
    std::uint64_t sent_before = 0;
  };

  [[nodiscard]] Pipe& pipe_to(int peer);
  [[nodiscard]] bool push(Pipe& pipe);
  [[nodiscard]] bool pull(Pipe& pipe);
  [[nodiscard]] bool read_front(Pipe& pipe);
  [[nodiscard]] bool take(Pipe& pipe);
  bool refuse(Error error);
  [[nodiscard]] Slice slice(const Channel& channel, std::size_t at, std::size_t bytes) const {
    return {wire_.memory->region(channel.reach), wire_.offset + at, bytes};
  }

  ParcelOwner& owner_;
  StepTrace& trace_;
  MemoryView wire_;
  std::vector<Pipe> pipes_;
  std::optional<Error> failed_;
};

}  // namespace gradrail

// What exchanges of messages whose size depends on the data have in common: each source encodes its gradient, and in
// the end every source has one message for everybody, from which all ranks make the result, in the order of the
// sources, so that all have the same bits. In between, exchanges differ.
//
// Sources are all ranks; or, where data is to be encoded between hosts only, the first rank of each host, to which the
// ranks of its host reduce theirs with an ordinary plan. A message crosses to each other host once, to the rank with
// the place there that its source has here, which passes it on to its neighbours. An exchange may send its messages for
// everybody in several parts, so that one is read while the next is on the wire.
//
// Owned by the communicator; see exchange.h for who calls what. The wire memory holds fronts, messages that come, each
// in a place of its own, and messages that go. Nothing is allocated after the first call.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/exec/exchange.h"
#include "collectives/exec/parcels.h"
#include "collectives/exec/step_trace.h"
#include "collectives/plan/planner.h"

namespace gradrail {

// Who has messages, and by whom they come. Pure.
struct Sources {
  int rank = 0;
  int ranks = 1;
  int ranks_per_host = 1;
  bool leaders = false;  // only the first of each host are sources

  explicit Sources(const ExchangeSetting& setting);
  [[nodiscard]] int count() const { return leaders ? ranks / ranks_per_host : ranks; }
  [[nodiscard]] int rank_of(int source) const { return leaders ? source * ranks_per_host : source; }
  [[nodiscard]] int index_of(int of) const;  // -1: it is no source
  [[nodiscard]] int mine() const { return index_of(rank); }
  [[nodiscard]] int host_of(int of) const { return of / ranks_per_host; }
  [[nodiscard]] int first_here() const { return rank / ranks_per_host * ranks_per_host; }
  // Who gives the message of rank `from` to rank `to`, another one.
  [[nodiscard]] int giver(int from, int to) const;
};

class SparseExchange : public ExchangeRun, private ParcelOwner {
 public:
  [[nodiscard]] Ran ran() const final;
  [[nodiscard]] std::size_t wire_bytes() const final { return wire_bytes_; }
  void start(MemoryView in, MemoryView out, MemoryView wire) final;
  [[nodiscard]] bool progress() final;
  [[nodiscard]] bool done() const final { return finished_ && parcels_.done(); }
  [[nodiscard]] Execution::Awaited awaited() const final;
  [[nodiscard]] const Error* failure() const final;
  [[nodiscard]] const Encoding& encoding() const final { return encoding_; }
  void trace(std::vector<StepTime>* times) final;

  // Lays out the wire memory and binds what is planned; once, before anything else.
  [[nodiscard]] Result<void> set_up();
  // `among_sources`: sources talk with each other directly.
  [[nodiscard]] static std::vector<ChannelKey> channels(const ExchangeSetting& setting, bool among_sources);
  // What every exchange here refuses.
  [[nodiscard]] static Result<void> supports(const ExchangeSetting& setting, const Codec& codec);

 protected:
  SparseExchange(std::string_view name, const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec,
                 bool among_sources);

  static constexpr std::uint8_t k_whole = 0;  // phase of the messages for everybody
  // What an exchange adds. Results that are errors end it; `peer` in them says whose fault it is.
  virtual void lay_out() {}
  // Of each source's message for everybody, the same on all ranks. Parcel::form is a part's number if there are
  // several.
  [[nodiscard]] virtual std::size_t parts() const { return 1; }
  [[nodiscard]] virtual std::size_t whole_room(int source) const = 0;
  virtual void prepare() {}                                               // at every start: what to expect from whom
  [[nodiscard]] virtual Result<void> encoded(const Parcel& message) = 0;  // at sources
  [[nodiscard]] virtual std::optional<Parcel> place_of_other(int source, const Parcel& parcel);
  [[nodiscard]] virtual Result<void> other_arrived(int source, const Parcel& parcel);
  [[nodiscard]] virtual Result<void> read(int source, const Parcel& parcel) = 0;
  // Of all sources.
  [[nodiscard]] virtual Result<void> part_read(std::size_t /*part*/) { return {}; }
  [[nodiscard]] virtual Result<void> all_read() { return {}; }
  // Whether the result must be zeros before the first message is read.
  [[nodiscard]] virtual bool wants_zeros() const { return traits_.sparse; }

  [[nodiscard]] std::size_t room(std::size_t bytes);  // of the wire memory, from the offset returned
  [[nodiscard]] std::span<std::byte> wire(std::size_t at, std::size_t bytes) const {
    return {wire_.data() + at, bytes};
  }
  [[nodiscard]] std::span<const std::byte> bytes_of(const Parcel& parcel) const {
    return wire(parcel.at, parcel.bytes);
  }
  [[nodiscard]] std::size_t whole_at(int source) const { return wholes_[static_cast<std::size_t>(source)].at; }
  [[nodiscard]] std::span<float> out() const { return {reinterpret_cast<float*>(out_.data()), setting_.count}; }
  [[nodiscard]] Result<void> publish(Parcel message);  // this source's, to everybody
  void send_to(int source, const Parcel& parcel);
  // To every other source.
  void tell(const Parcel& parcel);
  void expect_from_others();
  // The same error, told of the source whose message it was.
  [[nodiscard]] tl::unexpected<Error> fault_of(int source, Error error) const;

  ExchangeSetting setting_;
  ExchangeMeans means_;
  Codec& codec_;
  CodecTraits traits_;
  Sources sources_;
  Encoding encoding_;
  std::size_t most_pairs_ = 0;  // of an encoded message, where messages are pairs

 private:
  [[nodiscard]] std::optional<Parcel> place_of(int peer, const Parcel& parcel) final;
  [[nodiscard]] Result<void> arrived(int peer, const Parcel& parcel) final;
  [[nodiscard]] Result<void> bind_reduction();
  [[nodiscard]] std::uint64_t reduction_traffic() const;
  void begin();
  void pass_on(const Parcel& message);
  [[nodiscard]] bool read_arrived();
  void take(const Parcel& part);
  [[nodiscard]] bool clear_some();
  void clear_all();
  void finish();
  void end(Result<void> result);

  std::string_view name_;
  bool among_sources_;
  StepTrace trace_;
  Parcels parcels_{*this, trace_};
  std::size_t wire_bytes_ = 0;
  std::size_t encoded_at_ = 0;
  // One source's message for everybody, its parts one behind the other.
  struct Whole {
    std::size_t at = 0;
    std::size_t used = 0;       // bytes
    std::vector<Parcel> parts;  // that have arrived
  };
  std::vector<Whole> wholes_;  // by source
  MemoryView in_, out_, wire_;
  BoundProgram reduction_;
  std::unique_ptr<Execution> reducing_;
  std::size_t scratch_at_ = 0;
  std::uint64_t reduction_traffic_ = 0;
  bool reduced_ = true;
  std::size_t part_ = 0;     // that is read next,
  int read_ = 0;             // and sources of which it was
  std::size_t cleared_ = 0;  // values of the result set to zero
  bool finished_ = true;
  std::optional<Error> failed_;
  Clock::time_point started_;
};

}  // namespace gradrail

// How a call whose data travels encoded is carried out. There are two ways:
//  - messages whose size is known beforehand (CodecTraits::fixed_size) travel on any plan: coded_execution.h;
//  - messages whose size depends on the data need an exchange of their own, which no plan can describe: one file in
//  this
//    folder with an ExchangeKind, and one line in exchanges.cc. Its name is an algorithm's name to everybody else:
//    Call::algorithm, `gradrail bench -a`, records.
//
// An ExchangeRun is a call in flight: made once for a kind of call and a place in flight, started again for every call.
// It belongs to the communicator's thread, like the channels it talks on, which are the communicator's; while it runs
// no other run uses them. It never blocks: progress() does what can be done now. Every rank makes the same calls in the
// same order, so the k-th start on one rank meets the k-th on the others.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/compress/codec.h"
#include "collectives/exec/binding.h"
#include "collectives/exec/coding.h"
#include "collectives/exec/execution.h"
#include "collectives/exec/memory.h"
#include "collectives/types.h"

namespace gradrail {

// What an exchange depends on, the same on all ranks but for `rank`. Always float32.
struct ExchangeSetting {
  int rank = 0;
  int ranks = 1;
  int ranks_per_host = 1;  // 1 where hosts are not equal blocks of consecutive ranks
  Collective collective = Collective::allreduce;
  ReduceOp op = ReduceOp::sum;  // or avg
  std::uint64_t count = 0;      // as Call::count
  bool in_place = false;
  std::string codec;
  CodecWhere where = CodecWhere::everywhere;
  std::uint32_t tensor = 0;
  std::uint64_t seed = 0;
};

// The codecs of one tensor on this rank, with their state, and the calls counted so far. Outlives bindings; shared by
// the runs of its tensor, of which one at a time is in flight.
class CodecState {
 public:
  explicit CodecState(std::string codec, TensorShape shape = {}) : codec_(std::move(codec)), shape_(shape) {}
  // The index-th codec, made when it is first asked for: whatever encodes one stream of values has one of its own.
  [[nodiscard]] Result<Codec*> at(std::size_t index);
  // Origin::step of the call that starts now.
  [[nodiscard]] std::uint64_t next_step() { return step_++; }

 private:
  std::string codec_;
  TensorShape shape_;
  std::vector<std::unique_ptr<Codec>> codecs_;
  std::uint64_t step_ = 0;
};

// What an exchange gets to work with. All of it outlives the run.
struct ExchangeMeans {
  std::function<Channel*(ChannelKey)> channel;  // those that ExchangeKind::channels() named, open
  std::shared_ptr<CodecState> state;
};

class ExchangeRun {
 public:
  virtual ~ExchangeRun() = default;

  [[nodiscard]] virtual Ran ran() const = 0;
  // Bytes of registered memory that start() must be given; from there messages are sent, and received into.
  [[nodiscard]] virtual std::size_t wire_bytes() const = 0;

  // The buffers of this call, checked by the caller. In place they are the same memory.
  virtual void start(MemoryView in, MemoryView out, MemoryView wire) = 0;
  // True if anything moved.
  [[nodiscard]] virtual bool progress() = 0;
  // The result stands in `out`, and nothing of `wire` is in use any more.
  [[nodiscard]] virtual bool done() const = 0;
  // As Execution's.
  [[nodiscard]] virtual Execution::Awaited awaited() const = 0;
  [[nodiscard]] virtual const Error* failure() const = 0;
  // Records step times (step_trace.h) of the runs that are started from now on; null: none.
  virtual void trace(std::vector<StepTime>* times) = 0;
  // Of the run that was done last.
  [[nodiscard]] virtual const Encoding& encoding() const = 0;
};

struct ExchangeKind {
  std::string_view name;     // as users type it, after -a: "ok_topk"; no planner has it
  std::string_view summary;  // one line, for help
  // Refuses politely what it is not defined for (the codec, the number of ranks); unsupported, with a sentence.
  Result<void> (*supports)(const ExchangeSetting& setting, const Codec& codec);
  // The channels it talks on: peers, and lanes from 0 on, fewer than 64.
  std::vector<ChannelKey> (*channels)(const ExchangeSetting& setting);
  Result<std::unique_ptr<ExchangeRun>> (*make)(const ExchangeSetting& setting, const ExchangeMeans& means);
};

// ExchangeKind::make of an exchange that is made of these three, and then lays itself out in set_up().
template <class Exchange>
[[nodiscard]] Result<std::unique_ptr<ExchangeRun>> make_exchange(const ExchangeSetting& setting,
                                                                 const ExchangeMeans& means) {
  GRADRAIL_ASSIGN(Codec* const codec, means.state->at(0));
  auto run = std::make_unique<Exchange>(setting, means, *codec);
  GRADRAIL_TRY(run->set_up());
  return run;
}

// Defined in exchanges.cc. "auto" takes the first that supports the call, where the codec's messages have no fixed
// size.
[[nodiscard]] std::span<const ExchangeKind* const> exchange_kinds();

}  // namespace gradrail

// Runs a coded program: a plan whose messages are encoded by a codec of fixed-size messages. Chunks are cut at
// multiples of the codec's block; every message has its place in the wire memory from the start, so that all receives
// are posted at once, as far as the pipes take them, and encoding, the wire and decoding overlap chunk by chunk.
//
// Sums are float32. Random numbers of stochastic codecs: what a rank contributes is rounded by its own numbers; a sum
// by numbers that follow from its values, so that ranks that encode the same sum get the same bits.
//
// One execution belongs to one kind of call and place in flight, and to the communicator's thread; it owns no memory
// that messages travel in. A message that cannot be decoded is an error that names the rank it came from.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "collectives/exec/coded_program.h"
#include "collectives/exec/exchange.h"
#include "collectives/exec/kernels/reduce.h"
#include "collectives/exec/step_trace.h"

namespace gradrail {

class CodedExecution final : public ExchangeRun {
 public:
  // `ran`: what is said of it. The codec's messages must have a fixed size. Errors: those of making codecs.
  [[nodiscard]] static Result<std::unique_ptr<ExchangeRun>> make(CodedProgram program, Ran ran,
                                                                 const ExchangeSetting& setting,
                                                                 const ExchangeMeans& means);

  [[nodiscard]] Ran ran() const override { return ran_; }
  [[nodiscard]] std::size_t wire_bytes() const override { return wire_bytes_; }
  void start(MemoryView in, MemoryView out, MemoryView wire) override;
  [[nodiscard]] bool progress() override;
  [[nodiscard]] bool done() const override { return done_; }
  [[nodiscard]] Execution::Awaited awaited() const override;
  [[nodiscard]] const Error* failure() const override;
  [[nodiscard]] const Encoding& encoding() const override { return encoding_; }
  void trace(std::vector<StepTime>* times) override { trace_.into(times); }

 private:
  CodedExecution() = default;
  [[nodiscard]] Result<void> bind(const ExchangeSetting& setting, const ExchangeMeans& means);

  // A step with its addresses. Steps on chunks without elements are not bound.
  struct Bound {
    CodedStep::Kind kind = CodedStep::Kind::send;
    bool own = false;
    bool from_wire = false, to_wire = false;
    bool from_coded = false, to_coded = false;
    Store from_store = Store::in, to_store = Store::out;
    std::size_t from = 0, to = 0;              // bytes into the store or the wire memory
    std::size_t count = 0;                     // elements
    std::size_t from_bytes = 0, to_bytes = 0;  // of the message's form
    std::uint64_t first = 0;                   // the chunk's first element in the tensor
    Codec* codec = nullptr;                    // encode
    Channel* channel = nullptr;                // send, await
    int sender = -1;                           // of what is read: the rank it came from, or -1
    std::uint32_t arrival = 0;                 // await, and what reads a received message: which one
    std::uint32_t after = 0;
  };
  struct Arrival {
    Channel* channel = nullptr;
    std::size_t at = 0, bytes = 0;
    std::uint64_t ticket = 0;  // 0: not posted yet
  };
  struct Pipe {  // a channel, as used by this run
    Channel* channel = nullptr;
    std::vector<std::uint32_t> arrivals;  // in order
    std::size_t posted = 0;
    std::uint64_t last_send = 0;  // ticket
  };
  struct Lane {
    std::vector<Bound> main, later;
    std::size_t next = 0, next_later = 0;
    std::optional<Clock::time_point> idle_since;  // where a trace is wanted
    [[nodiscard]] bool finished() const { return next == main.size() && next_later == later.size(); }
  };

  bool post_receives();
  [[nodiscard]] bool arrived(std::uint32_t arrival) const;
  // False if it has to wait.
  [[nodiscard]] bool run_main(Lane& lane, std::size_t& budget);
  [[nodiscard]] bool run_later(Lane& lane, std::size_t& budget);
  void work(const Bound& step, std::uint8_t lane);
  void trace_waiting(Lane& lane, const Bound& step);
  [[nodiscard]] std::uint8_t number_of(const Lane& lane) const {
    return static_cast<std::uint8_t>(&lane - lanes_.data());
  }
  [[nodiscard]] Result<void> encode(const Bound& step);
  [[nodiscard]] Result<void> decode(const Bound& step);
  [[nodiscard]] std::byte* address(bool wire, Store store, std::size_t offset) const;
  void fail_with(Error error);
  [[nodiscard]] bool all_moved() const;

  CodedProgram program_;
  Ran ran_;
  std::vector<Lane> lanes_;
  std::vector<Arrival> arrivals_;
  std::vector<Pipe> pipes_;
  std::shared_ptr<CodecState> state_;
  Codec* decoder_ = nullptr;
  std::size_t wire_bytes_ = 0;
  std::size_t scratch_bytes_ = 0;  // behind the messages, in the same memory
  std::size_t out_count_ = 0;
  ReduceFn add_ = nullptr;
  Origin origin_;

  std::array<std::byte*, 3> bases_{};
  MemoryView wire_;
  bool done_ = true;
  std::optional<Error> failed_;
  Clock::time_point started_;
  Encoding encoding_, running_;
  StepTrace trace_;
};

}  // namespace gradrail

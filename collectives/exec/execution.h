// Runs a bound program. One execution holds the state of one collective in flight; it is made once for a binding and
// restarted for every call, and allocates nothing after it was made. Belongs to the communicator's thread.
//
// Within a lane, steps start in order. Receives and local steps complete in order too (a watermark), and so do sends; a
// step starts when both watermarks have reached what it needs. Nothing here blocks: progress() does what can be done
// now and says whether anything was.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "collectives/exec/binding.h"
#include "transports/base/clock.h"

namespace gradrail {

// A step of one execution, for traces.
struct StepTime {
  std::int32_t step = -1;   // index of the first program step; -1 where data is encoded
  std::string_view name{};  // a plan's opcode, or as step_trace.h says
  int phase = -1;           // of an exchange: 0 are the messages for everybody, of rounds the round
  std::uint8_t lane = 0;
  int peer = -1;
  std::size_t bytes = 0;
  Clock::time_point begin;
  Clock::time_point end;
};

class Execution {
 public:
  explicit Execution(const BoundProgram& program);

  // The memory this run works on; views may be empty where the program has no such buffer.
  void start(MemoryView in, MemoryView out, MemoryView scratch);
  // True if anything moved.
  [[nodiscard]] bool progress();
  [[nodiscard]] bool done() const { return running_ == 0; }
  // The channel whose peer is awaited, and whether for its data (else for it to take ours); null when nothing is.
  struct Awaited {
    const Channel* channel = nullptr;
    bool for_data = true;
  };
  [[nodiscard]] Awaited awaited() const;
  // Why this run cannot end: a post that was refused, or the failure of an endpoint. Null as long as it can.
  [[nodiscard]] const Error* failure() const;

  // Records step times into `times` (null: none). The vector must have capacity for all steps.
  void trace(std::vector<StepTime>* times) { times_ = times; }

 private:
  struct Lane {
    const BoundStep* steps = nullptr;
    std::uint32_t count = 0;         // of the steps
    std::uint32_t next = 0;          // first step not started
    std::uint32_t done = 0;          // watermark of receives and local steps, in program steps
    std::uint32_t sent = 0;          // watermark of sends
    std::uint32_t oldest = 0;        // first started step that is not complete as a receive or local step
    std::uint32_t oldest_send = 0;   // first started step that is not complete as a send
    std::uint32_t open_streams = 0;  // first stream step with outputs not wholly written
  };
  struct Stream {
    std::size_t in = 0;       // bytes combined so far
    std::uint32_t looks = 0;  // for room at the outputs, before the first byte was
  };
  struct Output {
    std::size_t at = 0;      // bytes written so far
    std::uint64_t turn = 0;  // streams_done of the channel when this one may write
  };

  [[nodiscard]] bool advance(Lane& lane);
  [[nodiscard]] bool start_steps(Lane& lane);
  bool complete_oldest(Lane& lane);
  bool complete_sends(Lane& lane);
  [[nodiscard]] bool stream_in(const BoundStep& step);
  [[nodiscard]] bool exchange(const BoundStep& step);
  [[nodiscard]] bool take_in(const BoundStep& step);
  [[nodiscard]] bool stream_out(Lane& lane);
  bool pass_on(const BoundStep& step, std::size_t i);
  // False if it could not be posted now: its channels have no room, or one refused it, which refused_ then says.
  [[nodiscard]] bool post(const BoundStep& step);
  [[nodiscard]] bool post_stream(const BoundStep& step);
  [[nodiscard]] bool accepted(Result<void> posted);
  [[nodiscard]] static bool finished(const Lane& lane) {
    return lane.oldest == lane.count && lane.oldest_send == lane.count && lane.open_streams == lane.count;
  }
  [[nodiscard]] std::byte* address(Store store, std::size_t offset) const;
  [[nodiscard]] Slice slice(const Channel& channel, Store store, std::size_t offset, std::size_t bytes) const;
  [[nodiscard]] Channel& input(const BoundStep& step, std::size_t i) const {
    return *program_.channels[step.channels + i];
  }
  [[nodiscard]] Channel& output(const BoundStep& step, std::size_t i) const {
    return *program_.channels[step.channels + step.inputs + i];
  }
  void began(const BoundStep& step, const Lane& lane, Clock::time_point when);
  void ended(const BoundStep& step);

  const BoundProgram& program_;
  std::array<MemoryView, 3> stores_{};
  std::array<std::byte*, 3> bases_{};
  std::vector<Lane> lanes_;
  std::vector<Stream> streams_;
  std::vector<Output> outputs_;
  std::vector<std::uint64_t> tickets_;  // by channel use: the post's number on its channel
  std::vector<const std::byte*> from_;  // scratch for reduce_many
  std::vector<std::byte*> to_;
  std::size_t running_ = 0;       // lanes not finished
  std::optional<Error> refused_;  // a post that an endpoint did not take; nothing more is started
  std::vector<StepTime>* times_ = nullptr;
};

}  // namespace gradrail

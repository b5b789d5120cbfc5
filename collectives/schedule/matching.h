// What running a schedule takes, be it on symbols (verify) or on a model's clock (simulate): which send meets which
// receive, and which steps of a lane may start. Internal to collectives/schedule; views into a Schedule that outlives
// them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail {

// All messages from one rank to another on one lane, in order. Message k of a pipe is number first + k of all.
struct Pipe {
  std::uint32_t from = 0, to = 0;  // ranks
  std::uint32_t lane = 0;
  std::uint32_t first = 0;
  std::uint32_t count = 0;
};
struct Message {
  std::uint32_t pipe = 0;
  std::uint32_t send = 0;     // step of pipe.from
  std::uint32_t receive = 0;  // step of pipe.to
};
struct Matching {
  std::vector<Pipe> pipes;  // by from, to, lane
  std::vector<Message> messages;
  std::vector<std::vector<std::uint32_t>> message_of;  // by rank, by step; meaningless for steps that do not talk
};
// The k-th send of a pipe meets its k-th receive. Peers and lanes must be in range. Errors: malformed, naming a message
// that has only one end.
[[nodiscard]] Result<Matching> match(const Schedule& schedule);

// How far one lane of one rank has come. Steps start in order, complete in any.
class LaneProgress {
 public:
  LaneProgress(const Program& program, int lane) : program_(&program), completed_(program.steps.size()) {
    for (std::uint32_t index = 0; index < program.steps.size(); ++index)
      if (program.steps[index].lane == lane) steps_.push_back(index);
  }

  [[nodiscard]] bool all_started() const { return next_ == steps_.size(); }
  // The step to start next.
  [[nodiscard]] std::uint32_t next() const { return steps_[next_]; }
  // Whether what next() waits for has completed.
  [[nodiscard]] bool may_start() { return waits_for() < 0; }
  // A step that next() waits for, or -1.
  [[nodiscard]] std::int64_t waits_for() {
    const Step& s = program_->steps[next()];
    while (open_receive_ < steps_.size() && !is_open(open_receive_, false)) ++open_receive_;
    if (reaches(open_receive_, s.after)) return steps_[open_receive_];
    while (open_send_ < steps_.size() && !is_open(open_send_, true)) ++open_send_;
    if (reaches(open_send_, s.after_send)) return steps_[open_send_];
    return -1;
  }
  void start() { ++next_; }
  void complete(std::uint32_t step) { completed_[step] = true; }

 private:
  [[nodiscard]] bool is_open(std::size_t i, bool sends) const {
    return (program_->steps[steps_[i]].op == Op::send) == sends && !completed_[steps_[i]];
  }
  [[nodiscard]] bool reaches(std::size_t i, std::int32_t watermark) const {
    return i < steps_.size() && static_cast<std::int64_t>(steps_[i]) <= watermark;
  }

  const Program* program_;
  std::vector<std::uint32_t> steps_;
  std::vector<bool> completed_;   // by index in the program
  std::size_t next_ = 0;          // in steps_: the first that has not started
  std::size_t open_receive_ = 0;  // no receive or local step before it is incomplete
  std::size_t open_send_ = 0;     // the same for sends
};

}  // namespace gradrail

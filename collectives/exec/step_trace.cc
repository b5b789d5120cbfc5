#include "collectives/exec/step_trace.h"

namespace gradrail {

void StepTrace::into(std::vector<StepTime>* times) {
  times_ = times;
  open_.clear();
}

bool StepTrace::add(const What& what, Clock::time_point begin, Clock::time_point end) {
  if (times_ == nullptr || times_->size() == times_->capacity()) return false;
  StepTime time;
  time.name = what.name;
  time.peer = what.peer;
  time.bytes = what.bytes;
  time.phase = what.phase;
  time.lane = what.lane;
  time.begin = begin;
  time.end = end;
  times_->push_back(time);
  return true;
}

void StepTrace::over(const What& what, Clock::time_point begin) {
  if (times_ != nullptr) (void)add(what, begin, Clock::now());
}

void StepTrace::sent(const What& what, const Channel& channel) {
  if (times_ == nullptr) return;
  const auto now = Clock::now();
  if (add(what, now, now)) open_.push_back({times_->size() - 1, &channel, channel.sends});
}

void StepTrace::look() {
  if (open_.empty()) return;
  const auto now = Clock::now();
  std::erase_if(open_, [&](const Open& open) {
    (*times_)[open.index].end = now;
    return open.channel->endpoint->sends_done() >= open.ticket;
  });
}

}  // namespace gradrail

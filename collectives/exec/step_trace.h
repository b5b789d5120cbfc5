// What an encoded call writes into a trace, where one is wanted: its steps, each once it is over. Plans' steps are
// written by Execution.
//
//   encode, decode, reduce, copy   work on chunks or messages, done by the thread that drives the call
//   send                           from its post until the endpoint has done with it
//   await                          of a coded plan: a lane had nothing to do until data, or room for its own, came;
//                                  of an exchange: from the post of a receive until the message was there
//
// Belongs to one run and its thread. Without a vector to write to, all calls do nothing.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "collectives/exec/channel.h"
#include "collectives/exec/execution.h"

namespace gradrail {

class StepTrace {
 public:
  // For the run that starts now; null: none. Steps beyond the vector's capacity are left out.
  void into(std::vector<StepTime>* times);
  [[nodiscard]] bool wanted() const { return times_ != nullptr; }

  struct What {
    std::string_view name;  // static text
    int peer = -1;
    std::size_t bytes = 0;
    int phase = -1;  // of an exchange
    std::uint8_t lane = 0;
  };
  void over(const What& what, Clock::time_point begin);  // now
  void sent(const What& what, const Channel& channel);   // posted now, as the channel's last
  void look();                                           // which of those sent have left

 private:
  struct Open {
    std::size_t index;
    const Channel* channel;
    std::uint64_t ticket;
  };
  [[nodiscard]] bool add(const What& what, Clock::time_point begin, Clock::time_point end);

  std::vector<StepTime>* times_ = nullptr;
  std::vector<Open> open_;
};

}  // namespace gradrail

// One line on standard error that says how far a run has come and how long it will take; it rewrites itself, and exists
// only where a person is watching a terminal. clear() it before printing anything else there. One thread.
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

#include "transports/base/clock.h"

namespace gradrail {

// "[ 25 %, 1 min 20 s left] allreduce ring 1 MiB", no longer than `width`. The time left assumes that what is to come
// takes as long as what is done: weigh the fraction by expected time, not by points.
[[nodiscard]] std::string progress_line(double fraction_done, Seconds elapsed, std::string_view what,
                                        std::size_t width);

class Progress {
 public:
  explicit Progress(std::FILE* stream = stderr);
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() { clear(); }

  void update(double fraction_done, std::string_view what);  // at most ten times a second
  void clear();

 private:
  std::FILE* stream_;  // null if it is no terminal
  Clock::time_point started_;
  Clock::time_point drawn_;
  bool visible_ = false;
};

}  // namespace gradrail

// Marks in time for loops whose rounds are as short as reading the clock is long: the CPU's counter where there is one,
// which is told as time by what the clock says of all of it. Pure values; of one thread.
#pragma once

#include <cstdint>
#include <vector>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#include "transports/base/clock.h"

namespace gradrail {

// Times of many rounds, one after the other.
class Ticks {
 public:
  // The first round begins; no more than `rounds` follow.
  explicit Ticks(std::size_t rounds) : marks_(rounds + 1), begin_(both()) { marks_[0] = now(); }
  // A round ends, and the next one begins.
  void mark() { marks_[++count_] = now(); }
  // Microseconds of each round times `factor`.
  [[nodiscard]] std::vector<double> rounds_us(double factor) const {
    const Both end = both();
    const double us = Seconds(end.time - begin_.time).count() * 1e6 / static_cast<double>(end.ticks - begin_.ticks);
    std::vector<double> out(count_);
    for (std::size_t i = 0; i < count_; ++i) out[i] = static_cast<double>(marks_[i + 1] - marks_[i]) * us * factor;
    return out;
  }

 private:
  struct Both {
    Clock::time_point time;
    std::uint64_t ticks = 0;
  };
  static std::uint64_t now() {
#if defined(__x86_64__)
    return __rdtsc();
#else
    return static_cast<std::uint64_t>(Clock::now().time_since_epoch().count());
#endif
  }
  // Of a few tries the one that was disturbed least.
  static Both both() {
    Both best;
    std::uint64_t least = UINT64_MAX;
    for (int i = 0; i < 5; ++i) {
      const auto before = now();
      const auto time = Clock::now();
      const auto took = now() - before;
      if (took < least) least = took, best = {time, before + took / 2};
    }
    return best;
  }

  std::vector<std::uint64_t> marks_;
  std::size_t count_ = 0;
  Both begin_;
};

}  // namespace gradrail

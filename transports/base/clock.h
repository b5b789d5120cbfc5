// Monotonic time, and deadlines. Every wait in gradrail takes a Deadline; there is no way to wait for ever.
#pragma once

#include <chrono>

namespace gradrail {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

class Deadline {
 public:
  [[nodiscard]] static Deadline after(Seconds wait) {
    return Deadline{Clock::now() + std::chrono::duration_cast<Clock::duration>(wait)};
  }
  [[nodiscard]] static Deadline at(Clock::time_point when) { return Deadline{when}; }

  [[nodiscard]] bool passed() const { return Clock::now() >= when_; }
  // Time left, never negative.
  [[nodiscard]] Seconds left() const {
    const auto left = when_ - Clock::now();
    return left.count() > 0 ? Seconds(left) : Seconds(0);
  }
  // Time left in whole milliseconds for poll(2), rounded up.
  [[nodiscard]] int left_ms() const {
    return static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(left()).count());
  }
  [[nodiscard]] Clock::time_point when() const { return when_; }

 private:
  explicit Deadline(Clock::time_point when) : when_(when) {}
  Clock::time_point when_;
};

}  // namespace gradrail

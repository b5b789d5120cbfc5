// The time of one piece of work, for figures that a benchmark's own loop does not give: limits beside which it is put.
#pragma once

#include <chrono>

namespace gradrail {

template <class Work>
double seconds(Work&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace gradrail

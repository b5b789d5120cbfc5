// The part of `gradrail tune --error-budget`: once the table is made, codecs are measured beside none, each by what
// auto chooses, and those that are exact enough are held against it.
#pragma once

#include <string>

#include "bench/measure/sweep.h"

namespace gradrail {

// Errors: bad_usage.
[[nodiscard]] Result<void> check_error_budget(double budget);

// The codecs to measure: those that were named, else one of each kind; without those whose single encoding of data like
// gradients is off by more than the budget already. The same on all ranks.
[[nodiscard]] Result<std::vector<std::string>> codecs_within(const SweepOptions& axes, double budget);

// Collective. `said`: on rank 0, what was found, as lines that begin with '#', and the points.
struct CodecFindings {
  std::string text;
  std::vector<Point> points;
};
[[nodiscard]] Result<CodecFindings> measure_codecs(Bootstrap& bootstrap, SweepOptions axes, double budget);

}  // namespace gradrail

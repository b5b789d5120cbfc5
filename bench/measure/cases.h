// What the axes of a sweep come to: the points of its grid, and the calls that are measured beside each other at one.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "bench/measure/sweep.h"
#include "collectives/exec/communicator.h"

namespace gradrail {

struct SweepCase {
  Collective collective;
  Type type;
  ReduceOp op;
  std::int64_t count;
  std::int64_t bytes;
};

// Sizes as whole elements a rank, each once.
[[nodiscard]] std::vector<SweepCase> cases_of(const SweepOptions& options, int ranks);

struct SweepCalls {  // moves, as its calls refer to its names
  SweepCalls() = default;
  SweepCalls(SweepCalls&&) = default;
  SweepCalls& operator=(SweepCalls&&) = default;

  std::vector<Call> calls;        // without memory
  std::deque<std::string> names;  // that calls refer to
};

// A call for each codec and each algorithm that was asked for and fits; none, if none fits. Errors: a codec's that
// cannot be made.
[[nodiscard]] Result<SweepCalls> calls_of(const SweepOptions& options, const SweepCase& c, const Communicator& group);

}  // namespace gradrail

// simulate() with the moments kept: when each step starts and completes on the model's clock. For drawing a plan and
// for laying a measured trace beside the model.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/schedule/cost.h"

namespace gradrail {

struct Span {
  double start = 0;  // seconds; a send starts when it may, and is done when the message has arrived
  double end = 0;
};

struct Timeline {
  Cost cost;
  std::vector<std::vector<Span>> spans;  // by rank, by step
  std::vector<Span> messages;            // on their way, alpha included; in the order of match(); empty ones are zero
};

[[nodiscard]] Timeline timeline_of(const Schedule& schedule, std::uint64_t total_bytes, const CostModel& model);

}  // namespace gradrail

// The parameters of the cost model with which its simulation explains measured times best. Fitting the simulation as a
// whole, rather than each parameter from a measurement of its own, makes the parameters effective ones: what the
// executor fuses, what a transport hides, and what ranks that share cores do to each other is in them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/schedule/cost.h"
#include "collectives/select/selector.h"

namespace gradrail {

// A time measured on all ranks of a group.
struct Observation {
  Collective collective = Collective::allreduce;
  Selection selection;
  std::uint64_t bytes = 0;
  double seconds = 0;  // above 0
};

struct ModelFit {
  CostModel model;
  double error = 0;  // root mean square of ln(model / measured): 0.1 is about 10 %
};

// Least squares of ln(model / measured) over alpha, beta, gamma and step (and between hosts, where there are several),
// by pattern search from `start`; oversubscription and credits stay as they are. The same answer for the same
// observations everywhere. Observations that cannot be planned are left out.
[[nodiscard]] ModelFit fit_model(std::span<const Observation> observations, int ranks, int ranks_per_host,
                                 const CostModel& start);

}  // namespace gradrail

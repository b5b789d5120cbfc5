// Measures the links of a running communicator as the cost model sees them: a few small collectives with explicit
// algorithms, and the parameters with which the simulation explains their times best (collectives/select/model_fit.h).
// Takes well below a second inside a host, and about `most_time` between hosts, however slow the link is: what takes
// longest is tried less often, or not at all.
#pragma once

#include <vector>

#include "bench/measure/buffers.h"
#include "collectives/exec/communicator.h"
#include "collectives/select/model_fit.h"
#include "transports/bootstrap.h"

namespace gradrail {

struct LinkCalibration {
  CostModel model;
  double error = 0;  // ModelFit::error over the observations
  int observations = 0;
};

// Collective. `cores`: usable ones of a host. Rank 0 fits; all ranks get the same parameters to the bit, so that they
// choose alike. One rank alone, or an unmeasurable link, gives the model's defaults. Errors: those of the communicator
// and the bootstrap; `timeout` is the job's, of one operation.
[[nodiscard]] Result<LinkCalibration> calibrate(Bootstrap& bootstrap, Communicator& communicator, BufferKind kind,
                                                int cores, Seconds timeout, Seconds most_time = Seconds(2.5));

// The model's parameters, in words: "inside 1.2 us + 0.10 ns/B, reduce 0.05 ns/B, step 80 ns".
[[nodiscard]] std::string to_string(const CostModel& model, bool several_hosts);

}  // namespace gradrail

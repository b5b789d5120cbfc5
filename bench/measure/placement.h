// Which core a rank runs on. Ranks that the launcher started are bound to a core each where there are enough: left to
// the system, two waiting ranks may share a core for seconds while another idles, and small messages then take a time
// slice instead of a microsecond. mpirun and srun bind ranks themselves and are not interfered with.
#pragma once

#include <vector>

#include "transports/bootstrap.h"

namespace gradrail {

struct Placement {
  std::vector<int> cores;  // that this process could use before it was bound
  bool bound = false;
};

// Errors: the system's, if it refuses.
[[nodiscard]] Result<Placement> place_rank(const Bootstrap& bootstrap);

}  // namespace gradrail

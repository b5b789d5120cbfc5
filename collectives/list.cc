// The one table that names all planners. A new algorithm is one file in plan/ and one line in each list here.
#include "collectives/plan/planner.h"

namespace gradrail {

extern const Planner k_ring_allreduce;

std::span<const Planner* const> planners() {
  static constexpr const Planner* k_planners[] = {
      &k_ring_allreduce,
  };
  return k_planners;
}

}  // namespace gradrail

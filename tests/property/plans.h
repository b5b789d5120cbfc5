// Which plans the property tests look at: every planner, over the shapes that it supports.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "collectives/plan/planner.h"

namespace gradrail::test {

// "hierarchical allreduce, 6 ranks in hosts of 3, root 0, lanes 2, pieces 3, in place".
[[nodiscard]] std::string describe(const Planner& planner, const Shape& shape);

// Roots worth trying: the first, the second, one in the middle and the last; only 0 for collectives that have none.
[[nodiscard]] std::vector<int> roots(Collective collective, int ranks);
// Hosts worth trying: one host, one rank a host, and two sizes between.
[[nodiscard]] std::vector<int> host_sizes(int ranks);

// Shapes of `ranks` ranks that the planner supports. `thorough` tries all combinations of lanes {1, 2, 4}, pieces {1,
// 3}, in place or not, roots and hosts; otherwise each of these values occurs, but not each with each. Hosts
// vary only for planners whose programs depend on them.
[[nodiscard]] std::vector<Shape> shapes(const Planner& planner, int ranks, bool thorough);

// Names a test after its planner: "ring_allreduce".
struct PlannerName {
  std::string operator()(const testing::TestParamInfo<const Planner*>& info) const;
};
[[nodiscard]] inline std::vector<const Planner*> all_planners() { return {planners().begin(), planners().end()}; }

}  // namespace gradrail::test

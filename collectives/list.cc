// The one table that names all planners; where measurements tie, the earlier one wins. A new algorithm is one file in
// plan/, which defines the constant, and one line here.
#include "collectives/plan/planner.h"

#define GRADRAIL_PLANNERS(PLANNER)            \
  PLANNER(k_ring_allreduce)                   \
  PLANNER(k_double_binary_tree_allreduce)     \
  PLANNER(k_recursive_doubling_allreduce)     \
  PLANNER(k_halving_doubling_allreduce)       \
  PLANNER(k_one_shot_allreduce)               \
  PLANNER(k_two_shot_allreduce)               \
  PLANNER(k_hierarchical_allreduce)           \
  PLANNER(k_ring_reduce_scatter)              \
  PLANNER(k_direct_reduce_scatter)            \
  PLANNER(k_recursive_halving_reduce_scatter) \
  PLANNER(k_ring_all_gather)                  \
  PLANNER(k_direct_all_gather)                \
  PLANNER(k_bruck_all_gather)                 \
  PLANNER(k_direct_broadcast)                 \
  PLANNER(k_binomial_broadcast)               \
  PLANNER(k_chain_broadcast)                  \
  PLANNER(k_scatter_allgather_broadcast)      \
  PLANNER(k_direct_reduce)                    \
  PLANNER(k_binomial_reduce)                  \
  PLANNER(k_chain_reduce)                     \
  PLANNER(k_reduce_scatter_gather_reduce)     \
  PLANNER(k_direct_all_to_all)                \
  PLANNER(k_pairwise_all_to_all)              \
  PLANNER(k_bruck_all_to_all)                 \
  PLANNER(k_direct_gather)                    \
  PLANNER(k_binomial_gather)                  \
  PLANNER(k_direct_scatter)                   \
  PLANNER(k_binomial_scatter)                 \
  PLANNER(k_direct_send_recv)

namespace gradrail {

#define GRADRAIL_DECLARE(planner) extern const Planner planner;
GRADRAIL_PLANNERS(GRADRAIL_DECLARE)
#undef GRADRAIL_DECLARE

std::span<const Planner* const> planners() {
#define GRADRAIL_ENTRY(planner) &planner,
  static constexpr const Planner* k_planners[] = {GRADRAIL_PLANNERS(GRADRAIL_ENTRY)};
#undef GRADRAIL_ENTRY
  return k_planners;
}

}  // namespace gradrail

// The one table that names all planners. A new algorithm is one file in plan/ and one line in each list here.
#include "collectives/plan/planner.h"

namespace gradrail {

extern const Planner k_ring_allreduce;
extern const Planner k_double_binary_tree_allreduce;
extern const Planner k_recursive_doubling_allreduce;
extern const Planner k_halving_doubling_allreduce;
extern const Planner k_one_shot_allreduce;
extern const Planner k_two_shot_allreduce;
extern const Planner k_hierarchical_allreduce;

extern const Planner k_ring_reduce_scatter;
extern const Planner k_direct_reduce_scatter;
extern const Planner k_recursive_halving_reduce_scatter;

extern const Planner k_ring_all_gather;
extern const Planner k_direct_all_gather;
extern const Planner k_bruck_all_gather;

extern const Planner k_direct_broadcast;
extern const Planner k_binomial_broadcast;
extern const Planner k_chain_broadcast;
extern const Planner k_scatter_allgather_broadcast;

extern const Planner k_direct_reduce;
extern const Planner k_binomial_reduce;
extern const Planner k_chain_reduce;
extern const Planner k_reduce_scatter_gather_reduce;

extern const Planner k_direct_all_to_all;
extern const Planner k_pairwise_all_to_all;
extern const Planner k_bruck_all_to_all;

extern const Planner k_direct_gather;
extern const Planner k_binomial_gather;

extern const Planner k_direct_scatter;
extern const Planner k_binomial_scatter;

extern const Planner k_direct_send_recv;

std::span<const Planner* const> planners() {
  static constexpr const Planner* k_planners[] = {
      &k_ring_allreduce,
      &k_double_binary_tree_allreduce,
      &k_recursive_doubling_allreduce,
      &k_halving_doubling_allreduce,
      &k_one_shot_allreduce,
      &k_two_shot_allreduce,
      &k_hierarchical_allreduce,

      &k_ring_reduce_scatter,
      &k_direct_reduce_scatter,
      &k_recursive_halving_reduce_scatter,

      &k_ring_all_gather,
      &k_direct_all_gather,
      &k_bruck_all_gather,

      &k_direct_broadcast,
      &k_binomial_broadcast,
      &k_chain_broadcast,
      &k_scatter_allgather_broadcast,

      &k_direct_reduce,
      &k_binomial_reduce,
      &k_chain_reduce,
      &k_reduce_scatter_gather_reduce,

      &k_direct_all_to_all,
      &k_pairwise_all_to_all,
      &k_bruck_all_to_all,

      &k_direct_gather,
      &k_binomial_gather,

      &k_direct_scatter,
      &k_binomial_scatter,

      &k_direct_send_recv,
  };
  return k_planners;
}

}  // namespace gradrail

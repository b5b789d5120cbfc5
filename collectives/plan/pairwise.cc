// Pairwise exchange: all-to-all in rounds of one partner each.
//
// n-1 rounds (in place n); every rank sends (n-1)/n of the data, the least possible, and at any time sends one message
// and receives one, so that no port is flooded. Best for large messages. Thakur, Rabenseifner and Gropp, "Optimization
// of collective communication operations in MPICH", IJHPCA 19(1), 2005 (all-to-all, long messages).
//
// A round starts when the one before has ended. In round r, rank i sends to i+r and receives from i-r. In place, both
// are r-i: a block received into scratch then replaces the block that has just left for the same rank, and no other
// peer waits for it; a rank that would be its own partner sits the round out. Four ranks (rank sent to, by round):
//
//     out of place              in place
//     round    1  2  3          round    0  1  2  3
//     rank 0   1  2  3          rank 0   -  1  2  3
//     rank 1   2  3  0          rank 1   3  0  -  2
//     rank 2   3  0  1          rank 2   -  3  0  1      -: its own partner
//     rank 3   0  1  2          rank 3   1  2  -  0
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

void emit(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const bool in_place = builder.shape().in_place;
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int round = in_place ? 0 : 1; round < n; ++round) {
      const int target = wrap(in_place ? round - group.me : group.me + round, n);
      const int source = wrap(in_place ? round - group.me : group.me - round, n);
      if (target == group.me) continue;
      const Window leaves = blocks.part(target, lane);
      const Window arrives = blocks.part(source, lane);
      const Place result = builder.result(arrives);
      const Place lands = in_place ? builder.scratch(0, arrives) : result;
      builder.wait();
      builder.send_from(group, target, Place{Store::in, 0, leaves.first}, leaves.count);
      builder.recv_to(group, source, lands, arrives.count);
      if (in_place) builder.copy(lands, result, arrives.count);
      builder.moved(arrives, result);
    }
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_pairwise_all_to_all{"pairwise",
                                           Collective::all_to_all,
                                           "one partner a round; least bytes, no port flooded, n-1 rounds",
                                           supports,
                                           grain,
                                           emit,
                                           chunks_sent};

}  // namespace gradrail

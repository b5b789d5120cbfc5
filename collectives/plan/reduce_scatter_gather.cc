// Reduce-scatter then gather: Rabenseifner's reduce for large messages.
//
// 2*ceil(log2 n) rounds; the root sends (n-1)/n of the data, any other rank its subtree's blocks besides, at most half
// of the data. Rabenseifner, "A new optimized MPI reduce and allreduce algorithm", 1997; Thakur, Rabenseifner and
// Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 19(1), 2005 (reduce, long messages).
// The first part is the halving of recursive_halving.cc, so any number of ranks will do.
//
// Members are numbered from the root. Block v is reduced at member v, then travels up the binomial tree (binomial.h)
// with the blocks of the subtree. Four ranks (blocks sent -> to, by round):
//
//     round        0            1           2          3
//     member 0     2,3 -> 2     1 -> 1
//     member 1     3,0 -> 3     2 -> 2      1 -> 0
//     member 2     0,1 -> 0     3 -> 3                 2,3 -> 0
//     member 3     1,2 -> 1     0 -> 0      3 -> 2
//
// Each lane has blocks of its own.
#include "collectives/plan/binomial.h"
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"
#include "collectives/plan/recursive_halving.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

void emit(Builder& builder, const Group& members, Window window) {
  const Group group = rooted(members, builder.shape().root);
  const int n = group.size();
  const int me = group.me;
  const BinomialTree tree{n};
  const auto lanes = static_cast<std::uint32_t>(builder.shape().lanes);
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    builder.lane(static_cast<int>(lane));
    const Blocks blocks(window.part(lane, lanes), n, 1);
    halve(builder, group, blocks, 0);
    // Subtrees never wrap: a run is one message.
    for (int k = 0; k < tree.children(me); ++k) {
      const int child = tree.child(me, k);
      blocks.for_each_run(child, tree.subtree(child), 0, [&](Window run) { builder.recv(group, child, run); });
    }
    if (me != 0)
      blocks.for_each_run(me, tree.subtree(me), 0, [&](Window run) { builder.send(group, tree.parent(me), run); });
  }
}

std::uint64_t chunks_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  const int v = wrap(member - shape.root, n);
  return static_cast<std::uint64_t>(n - 1 + (v == 0 ? 0 : BinomialTree{n}.subtree(v))) *
         (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_reduce_scatter_gather_reduce{
    "reduce_scatter_gather",
    Collective::reduce,
    "halved down to one block a rank, gathered up a tree; for large messages",
    supports,
    grain,
    emit,
    chunks_sent};

}  // namespace gradrail

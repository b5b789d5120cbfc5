// Scatter then all-gather: van de Geijn's broadcast for large messages.
//
// At most ceil(log2 n) + n-1 rounds; the root sends 2(n-1)/n of the data, half in either part, and the others less: the
// blocks of their subtree but their own, then those that the next rank lacks. Barnett, Gupta, Payne, Shuler, van
// de Geijn and Watts, "Interprocessor collective communication library (InterCom)", SHPCC 1994; Thakur, Rabenseifner
// and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 19(1), 2005 (broadcast, long
// messages); the ring that leaves out what its receiver holds: Zhou et al., "A bandwidth-saving optimization for MPI
// broadcast collective operation", arXiv:1603.06809.
//
// Members are numbered from the root, and block v is the one that member v gets in the scatter down a binomial tree
// (binomial.h); inner members get the blocks of their subtree with it. Then blocks go around a ring. Four ranks (-> is
// a message, with its blocks):
//
//     scatter                          ring
//     0 -2,3-> 2                       0 -0-> 1,  0 -3-> 1,  0 -2-> 1
//     0 -1-> 1     2 -3-> 3            1 -1-> 2,  1 -0-> 2            (2 holds 3 already)
//                                      2 -2-> 3,  2 -1-> 3,  2 -0-> 3
//                                      3 sends nothing: the root holds all
//
// Each lane has blocks of its own, each block `pieces` pieces, which move on around the ring as soon as they arrive.
#include "collectives/plan/binomial.h"
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes * shape.pieces); }

// Whether member v has the block once the scatter is done.
bool scattered(const BinomialTree& tree, int v, int block) { return block >= v && block < v + tree.subtree(v); }

void emit(Builder& builder, const Group& members, Window window) {
  const Group group = rooted(members, builder.shape().root);
  const int n = group.size();
  const int me = group.me;
  const int next = wrap(me + 1, n);
  const int previous = wrap(me - 1, n);
  const int pieces = builder.shape().pieces;
  const auto lanes = static_cast<std::uint32_t>(builder.shape().lanes);
  const BinomialTree tree{n};
  if (n == 1) return;
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    builder.lane(static_cast<int>(lane));
    const Blocks blocks(window.part(lane, lanes), n, 1);
    // Subtrees never wrap: a run is one message.
    if (me != 0)
      blocks.for_each_run(me, tree.subtree(me), 0, [&](Window run) { builder.recv(group, tree.parent(me), run); });
    for (int k = tree.children(me) - 1; k >= 0; --k) {
      const int child = tree.child(me, k);
      blocks.for_each_run(child, tree.subtree(child), 0, [&](Window run) { builder.send(group, child, run); });
    }
    // In round r a member passes on block me-r and then gets block me-1-r.
    for (int round = 0; round < n - 1; ++round) {
      const int leaves = wrap(me - round, n);
      const int arrives = wrap(me - 1 - round, n);
      for (int piece = 0; piece < pieces; ++piece) {
        if (!scattered(tree, next, leaves)) builder.send(group, next, blocks.part(leaves, 0, piece, pieces));
        if (!scattered(tree, me, arrives)) builder.recv(group, previous, blocks.part(arrives, 0, piece, pieces));
      }
    }
  }
}

std::uint64_t chunks_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  if (n == 1) return 0;
  const int v = wrap(member - shape.root, n);
  const BinomialTree tree{n};
  // Scatter: the subtree but itself. Ring: the blocks that the next member lacks.
  return static_cast<std::uint64_t>(tree.subtree(v) - 1 + n - tree.subtree((v + 1) % n)) *
         (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_scatter_allgather_broadcast{"scatter_allgather",
                                                   Collective::broadcast,
                                                   "scattered down a tree, gathered around a ring; for large messages",
                                                   supports,
                                                   grain,
                                                   emit,
                                                   chunks_sent};

}  // namespace gradrail

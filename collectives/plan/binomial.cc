// Binomial trees: broadcast, reduce, gather and scatter with any root and any number of ranks.
//
// ceil(log2 n) rounds, the least possible. Broadcast and reduce: the whole data on every edge (broadcast: the root
// sends it ceil(log2 n) times). Gather and scatter: an edge carries the blocks of the subtree below it, so the root
// moves (n-1)/n of the data, the least possible, but a block may travel over several edges. Best for small messages.
// Chan, Heimlich, Purkayastha and van de Geijn, "Collective communication: theory, practice, and experience", CCPE
// 19(13), 2007 (minimum-spanning-tree algorithms).
//
// Members are numbered from the root (0 is the root); the tree is binomial.h's. Four ranks (-> is a message, with its
// blocks):
//
//     round            0                       1
//     broadcast        0 -> 2                  0 -> 1,  2 -> 3
//     scatter          0 -2,3-> 2              0 -1-> 1,  2 -3-> 3
//     reduce           1 -> 0,  3 -> 2         2 -> 0
//     gather           1 -1-> 0,  3 -3-> 2     2 -2,3-> 0
//
// Broadcast and reduce stream `pieces` pieces down the tree. Blocks of a subtree are neighbours, so that they travel in
// one message (two where the numbering wraps around the last rank; a block each with more than one lane).
#include "collectives/plan/binomial.h"

#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t lanes_and_pieces(const Shape& shape, int) {
  return static_cast<std::uint32_t>(shape.lanes * shape.pieces);
}

std::uint32_t blocks_and_lanes(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

void emit_broadcast(Builder& builder, const Group& members, Window window) {
  const Group group = rooted(members, builder.shape().root);
  const BinomialTree tree{group.size()};
  const int me = group.me;
  const int pieces = builder.shape().pieces;
  const Blocks whole(window, 1, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    // The receive of the next piece is posted before this one is passed on.
    for (int piece = 0; piece <= pieces; ++piece) {
      if (me != 0 && piece < pieces) builder.recv(group, tree.parent(me), whole.part(0, lane, piece, pieces));
      if (piece == 0) continue;
      for (int k = tree.children(me) - 1; k >= 0; --k)
        builder.send(group, tree.child(me, k), whole.part(0, lane, piece - 1, pieces));
    }
  }
}

void emit_reduce(Builder& builder, const Group& members, Window window) {
  const Group group = rooted(members, builder.shape().root);
  const BinomialTree tree{group.size()};
  const int me = group.me;
  const int pieces = builder.shape().pieces;
  const Blocks whole(window, 1, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int piece = 0; piece < pieces; ++piece) {
      const Window part = whole.part(0, lane, piece, pieces);
      for (int k = 0; k < tree.children(me); ++k) builder.recv_reduce(group, tree.child(me, k), part);
      if (me != 0) builder.send(group, tree.parent(me), part);
    }
  }
}

void emit_scatter(Builder& builder, const Group& members, Window window) {
  const int n = members.size();
  const int root = builder.shape().root;
  const Group group = rooted(members, root);
  const BinomialTree tree{n};
  const int me = group.me;
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    if (me != 0)
      blocks.for_each_run(members.me, tree.subtree(me), lane,
                          [&](Window run) { builder.recv(group, tree.parent(me), run); });
    for (int k = tree.children(me) - 1; k >= 0; --k) {
      const int child = tree.child(me, k);
      blocks.for_each_run(wrap(child + root, n), tree.subtree(child), lane,
                          [&](Window run) { builder.send(group, child, run); });
    }
  }
}

void emit_gather(Builder& builder, const Group& members, Window window) {
  const int n = members.size();
  const int root = builder.shape().root;
  const Group group = rooted(members, root);
  const BinomialTree tree{n};
  const int me = group.me;
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    // An inner rank's own block joins those of its subtree, to travel with them in one message; the last rank's cannot.
    if (me != 0 && tree.children(me) > 0 && blocks.contiguous() && members.me != n - 1)
      builder.settle(blocks.part(members.me, lane));
    for (int k = 0; k < tree.children(me); ++k) {
      const int child = tree.child(me, k);
      blocks.for_each_run(wrap(child + root, n), tree.subtree(child), lane,
                          [&](Window run) { builder.recv(group, child, run); });
    }
    if (me != 0)
      blocks.for_each_run(members.me, tree.subtree(me), lane,
                          [&](Window run) { builder.send(group, tree.parent(me), run); });
  }
}

int from_root(const Shape& shape, int n, int member) { return wrap(member - shape.root, n); }

std::uint64_t broadcast_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(BinomialTree{n}.children(from_root(shape, n, member))) * chunks;
}

std::uint64_t reduce_sent(const Shape& shape, int, int member, std::uint32_t chunks) {
  return member == shape.root ? 0 : chunks;
}

std::uint64_t scatter_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(BinomialTree{n}.subtree(from_root(shape, n, member)) - 1) *
         (chunks / static_cast<std::uint32_t>(n));
}

std::uint64_t gather_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  if (member == shape.root) return 0;
  return static_cast<std::uint64_t>(BinomialTree{n}.subtree(from_root(shape, n, member))) *
         (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_binomial_broadcast{
    "binomial",    Collective::broadcast, "down a binomial tree; least rounds, the root sends the data log2(n) times",
    supports,      lanes_and_pieces,      emit_broadcast,
    broadcast_sent};

extern const Planner k_binomial_reduce{
    "binomial", Collective::reduce, "up a binomial tree; least rounds, the root receives the data log2(n) times",
    supports,   lanes_and_pieces,   emit_reduce,
    reduce_sent};

extern const Planner k_binomial_gather{
    "binomial", Collective::gather, "up a binomial tree, blocks joined on the way; least rounds",
    supports,   blocks_and_lanes,   emit_gather,
    gather_sent};

extern const Planner k_binomial_scatter{
    "binomial",  Collective::scatter, "down a binomial tree, blocks parted on the way; least rounds",
    supports,    blocks_and_lanes,    emit_scatter,
    scatter_sent};

}  // namespace gradrail

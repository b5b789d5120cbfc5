// Direct (linear) broadcast, reduce, gather and scatter: the root talks to every other rank itself.
//
// One round of n-1 messages at the root, one message at every other rank. Broadcast: the root sends (n-1) times the
// data; reduce: every other rank sends the data once; gather and scatter: (n-1)/n of the data pass through the root,
// the least possible. Best for few ranks, and where peers read the root's memory in place; the root is the bottleneck
// otherwise. Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA
// 19(1), 2005; "linear" in Open MPI.
//
// The root visits the others at growing distance. Four ranks, root 1 (-> is a message, with its block):
//
//     broadcast  1 -> 2, 1 -> 3, 1 -> 0            all of the data
//     reduce     2 -> 1, 3 -> 1, 0 -> 1            all of the data, added in this order
//     scatter    1 -2-> 2, 1 -3-> 3, 1 -0-> 0
//     gather     2 -2-> 1, 3 -3-> 1, 0 -0-> 1
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t blocks_and_lanes(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

std::uint32_t lanes_only(const Shape& shape, int) { return static_cast<std::uint32_t>(shape.lanes); }

// Calls step(lane) on every lane at a rank that is not the root, step(lane, peer) for every peer at the root.
template <class AtRoot, class AtOther>
void star(Builder& builder, const Group& group, AtRoot at_root, AtOther at_other) {
  const int n = group.size();
  const int root = builder.shape().root;
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    if (group.me != root) {
      at_other(lane);
      continue;
    }
    for (int distance = 1; distance < n; ++distance) at_root(lane, wrap(root + distance, n));
  }
}

void emit_broadcast(Builder& builder, const Group& group, Window window) {
  const Blocks whole(window, 1, builder.shape().lanes);
  star(
      builder, group, [&](int lane, int peer) { builder.send(group, peer, whole.part(0, lane)); },
      [&](int lane) { builder.recv(group, builder.shape().root, whole.part(0, lane)); });
}

void emit_reduce(Builder& builder, const Group& group, Window window) {
  const Blocks whole(window, 1, builder.shape().lanes);
  star(
      builder, group, [&](int lane, int peer) { builder.recv_reduce(group, peer, whole.part(0, lane)); },
      [&](int lane) { builder.send(group, builder.shape().root, whole.part(0, lane)); });
}

void emit_scatter(Builder& builder, const Group& group, Window window) {
  const Blocks blocks(window, group.size(), builder.shape().lanes);
  star(
      builder, group, [&](int lane, int peer) { builder.send(group, peer, blocks.part(peer, lane)); },
      [&](int lane) { builder.recv(group, builder.shape().root, blocks.part(group.me, lane)); });
}

void emit_gather(Builder& builder, const Group& group, Window window) {
  const Blocks blocks(window, group.size(), builder.shape().lanes);
  star(
      builder, group, [&](int lane, int peer) { builder.recv(group, peer, blocks.part(peer, lane)); },
      [&](int lane) { builder.send(group, builder.shape().root, blocks.part(group.me, lane)); });
}

std::uint64_t broadcast_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  return member == shape.root ? static_cast<std::uint64_t>(n - 1) * chunks : 0;
}

std::uint64_t reduce_sent(const Shape& shape, int, int member, std::uint32_t chunks) {
  return member == shape.root ? 0 : chunks;
}

std::uint64_t scatter_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  return broadcast_sent(shape, n, member, chunks / static_cast<std::uint32_t>(n));
}

std::uint64_t gather_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  return reduce_sent(shape, n, member, chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_direct_broadcast{"direct",
                                        Collective::broadcast,
                                        "the root sends to everyone; one round, all bytes leave the root",
                                        supports,
                                        lanes_only,
                                        emit_broadcast,
                                        broadcast_sent};

extern const Planner k_direct_reduce{
    "direct",   Collective::reduce, "everyone sends to the root; one round, all bytes enter the root",
    supports,   lanes_only,         emit_reduce,
    reduce_sent};

extern const Planner k_direct_gather{
    "direct",   Collective::gather, "everyone sends its block to the root; least bytes, one round",
    supports,   blocks_and_lanes,   emit_gather,
    gather_sent};

extern const Planner k_direct_scatter{
    "direct",    Collective::scatter, "the root sends everyone its block; least bytes, one round",
    supports,    blocks_and_lanes,    emit_scatter,
    scatter_sent};

}  // namespace gradrail

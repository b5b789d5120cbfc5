// Double binary tree allreduce: half of the data is reduced to the root of one tree and broadcast from it, the other
// half over a second tree, in which the leaves of the first are inner nodes.
//
// About 2 log2(n) + pieces rounds; a rank sends half of the data to each neighbour in each tree: at most twice the
// data, 2(n-1)/n of it on average, the least possible. Latency grows with log n only and, pipelined over pieces,
// bandwidth stays near a ring's. Sanders, Speck and Traeff, "Two-tree algorithms for full bandwidth broadcast,
// reduction and scan", Parallel Computing 35(12), 2009; the construction by bits, mirrored for even n and shifted by
// one for odd n, is that of NCCL 2.4 (Jeaugey, "Massively Scale Your Deep Learning Training with NCCL 2.4", 2019).
//
// The data is divided into streams: as many as lanes, twice as many if those are odd. Stream s uses tree s % 2 and lane
// s % lanes, so that with an even number of lanes each tree has lanes of its own. A stream is divided into `pieces`
// pieces. Four ranks: every rank is an inner node in at most one tree.
//
//     tree 0:  0 - 2 - 1        tree 1:  3 - 1 - 2        (root - inner node - leaves)
//                    `- 3                      `- 0
//
// A rank sends a piece down as many pieces after sending it up as it takes the piece to the root and back, so that
// both directions move at once and neither waits for the other.
#include <array>
#include <bit>

#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

constexpr int k_none = -1;

struct Node {
  int parent = k_none;
  int children[2] = {k_none, k_none};
};

// Tree 0 by bits: odd ranks are leaves; a rank whose lowest set bit is b has children at distance b/2 on both sides,
// and its parent at distance b, towards the side on which that has the bit 2b. A right child beyond the last rank is
// replaced by the nearest of b/4, b/8, .. that exists, as is a parent by the one at the left.
Node first_tree(int n, int rank) {
  Node node;
  int bit = 1;
  while (bit < n && (rank & bit) == 0) bit <<= 1;
  if (rank == 0) {
    if (n > 1) node.children[1] = bit >> 1;
    return node;
  }
  node.parent = (rank ^ bit) | (bit << 1);
  if (node.parent >= n) node.parent = rank ^ bit;
  int distance = bit >> 1;
  if (distance == 0) return node;
  node.children[0] = rank - distance;
  while (distance > 0 && rank + distance >= n) distance >>= 1;
  if (distance > 0) node.children[1] = rank + distance;
  return node;
}

// Tree 1 is tree 0 mirrored if n is even and shifted by one if it is odd: either maps odd ranks to even ones.
Node node_of(int tree, int n, int rank) {
  if (tree == 0) return first_tree(n, rank);
  const bool mirrored = n % 2 == 0;
  Node node = first_tree(n, mirrored ? n - 1 - rank : (rank + n - 1) % n);
  const auto back = [&](int other) { return other == k_none ? k_none : mirrored ? n - 1 - other : (other + 1) % n; };
  node.parent = back(node.parent);
  for (int& child : node.children) child = back(child);
  return node;
}

int depth_of(int tree, int n, int rank) {
  int depth = 0;
  for (int parent = node_of(tree, n, rank).parent; parent != k_none; parent = node_of(tree, n, parent).parent) ++depth;
  return depth;
}

Result<void> supports(const Shape&) { return {}; }

int streams_of(const Shape& shape) { return shape.lanes % 2 == 0 ? shape.lanes : 2 * shape.lanes; }

std::uint32_t grain(const Shape& shape, int) { return static_cast<std::uint32_t>(streams_of(shape) * shape.pieces); }

struct Stream {
  Node node;
  int depth;  // of this rank in its tree
  Window window;

  void up(Builder& builder, const Group& group, Window piece) const {
    for (const int child : node.children)
      if (child != k_none) builder.recv_reduce(group, child, piece);
    if (node.parent != k_none) builder.send(group, node.parent, piece);
  }
  void down(Builder& builder, const Group& group, Window piece) const {
    if (node.parent != k_none) builder.recv(group, node.parent, piece);
    for (const int child : node.children)
      if (child != k_none) builder.send(group, child, piece);
  }
};

void emit(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  if (n == 1) return;
  const int lanes = builder.shape().lanes;
  const int pieces = builder.shape().pieces;
  const int count = streams_of(builder.shape());
  const std::array nodes = {node_of(0, n, group.me), node_of(1, n, group.me)};
  const std::array depths = {depth_of(0, n, group.me), depth_of(1, n, group.me)};
  const int deepest = std::bit_width(static_cast<unsigned>(n - 1));
  for (int lane = 0; lane < lanes; ++lane) {
    builder.lane(lane);
    std::vector<Stream> streams;
    for (int s = lane; s < count; s += lanes) {
      const auto tree = static_cast<std::size_t>(s % 2);
      streams.push_back(
          {nodes[tree], depths[tree], window.part(static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(count))});
    }
    const auto part = [&](const Stream& stream, int piece) {
      return stream.window.part(static_cast<std::uint32_t>(piece), static_cast<std::uint32_t>(pieces));
    };
    // In slot t a rank of depth d moves piece t - (deepest - d) up and piece t - (deepest + d) down. What is sent in a
    // slot is received in the next, in the order in which it was sent: so messages match although two ranks may be
    // neighbours in both trees, and no two ranks can wait for each other.
    for (int slot = 0; slot < pieces + 2 * deepest; ++slot) {
      for (const Stream& stream : streams) {
        const int piece = slot - (deepest - stream.depth);
        if (piece >= 0 && piece < pieces) stream.up(builder, group, part(stream, piece));
      }
      for (const Stream& stream : streams) {
        const int piece = slot - (deepest + stream.depth);
        if (piece >= 0 && piece < pieces) stream.down(builder, group, part(stream, piece));
      }
    }
  }
}

// Half of the data passes once over each edge of a tree in each direction.
std::uint64_t chunks_sent(const Shape&, int n, int member, std::uint32_t chunks) {
  int neighbours = 0;
  for (const int tree : {0, 1}) {
    const Node node = node_of(tree, n, member);
    for (const int other : {node.parent, node.children[0], node.children[1]}) neighbours += other != k_none ? 1 : 0;
  }
  return static_cast<std::uint64_t>(neighbours) * (chunks / 2);
}

}  // namespace

extern const Planner k_double_binary_tree_allreduce{
    "tree",
    Collective::allreduce,
    "two complementary binary trees, half of the data each; few rounds, pipelined",
    supports,
    grain,
    emit,
    chunks_sent};

}  // namespace gradrail

// Ring reduce-scatter and ring all-gather: the two halves of the ring allreduce, ended at the block each rank owns.
//
// n-1 rounds each; every rank sends (n-1)/n of the data, the least possible, to one neighbour only. Best for large
// messages, worst latency. Chan, Heimlich, Purkayastha and van de Geijn, "Collective communication: theory, practice,
// and experience", CCPE 19(13), 2007 (bucket algorithms).
//
// Each block is divided over `lanes` lanes and `pieces` pieces; a piece moves on as soon as it has arrived. Four ranks,
// one lane, one piece (block index sent, by round):
//
//     reduce-scatter        all-gather
//     round      0  1  2    round      0  1  2
//     rank 0     3  2  1    rank 0     0  3  2
//     rank 1     0  3  2    rank 1     1  0  3
//     rank 2     1  0  3    rank 2     2  1  0
//     rank 3     2  1  0    rank 3     3  2  1
//     rank r ends with block r reduced | rank r starts with block r
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes * shape.pieces); }

void emit_reduce_scatter(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const int pieces = builder.shape().pieces;
  const Blocks blocks(window, n, builder.shape().lanes);
  if (n == 1) return;
  const int next = wrap(group.me + 1, n);
  const int previous = wrap(group.me - 1, n);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int piece = 0; piece < pieces; ++piece) builder.send(group, next, blocks.part(previous, lane, piece, pieces));
    for (int round = 1; round < n; ++round)
      for (int piece = 0; piece < pieces; ++piece) {
        const Window chunk = blocks.part(wrap(group.me - 1 - round, n), lane, piece, pieces);
        builder.recv_reduce(group, previous, chunk);
        if (round < n - 1) builder.send(group, next, chunk);
      }
  }
}

void emit_all_gather(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const int pieces = builder.shape().pieces;
  const Blocks blocks(window, n, builder.shape().lanes);
  if (n == 1) return;
  const int next = wrap(group.me + 1, n);
  const int previous = wrap(group.me - 1, n);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int piece = 0; piece < pieces; ++piece) builder.send(group, next, blocks.part(group.me, lane, piece, pieces));
    for (int round = 1; round < n; ++round)
      for (int piece = 0; piece < pieces; ++piece) {
        const Window chunk = blocks.part(wrap(group.me - round, n), lane, piece, pieces);
        builder.recv(group, previous, chunk);
        if (round < n - 1) builder.send(group, next, chunk);
      }
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_ring_reduce_scatter{"ring",
                                           Collective::reduce_scatter,
                                           "partial sums around a ring; least bytes, most rounds",
                                           supports,
                                           grain,
                                           emit_reduce_scatter,
                                           chunks_sent};

extern const Planner k_ring_all_gather{"ring",
                                       Collective::all_gather,
                                       "blocks around a ring; least bytes, most rounds",
                                       supports,
                                       grain,
                                       emit_all_gather,
                                       chunks_sent};

}  // namespace gradrail

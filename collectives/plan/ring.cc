// Ring allreduce: reduce-scatter then all-gather around a ring.
//
// 2(n-1) rounds; every rank sends 2(n-1)/n of the data, the least possible, to one neighbour only. Best for large
// messages, worst latency. Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
// JPDC 69(2), 2009, section 3.
//
// The data is n blocks; each block is divided over `lanes` lanes and `pieces` pieces. A piece moves on as soon as it is
// reduced, so sending, receiving and reducing overlap. Four ranks, one lane, one piece (block index sent, by round):
//
//     round      0  1  2 | 3  4  5
//     rank 0     0  3  2 | 1  0  3      reduce-scatter | all-gather
//     rank 1     1  0  3 | 2  1  0      after round 2, rank r holds block r+1 reduced
//     rank 2     2  1  0 | 3  2  1
//     rank 3     3  2  1 | 0  3  2
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes * shape.pieces); }

void emit(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  if (n == 1) return;
  const auto lanes = static_cast<std::uint32_t>(builder.shape().lanes);
  const auto pieces = window.count / (static_cast<std::uint32_t>(n) * lanes);
  const int next = (group.me + 1) % n;
  const int previous = (group.me + n - 1) % n;
  const auto part = [&](int block, std::uint32_t lane, std::uint32_t piece) {
    return window.part(static_cast<std::uint32_t>((block % n + n) % n), static_cast<std::uint32_t>(n))
        .part(lane, lanes)
        .part(piece, pieces);
  };
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    builder.lane(static_cast<int>(lane));
    for (std::uint32_t piece = 0; piece < pieces; ++piece) builder.send(group, next, part(group.me, lane, piece));
    for (int round = 1; round < n; ++round)
      for (std::uint32_t piece = 0; piece < pieces; ++piece) {
        const Window chunk = part(group.me - round, lane, piece);
        builder.recv_reduce(group, previous, chunk);
        builder.send(group, next, chunk);
      }
    for (int round = 0; round < n - 1; ++round)
      for (std::uint32_t piece = 0; piece < pieces; ++piece) {
        const Window chunk = part(group.me - round, lane, piece);
        builder.recv(group, previous, chunk);
        if (round < n - 2) builder.send(group, next, chunk);
      }
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return 2ull * static_cast<std::uint64_t>(n - 1) * chunks / static_cast<std::uint64_t>(n);
}

}  // namespace

extern const Planner k_ring_allreduce{
    "ring", Collective::allreduce, "reduce-scatter and all-gather around a ring; least bytes, most rounds",
    supports, grain, emit, chunks_sent};

}  // namespace gradrail

// Recursive halving: reduce-scatter with the least rounds and the least bytes at once, for any number of ranks.
//
// ceil(log2 n) rounds; every rank sends (n-1)/n of the data. Best for small and medium messages. The classical form
// (Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 19(1), 2005,
// reduce-scatter) needs a power of two; this one, on a circulant graph, does not: Träff, "Optimal, non-pipelined
// reduce-scatter and allreduce algorithms", arXiv:2410.14234, 2024. The order of the sum differs from rank to rank, but
// each block is summed at one rank only.
//
// Rank r keeps a shrinking run of blocks r, r+1, ..., r+kept-1 (modulo n), at first all n. A round halves it: with
// half = ceil(kept/2) it sends the blocks from r+half on to rank r+half, whose own run begins there, and adds what
// arrives from rank r-half to the front of its own. Four ranks (blocks sent -> to, by round):
//
//     round       0             1
//     rank 0     2,3 -> 2      1 -> 1      and ends with block 0
//     rank 1     3,0 -> 3      2 -> 2
//     rank 2     0,1 -> 0      3 -> 3
//     rank 3     1,2 -> 1      0 -> 0
//
// A run is one message, two where it wraps around the last block; a message a block with more than one lane.
#include "collectives/plan/recursive_halving.h"

#include "collectives/plan/planner.h"

namespace gradrail {

void halve(Builder& builder, const Group& group, const Blocks& blocks, int lane) {
  const int n = group.size();
  const int me = group.me;
  for (int kept = n; kept > 1;) {
    const int half = (kept + 1) / 2;
    const int given = kept - half;
    blocks.for_each_run(wrap(me + half, n), given, lane,
                        [&](Window run) { builder.send(group, wrap(me + half, n), run); });
    blocks.for_each_run(me, given, lane, [&](Window run) { builder.recv_reduce(group, wrap(me - half, n), run); });
    // Where n is odd, the first round adds nothing to the last block that stays. It leaves next, in one run with
    // reduced ones if it is not alone: it joins them in scratch while this round's messages are under way.
    if (kept == n && given < half && half / 2 > 1 && blocks.contiguous())
      builder.settle(blocks.part(wrap(me + half - 1, n), lane));
    kept = half;
  }
}

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

void emit(Builder& builder, const Group& group, Window window) {
  const Blocks blocks(window, group.size(), builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    halve(builder, group, blocks, lane);
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_recursive_halving_reduce_scatter{
    "recursive_halving",
    Collective::reduce_scatter,
    "half of what is left to a rank half as far; least bytes and rounds",
    supports,
    grain,
    emit,
    chunks_sent};

}  // namespace gradrail

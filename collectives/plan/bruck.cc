// Bruck's algorithms: all-gather and all-to-all in ceil(log2 n) rounds, the least possible, for any number of ranks.
// Bruck, Ho, Kipnis, Upfal and Weathersby, "Efficient algorithms for all-to-all communications in multiport
// message-passing systems", IEEE TPDS 8(11), 1997: "index" is all-to-all, "concatenation" all-gather.
//
// All-gather: every rank sends (n-1)/n of the data, the least possible; rank r holds a run of blocks r, r+1, ... that
// doubles each round, by fetching from rank r+held what it holds. Blocks land where they belong, so there is no
// rotation at the end. Best for small and medium messages. Four ranks (blocks sent -> to, by round):
//
//     round       0          1
//     rank 0     0 -> 3     0,1 -> 2
//     rank 1     1 -> 0     1,2 -> 3
//     rank 2     2 -> 1     2,3 -> 0
//     rank 3     3 -> 2     3,0 -> 1
//
// All-to-all: a block that has to travel a distance d (from rank r to rank r+d) takes a hop of 2^k in round k for each
// set bit k of d. A rank sends at most n/2 blocks a round, packed into one message, so up to log2(n)/2 of the data in
// all: best for small messages only. Needs a scratch plane a round. Four ranks (distance of the blocks sent -> to):
//
//     round       0             1
//     rank r     3,1 -> r+1    3,2 -> r+2     3 was received in round 0, from r-1
//
// All-to-all runs on lane 0: a lane of its own has no neighbouring blocks to pack.
#include <algorithm>
#include <vector>

#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t blocks_and_lanes(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

std::uint32_t blocks_only(const Shape&, int n) { return static_cast<std::uint32_t>(n); }

void emit_all_gather(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const int me = group.me;
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int held = 1; held < n; held *= 2) {
      const int more = std::min(held, n - held);
      // From now on the own block travels with others, from the output, where it belongs anyway.
      if (held > 1) builder.settle(blocks.part(me, lane));
      blocks.for_each_run(me, more, lane, [&](Window run) { builder.send(group, wrap(me - held, n), run); });
      blocks.for_each_run(wrap(me + held, n), more, lane,
                          [&](Window run) { builder.recv(group, wrap(me + held, n), run); });
    }
  }
}

std::uint64_t all_gather_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * (chunks / static_cast<std::uint32_t>(n));
}

// Chunks that one copy can take from their place to another.
struct Run {
  Place from;
  Place to;
  std::uint32_t chunks;
};

bool follows(Place first, std::uint32_t chunks, Place next) {
  return first.store == next.store && first.plane == next.plane && first.chunk + chunks == next.chunk;
}

void append(std::vector<Run>& runs, Place from, Place to, std::uint32_t chunks) {
  if (!runs.empty() && follows(runs.back().from, runs.back().chunks, from) &&
      follows(runs.back().to, runs.back().chunks, to))
    runs.back().chunks += chunks;
  else
    runs.push_back({from, to, chunks});
}

void emit_all_to_all(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const int me = group.me;
  if (n == 1) return;
  builder.lane(0);
  const Blocks blocks(window, n, 1);
  const std::uint32_t size = window.count / static_cast<std::uint32_t>(n);
  // Where the block is that still has, or had, to travel distance d in all.
  std::vector<Place> held(static_cast<std::size_t>(n));
  for (int d = 1; d < n; ++d) held[static_cast<std::size_t>(d)] = builder.current(blocks.part(wrap(me + d, n), 0));
  std::vector<Run> runs;
  std::uint8_t plane = 0;
  for (int hop = 1; hop < n; hop *= 2, ++plane) {
    // The first half of the round's plane is packed, the second half is received into. Longest distance first: then
    // blocks that have arrived lie in the order of the ranks they came from.
    const auto slot = [&](int i) { return builder.scratch(plane, blocks.part(i, 0)); };
    const int middle = n / 2;
    runs.clear();
    int sent = 0;
    for (int d = n - 1; d >= hop; --d)
      if (d & hop) append(runs, held[static_cast<std::size_t>(d)], slot(sent++), size);
    const std::uint32_t chunks = static_cast<std::uint32_t>(sent) * size;
    const Place leaves = runs.size() == 1 ? runs.front().from : slot(0);
    if (runs.size() > 1)
      for (const Run& run : runs) builder.copy(run.from, run.to, run.chunks);
    builder.send_from(group, wrap(me + hop, n), leaves, chunks);
    builder.recv_to(group, wrap(me - hop, n), slot(middle), chunks);
    int received = 0;
    for (int d = n - 1; d >= hop; --d)
      if (d & hop) held[static_cast<std::size_t>(d)] = slot(middle + received++);
  }
  runs.clear();
  for (int d = n - 1; d > 0; --d) {
    const Window from_peer = blocks.part(wrap(me - d, n), 0);
    append(runs, held[static_cast<std::size_t>(d)], builder.result(from_peer), size);
    builder.moved(from_peer, builder.result(from_peer));
  }
  for (const Run& run : runs) builder.copy(run.from, run.to, run.chunks);
}

// Of the distances 1..n-1, those with bit k set travel in round k.
std::uint64_t all_to_all_sent(const Shape&, int n, int, std::uint32_t chunks) {
  std::uint64_t hops = 0;
  for (std::uint64_t hop = 1, all = static_cast<std::uint64_t>(n); hop < all; hop *= 2)
    hops += all / (2 * hop) * hop + (all % (2 * hop) > hop ? all % (2 * hop) - hop : 0);
  return hops * (chunks / static_cast<std::uint32_t>(n));
}

}  // namespace

extern const Planner k_bruck_all_gather{
    "bruck",        Collective::all_gather, "what a rank holds doubles each round; least bytes and rounds",
    supports,       blocks_and_lanes,       emit_all_gather,
    all_gather_sent};

extern const Planner k_bruck_all_to_all{"bruck",
                                        Collective::all_to_all,
                                        "blocks hop by powers of two, packed; least rounds, log2(n)/2 times the bytes",
                                        supports,
                                        blocks_only,
                                        emit_all_to_all,
                                        all_to_all_sent};

}  // namespace gradrail

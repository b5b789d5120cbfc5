// Direct exchange: every rank talks to every other at once. Reduce-scatter, all-gather and all-to-all; and send_recv,
// where the only other ranks are the neighbours.
//
// One round of n-1 messages; every rank sends (n-1)/n of the data (send_recv: all of it), the least possible. Best
// where all pairs have a path of their own (a host's memory, a non-blocking switch) and n is small; it floods a port
// otherwise. Chan, Heimlich, Purkayastha and van de Geijn, "Collective communication: theory, practice, and
// experience", CCPE 19(13), 2007; for all-to-all the "linear" or "spread-out" algorithm of MPICH and Open MPI.
//
// Peers are visited at growing distance, so that no rank is everyone's first. Four ranks, receivers of rank r's blocks
// in the order posted:
//
//     rank 0     1  2  3        reduce-scatter: block j goes to rank j, which adds n-1 arrivals to its own, one
//     rank 1     2  3  0        after the other (r-1, r-2, ...): one pass over all of them where they can be read in
//     place rank 2     3  0  1        all-gather: block r goes to all rank 3     0  1  2        all-to-all: block j of
//     rank r becomes block r of rank j
//
// In place, all-to-all and send_recv receive into scratch and copy once what was there has been sent: any order of
// plain receives would overwrite data that a peer still waits for.
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t blocks_and_lanes(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes); }

std::uint32_t lanes_only(const Shape& shape, int) { return static_cast<std::uint32_t>(shape.lanes); }

void emit_reduce_scatter(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int distance = 1; distance < n; ++distance) {
      const int peer = wrap(group.me + distance, n);
      builder.send(group, peer, blocks.part(peer, lane));
    }
    for (int distance = 1; distance < n; ++distance)
      builder.recv_reduce(group, wrap(group.me - distance, n), blocks.part(group.me, lane));
  }
}

void emit_all_gather(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int distance = 1; distance < n; ++distance) {
      const int peer = wrap(group.me - distance, n);
      builder.recv(group, peer, blocks.part(peer, lane));
    }
    for (int distance = 1; distance < n; ++distance)
      builder.send(group, wrap(group.me + distance, n), blocks.part(group.me, lane));
  }
}

void emit_all_to_all(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  const bool in_place = builder.shape().in_place;
  const Blocks blocks(window, n, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int distance = 1; distance < n; ++distance) {
      const int peer = wrap(group.me - distance, n);
      const Window part = blocks.part(peer, lane);
      builder.recv_to(group, peer, in_place ? builder.scratch(0, part) : builder.result(part), part.count);
    }
    for (int distance = 1; distance < n; ++distance) {
      const int peer = wrap(group.me + distance, n);
      const Window part = blocks.part(peer, lane);
      builder.send_from(group, peer, Place{Store::in, 0, part.first}, part.count);
    }
    // The other ranks' blocks, around: the two runs beside the own block.
    blocks.for_each_run(wrap(group.me + 1, n), n - 1, lane, [&](Window run) {
      if (in_place) builder.copy(builder.scratch(0, run), builder.result(run), run.count);
      builder.moved(run, builder.result(run));
    });
  }
}

void emit_send_recv(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  if (n == 1) return;
  const bool in_place = builder.shape().in_place;
  const int lanes = builder.shape().lanes;
  for (int lane = 0; lane < lanes; ++lane) {
    builder.lane(lane);
    const Window part = window.part(static_cast<std::uint32_t>(lane), static_cast<std::uint32_t>(lanes));
    builder.recv_to(group, wrap(group.me - 1, n), in_place ? builder.scratch(0, part) : builder.result(part),
                    part.count);
    builder.send_from(group, wrap(group.me + 1, n), builder.current(part), part.count);
    if (in_place) builder.copy(builder.scratch(0, part), builder.result(part), part.count);
    builder.moved(part, builder.result(part));
  }
}

std::uint64_t others_blocks(const Shape&, int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * (chunks / static_cast<std::uint32_t>(n));
}

std::uint64_t everything(const Shape&, int n, int, std::uint32_t chunks) { return n == 1 ? 0 : chunks; }

}  // namespace

extern const Planner k_direct_reduce_scatter{
    "direct",     Collective::reduce_scatter, "each block straight to its owner; least bytes, one round, n-1 peers",
    supports,     blocks_and_lanes,           emit_reduce_scatter,
    others_blocks};

extern const Planner k_direct_all_gather{
    "direct",     Collective::all_gather, "each block straight to everyone; least bytes, one round, n-1 peers",
    supports,     blocks_and_lanes,       emit_all_gather,
    others_blocks};

extern const Planner k_direct_all_to_all{
    "direct",     Collective::all_to_all, "all messages posted at once; least bytes, one round, n-1 peers",
    supports,     blocks_and_lanes,       emit_all_to_all,
    others_blocks};

extern const Planner k_direct_send_recv{
    "direct",  Collective::send_recv, "to the next rank, from the previous one", supports, lanes_only, emit_send_recv,
    everything};

}  // namespace gradrail

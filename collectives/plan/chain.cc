// Pipelined chain: broadcast and reduce along one path through all ranks.
//
// n-2+pieces rounds of one piece; every rank but the last (reduce: but the root) sends the data once, the least
// possible for a pipeline. Best for large messages cut into many pieces: the time tends to one pass over the data,
// whatever n. Chan, Heimlich, Purkayastha and van de Geijn, "Collective communication: theory, practice, and
// experience", CCPE 19(13), 2007; "pipeline" in Open MPI's tuned collectives.
//
// Members are numbered from the root. Four ranks, pieces a, b, c (sent, by round):
//
//     broadcast                      reduce (towards the root)
//     round    0  1  2  3  4         round    0  1  2  3  4
//     0 -> 1   a  b  c               3 -> 2   a  b  c
//     1 -> 2      a  b  c            2 -> 1      a  b  c
//     2 -> 3         a  b  c         1 -> 0         a  b  c
#include "collectives/plan/binomial.h"
#include "collectives/plan/blocks.h"
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int) { return static_cast<std::uint32_t>(shape.lanes * shape.pieces); }

void emit_broadcast(Builder& builder, const Group& members, Window window) {
  const Group group = rooted(members, builder.shape().root);
  const int me = group.me;
  const int last = group.size() - 1;
  const int pieces = builder.shape().pieces;
  const Blocks whole(window, 1, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    // The receive of the next piece is posted before this one is passed on.
    for (int piece = 0; piece <= pieces; ++piece) {
      if (me > 0 && piece < pieces) builder.recv(group, me - 1, whole.part(0, lane, piece, pieces));
      if (me < last && piece > 0) builder.send(group, me + 1, whole.part(0, lane, piece - 1, pieces));
    }
  }
}

void emit_reduce(Builder& builder, const Group& members, Window window) {
  const Group group = rooted(members, builder.shape().root);
  const int me = group.me;
  const int last = group.size() - 1;
  const int pieces = builder.shape().pieces;
  const Blocks whole(window, 1, builder.shape().lanes);
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    builder.lane(lane);
    for (int piece = 0; piece <= pieces; ++piece) {
      if (me < last && piece < pieces) builder.recv_reduce(group, me + 1, whole.part(0, lane, piece, pieces));
      if (me > 0 && piece > 0) builder.send(group, me - 1, whole.part(0, lane, piece - 1, pieces));
    }
  }
}

std::uint64_t broadcast_sent(const Shape& shape, int n, int member, std::uint32_t chunks) {
  return wrap(member - shape.root, n) == n - 1 ? 0 : chunks;
}

std::uint64_t reduce_sent(const Shape& shape, int, int member, std::uint32_t chunks) {
  return member == shape.root ? 0 : chunks;
}

}  // namespace

extern const Planner k_chain_broadcast{"chain",
                                       Collective::broadcast,
                                       "pieces down a chain of all ranks; for large messages in many pieces",
                                       supports,
                                       grain,
                                       emit_broadcast,
                                       broadcast_sent};

extern const Planner k_chain_reduce{"chain",
                                    Collective::reduce,
                                    "pieces up a chain of all ranks; for large messages in many pieces",
                                    supports,
                                    grain,
                                    emit_reduce,
                                    reduce_sent};

}  // namespace gradrail

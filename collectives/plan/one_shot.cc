// One-shot allreduce: everyone sends its whole input to everyone, and everyone reduces all of them.
//
// One round; every rank sends n-1 times the data, in n-1 messages a piece. Least latency where messages are small and
// peers few. All ranks combine in the order of ranks, ((x0 + x1) + x2) + x3, so that the results are bit-identical.
//
// The data is divided over `lanes` lanes and `pieces` pieces. Four ranks (x: own, from the input; ->: to all others):
//
//     rank 0     x0->   x0 + x1    + x2    + x3
//     rank 1     x1->   x1 + x0    + x2    + x3
//     rank 2     x2->   x0, + x1   + x2    + x3       rank 2 and beyond begin with a received x0
//     rank 3     x3->   x0, + x1   + x2    + x3
//
// In place, the result may replace the input only when the input has been sent. The accumulator is therefore scratch
// until the last operand. This cannot block for ever even if no message is buffered: the inputs of all ranks but the
// last are received without waiting for any send, after which those sends have ended and all ranks await the last
// input. Two ranks take scratch for that one too, and copy: neither waits for its send before it receives.
#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int) { return static_cast<std::uint32_t>(shape.lanes * shape.pieces); }

// Accumulates all members' inputs of one piece, in the order of members.
void accumulate(Builder& builder, const Group& group, Window piece) {
  const int n = group.size();
  const Place own = builder.current(piece);
  const bool in_place = builder.settled(piece);
  const auto goal = [&](int member) {  // where the accumulator is once it has that member's input
    return in_place && (member < n - 1 || n == 2) ? builder.scratch(0, piece) : builder.result(piece);
  };
  Place sum = own;
  int member = 1;
  if (group.me == 0) {
  } else if (group.me == 1) {
    sum = goal(1);
    builder.recv_reduce_to(group, 0, own, sum, piece.count);
    member = 2;
  } else {
    sum = goal(0);
    builder.recv_to(group, 0, sum, piece.count);
  }
  for (; member < n; ++member) {
    const Place next = goal(member);
    if (member != group.me) {
      builder.recv_reduce_to(group, member, sum, next, piece.count);
    } else {
      builder.reduce(next == sum ? own : sum, next, piece.count);
    }
    sum = next;
  }
  builder.moved(piece, sum);
}

void emit(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  if (n == 1) return;
  const auto lanes = static_cast<std::uint32_t>(builder.shape().lanes);
  const auto pieces = static_cast<std::uint32_t>(builder.shape().pieces);
  builder.expect(2u * static_cast<std::size_t>(n) * lanes * pieces);
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    builder.lane(static_cast<int>(lane));
    const Window part = window.part(lane, lanes);
    for (std::uint32_t piece = 0; piece < pieces; ++piece)
      for (int distance = 1; distance < n; ++distance)
        builder.send(group, (group.me + distance) % n, part.part(piece, pieces));
    for (std::uint32_t piece = 0; piece < pieces; ++piece) accumulate(builder, group, part.part(piece, pieces));
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * chunks;
}

}  // namespace

extern const Planner k_one_shot_allreduce{"one_shot",
                                          Collective::allreduce,
                                          "everyone sends everything to everyone; one round, most bytes",
                                          supports,
                                          grain,
                                          emit,
                                          chunks_sent};

}  // namespace gradrail

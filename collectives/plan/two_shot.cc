// Two-shot allreduce: direct reduce-scatter, then direct all-gather.
//
// Two rounds; every rank sends 2(n-1)/n of the data, the least possible, in 2(n-1) messages a piece. Member i reduces
// block i from all others and sends the result to all others: both rounds are an exchange between all pairs, so it
// wants links that all pairs can use at once, as shared memory is. In shared memory the n-1 receptions and n-1 sends of
// a piece become one pass over the peers' memory, which has the least memory traffic that an allreduce can have.
//
// The data is n blocks; each block is divided over `lanes` lanes and `pieces` pieces. At distance d = 1, 2, .. rank r
// receives from r+d and sends to r-d, so that no rank is met by all others at once. Four ranks (block from or to rank):
//
//                reduce-scatter: sends    reduces               all-gather: sends      receives
//     rank 0     3 to 3, 2 to 2, 1 to 1   0 from 1, 2, 3        0 to 3, 2, 1           1, 2, 3
//     rank 1     0 to 0, 3 to 3, 2 to 2   1 from 2, 3, 0        1 to 0, 3, 2           2, 3, 0
//     rank 2     1 to 1, 0 to 0, 3 to 3   2 from 3, 0, 1        2 to 1, 0, 3           3, 0, 1
//     rank 3     2 to 2, 1 to 1, 0 to 0   3 from 0, 1, 2        3 to 2, 1, 0           0, 1, 2
#include <numeric>

#include "collectives/plan/planner.h"
#include "collectives/plan/two_phase.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes * shape.pieces); }

// One lane's share of the work, piece by piece.
class Lane {
 public:
  Lane(Builder& builder, const Group& group, Window window, std::uint32_t lane)
      : builder_(builder), group_(group), window_(window), lane_(lane) {
    builder.lane(static_cast<int>(lane));
  }

  [[nodiscard]] std::uint32_t pieces() const { return static_cast<std::uint32_t>(builder_.shape().pieces); }
  // My version of every other member's block, to that member.
  void scatter(std::uint32_t piece) {
    for (int d = 1; d < group_.size(); ++d) builder_.send(group_, below(d), part(below(d), piece));
  }
  // My block, reduced from all.
  void reduce(std::uint32_t piece) {
    for (int d = 1; d < group_.size(); ++d) builder_.recv_reduce(group_, above(d), part(group_.me, piece));
  }
  // My block, to all.
  void spread(std::uint32_t piece) {
    for (int d = 1; d < group_.size(); ++d) builder_.send(group_, below(d), part(group_.me, piece));
  }
  // Every other member's block.
  void gather(std::uint32_t piece) {
    for (int d = 1; d < group_.size(); ++d) builder_.recv(group_, above(d), part(above(d), piece));
  }

 private:
  [[nodiscard]] int above(int distance) const { return (group_.me + distance) % group_.size(); }
  [[nodiscard]] int below(int distance) const { return (group_.me + group_.size() - distance) % group_.size(); }
  [[nodiscard]] Window part(int block, std::uint32_t piece) const {
    return window_.part(static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(group_.size()))
        .part(lane_, static_cast<std::uint32_t>(builder_.shape().lanes))
        .part(piece, pieces());
  }

  Builder& builder_;
  const Group& group_;
  Window window_;
  std::uint32_t lane_;
};

void emit(Builder& builder, const Group& group, Window window) {
  if (group.size() == 1) return;
  builder.expect(4u * static_cast<std::size_t>((group.size() - 1) * builder.shape().lanes * builder.shape().pieces));
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    Lane steps(builder, group, window, static_cast<std::uint32_t>(lane));
    const std::uint32_t pieces = steps.pieces();
    // Others may still be reading what a received result overwrites if this is in place, and the lane would stand still
    // until they have; so results are received one piece later, and sent in that order too.
    steps.scatter(0);
    for (std::uint32_t piece = 0; piece < pieces; ++piece) {
      if (piece + 1 < pieces) steps.scatter(piece + 1);
      steps.reduce(piece);
      steps.spread(piece);
      if (piece > 0) steps.gather(piece - 1);
    }
    steps.gather(pieces - 1);
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return 2ull * static_cast<std::uint64_t>(n - 1) * chunks / static_cast<std::uint64_t>(n);
}

std::uint32_t phase_grain(const Shape& shape, int n, std::uint32_t share) {
  return static_cast<std::uint32_t>(n) * std::lcm(static_cast<std::uint32_t>(shape.pieces), share);
}

std::vector<Window> shares(int n, int member, Window window) {
  return {window.part(static_cast<std::uint32_t>(member), static_cast<std::uint32_t>(n))};
}

void reduce_scatter(Builder& builder, const Group& group, Window window) {
  Lane steps(builder, group, window, 0);
  for (std::uint32_t piece = 0; piece < steps.pieces(); ++piece) steps.scatter(piece);
  for (std::uint32_t piece = 0; piece < steps.pieces(); ++piece) steps.reduce(piece);
}

void all_gather(Builder& builder, const Group& group, Window window) {
  Lane steps(builder, group, window, 0);
  for (std::uint32_t piece = 0; piece < steps.pieces(); ++piece) steps.spread(piece);
  for (std::uint32_t piece = 0; piece < steps.pieces(); ++piece) steps.gather(piece);
}

std::uint64_t phase_sent(int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * chunks / static_cast<std::uint64_t>(n);
}

}  // namespace

extern const Planner k_two_shot_allreduce{"two_shot",
                                          Collective::allreduce,
                                          "direct reduce-scatter and direct all-gather; two rounds, least bytes",
                                          supports,
                                          grain,
                                          emit,
                                          chunks_sent,
                                          true};

extern const TwoPhase k_two_shot_phases{"two_shot", phase_grain, shares, reduce_scatter, all_gather, phase_sent};

}  // namespace gradrail

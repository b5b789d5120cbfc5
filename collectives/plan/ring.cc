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
#include <numeric>

#include "collectives/plan/planner.h"
#include "collectives/plan/two_phase.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int n) { return static_cast<std::uint32_t>(n * shape.lanes * shape.pieces); }

// One lane's steps.
class Lane {
 public:
  Lane(Builder& builder, const Group& group, Window window, int lane)
      : builder_(builder),
        group_(group),
        window_(window),
        lane_(static_cast<std::uint32_t>(lane)),
        next_((group.me + 1) % group.size()),
        previous_((group.me + group.size() - 1) % group.size()) {
    builder.lane(lane);
  }

  // Leaves block me+1 reduced here; with `pass_on`, each piece of it is sent on as soon as it is.
  void reduce_scatter(bool pass_on) {
    send_block(group_.me);
    for (int round = 1; round < group_.size(); ++round)
      for (std::uint32_t piece = 0; piece < pieces(); ++piece) {
        const Window chunk = part(group_.me - round, piece);
        builder_.recv_reduce(group_, previous_, chunk);
        if (pass_on || round < group_.size() - 1) builder_.send(group_, next_, chunk);
      }
  }
  void send_block(int block) {
    for (std::uint32_t piece = 0; piece < pieces(); ++piece) builder_.send(group_, next_, part(block, piece));
  }
  // After block me+1 has been sent.
  void all_gather() {
    for (int round = 0; round < group_.size() - 1; ++round)
      for (std::uint32_t piece = 0; piece < pieces(); ++piece) {
        const Window chunk = part(group_.me - round, piece);
        builder_.recv(group_, previous_, chunk);
        if (round < group_.size() - 2) builder_.send(group_, next_, chunk);
      }
  }

 private:
  [[nodiscard]] std::uint32_t pieces() const { return static_cast<std::uint32_t>(builder_.shape().pieces); }
  [[nodiscard]] Window part(int block, std::uint32_t piece) const {
    const int n = group_.size();
    return window_.part(static_cast<std::uint32_t>((block + n) % n), static_cast<std::uint32_t>(n))
        .part(lane_, static_cast<std::uint32_t>(builder_.shape().lanes))
        .part(piece, pieces());
  }

  Builder& builder_;
  const Group& group_;
  Window window_;
  std::uint32_t lane_;
  int next_;
  int previous_;
};

void emit(Builder& builder, const Group& group, Window window) {
  if (group.size() == 1) return;
  builder.expect(4u * static_cast<std::size_t>((group.size() - 1) * builder.shape().lanes * builder.shape().pieces));
  for (int lane = 0; lane < builder.shape().lanes; ++lane) {
    Lane steps(builder, group, window, lane);
    steps.reduce_scatter(true);
    steps.all_gather();
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int, std::uint32_t chunks) {
  return 2ull * static_cast<std::uint64_t>(n - 1) * chunks / static_cast<std::uint64_t>(n);
}

std::uint32_t phase_grain(const Shape& shape, int n, std::uint32_t share) {
  return static_cast<std::uint32_t>(n) * std::lcm(static_cast<std::uint32_t>(shape.pieces), share);
}

std::vector<Window> shares(int n, int member, Window window) {
  return {window.part(static_cast<std::uint32_t>((member + 1) % n), static_cast<std::uint32_t>(n))};
}

void reduce_scatter(Builder& builder, const Group& group, Window window) {
  Lane(builder, group, window, 0).reduce_scatter(false);
}

void all_gather(Builder& builder, const Group& group, Window window) {
  Lane steps(builder, group, window, 0);
  steps.send_block(group.me + 1);
  steps.all_gather();
}

std::uint64_t phase_sent(int n, int, std::uint32_t chunks) {
  return static_cast<std::uint64_t>(n - 1) * chunks / static_cast<std::uint64_t>(n);
}

}  // namespace

extern const Planner k_ring_allreduce{"ring",
                                      Collective::allreduce,
                                      "reduce-scatter and all-gather around a ring; least bytes, most rounds",
                                      supports,
                                      grain,
                                      emit,
                                      chunks_sent};

extern const TwoPhase k_ring_phases{"ring", phase_grain, shares, reduce_scatter, all_gather, phase_sent};

}  // namespace gradrail

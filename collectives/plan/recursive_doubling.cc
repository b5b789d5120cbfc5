// Recursive doubling allreduce: in round k, ranks at distance 2^k exchange all they have and both reduce it.
//
// log2(n) rounds; every rank sends log2(n) times the data. Least latency where the data is small and n is more than a
// few. Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH", IJHPCA 19(1),
// 2005, section 4.
//
// With n no power of two, let p be the largest power of two below it and r = n - p: the first 2r ranks fold pairwise,
// the even one giving its data to the odd one at first and receiving the result at last. That takes log2(p) + 2 rounds.
// A folded rank sends the data once, the rank that stands for it 1 + log2(p) times, the others log2(p) times.
//
// The data is divided over `lanes` lanes and `pieces` pieces; each piece goes its own way through the rounds, so one
// piece is reduced while another is moving. Four ranks, and five (r = 1; o: the fold):
//
//     round      0        1                            o        0        1        o
//     rank 0     <-> 1    <-> 2              rank 0    -> 1                       <- 1
//     rank 1     <-> 0    <-> 3              rank 1    <- 0     <-> 2    <-> 3    -> 0
//     rank 2     <-> 3    <-> 0              rank 2             <-> 1    <-> 4
//     rank 3     <-> 2    <-> 1              rank 3             <-> 4    <-> 1
//                                            rank 4             <-> 3    <-> 2
//
// What a round sends must stay as it is until it has been read, so a round writes elsewhere: the result and scratch
// take turns, and the last round writes the result. Two ranks that exchange then never wait for each other's reception.
#include <bit>

#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

Result<void> supports(const Shape&) { return {}; }

std::uint32_t grain(const Shape& shape, int) { return static_cast<std::uint32_t>(shape.lanes * shape.pieces); }

// Where the window's version lives after each round; round -1 is the fold.
class PingPong {
 public:
  PingPong(const Builder& builder, Window window, int rounds, bool folded)
      : builder_(builder), window_(window), rounds_(rounds), from_result_(builder.settled(window)), folded_(folded) {}

  [[nodiscard]] Place after(int round) const {
    const bool even_from_last = (rounds_ - 1 - round) % 2 == 0;
    if (from_result_) {
      // The version we start from is in the result, and a fold, which sends nothing, may reduce there. Round 0 may not.
      if (round < 0) return builder_.result(window_);
      if (round == 0 && even_from_last) return builder_.scratch(rounds_ == 1 ? 0 : 1, window_);
    }
    return even_from_last ? builder_.result(window_) : builder_.scratch(0, window_);
  }
  [[nodiscard]] Place before(int round) const {
    return round == 0 && !folded_ ? builder_.current(window_) : after(round - 1);
  }

 private:
  const Builder& builder_;
  Window window_;
  int rounds_;
  bool from_result_;
  bool folded_;
};

void emit(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  if (n == 1) return;
  const auto power = static_cast<int>(std::bit_floor(static_cast<unsigned>(n)));
  const int rounds = std::countr_zero(static_cast<unsigned>(power));
  const int pairs = n - power;
  const bool in_pair = group.me < 2 * pairs;
  const bool gives = in_pair && group.me % 2 == 0;
  // Participants 0..power-1: the odd ranks of the pairs, then the ranks without a pair.
  const int participant = in_pair ? group.me / 2 : group.me - pairs;
  const auto member = [&](int p) { return p < pairs ? 2 * p + 1 : p + pairs; };

  const auto lanes = static_cast<std::uint32_t>(builder.shape().lanes);
  const auto pieces = static_cast<std::uint32_t>(builder.shape().pieces);
  for (std::uint32_t lane = 0; lane < lanes; ++lane) {
    builder.lane(static_cast<int>(lane));
    const auto part = [&](std::uint32_t piece) { return window.part(lane, lanes).part(piece, pieces); };
    if (gives) {
      for (std::uint32_t piece = 0; piece < pieces; ++piece) builder.send(group, group.me + 1, part(piece));
      for (std::uint32_t piece = 0; piece < pieces; ++piece) builder.recv(group, group.me + 1, part(piece));
      continue;
    }
    std::vector<PingPong> places;
    for (std::uint32_t piece = 0; piece < pieces; ++piece) places.emplace_back(builder, part(piece), rounds, in_pair);
    if (in_pair)
      for (std::uint32_t piece = 0; piece < pieces; ++piece)
        builder.recv_reduce_to(group, group.me - 1, builder.current(part(piece)), places[piece].after(-1),
                               part(piece).count);
    for (int round = 0; round < rounds; ++round) {
      const int partner = member(participant ^ (1 << round));
      for (std::uint32_t piece = 0; piece < pieces; ++piece) {
        const Place from = places[piece].before(round);
        builder.send_from(group, partner, from, part(piece).count);
        builder.recv_reduce_to(group, partner, from, places[piece].after(round), part(piece).count);
      }
    }
    for (std::uint32_t piece = 0; piece < pieces; ++piece) {
      builder.moved(part(piece), places[piece].after(rounds - 1));
      if (in_pair) builder.send(group, group.me - 1, part(piece));
    }
  }
}

std::uint64_t chunks_sent(const Shape&, int n, int member, std::uint32_t chunks) {
  const auto power = static_cast<int>(std::bit_floor(static_cast<unsigned>(n)));
  const int rounds = std::countr_zero(static_cast<unsigned>(power));
  if (member >= 2 * (n - power)) return static_cast<std::uint64_t>(rounds) * chunks;
  return static_cast<std::uint64_t>(member % 2 == 0 ? 1 : rounds + 1) * chunks;
}

}  // namespace

extern const Planner k_recursive_doubling_allreduce{"recursive_doubling",
                                                    Collective::allreduce,
                                                    "pairs at doubling distances exchange everything; fewest rounds",
                                                    supports,
                                                    grain,
                                                    emit,
                                                    chunks_sent};

}  // namespace gradrail

// Halving-doubling allreduce (Rabenseifner): reduce-scatter by recursive halving, all-gather by recursive doubling.
//
// 2 log2(n) rounds; every rank sends 2(n-1)/n of the data, the least possible. Best for medium and large messages where
// rounds are dear. Rabenseifner, "Optimization of collective reduction operations", ICCS 2004, section 3. Nearest
// ranks meet first, when most data moves.
//
// With n no power of two, let p be the largest power of two below it and r = n - p: the first 2r ranks fold pairwise.
// So that no rank idles or carries double, the data is cut in halves A and B: A is folded into the odd ranks of the
// pairs, B into the even ones, and each half then runs among its own p ranks. That takes 2 log2(p) + 2 rounds; ranks of
// a pair send 1 + (p-1)/p of the data, the others 2(p-1)/p: nobody ever sends twice the data, or more.
//
// The data is divided over `lanes` lanes and `pieces` pieces; each piece goes its own way through the rounds. Four
// ranks (quarters sent -> to whom):
//
//     round      0          1       |  2         3
//     rank 0     2,3 -> 1   1 -> 2  |  0 -> 2    0,1 -> 1
//     rank 1     0,1 -> 0   3 -> 3  |  2 -> 3    2,3 -> 0
//     rank 2     2,3 -> 3   0 -> 0  |  1 -> 0    0,1 -> 3
//     rank 3     0,1 -> 2   2 -> 1  |  3 -> 1    2,3 -> 2
#include <bit>

#include "collectives/plan/planner.h"
#include "collectives/plan/two_phase.h"

namespace gradrail {

namespace {

int power_below(int n) { return static_cast<int>(std::bit_floor(static_cast<unsigned>(n))); }

Result<void> supports(const Shape&) { return {}; }

// Blocks of the whole: p, for each half where there are two.
std::uint32_t blocks(int n) { return static_cast<std::uint32_t>(power_below(n) == n ? n : 2 * power_below(n)); }

std::uint32_t grain(const Shape& shape, int n) {
  return blocks(n) * static_cast<std::uint32_t>(shape.lanes * shape.pieces);
}

// What a member does for a part of the data that is folded into the odd (or even) ranks of the pairs.
class Part {
 public:
  Part(int n, int me, bool into_odd, Window window)
      : window_(window),
        power_(power_below(n)),
        pairs_(n - power_),
        into_odd_(into_odd),
        in_pair_(me < 2 * pairs_),
        gives_(in_pair_ && (me % 2 != 0) != into_odd),
        buddy_(me ^ 1),
        participant_(in_pair_ ? me / 2 : me - pairs_) {}

  [[nodiscard]] int rounds() const { return std::countr_zero(static_cast<unsigned>(power_)); }
  // What this member has reduced after so many rounds of halving.
  [[nodiscard]] Window kept(int rounds) const {
    Window kept = window_;
    for (int round = 0; round < rounds; ++round) kept = kept.part(bit(round), 2);
    return kept;
  }
  [[nodiscard]] bool gives() const { return gives_; }

  void fold(Builder& builder, const Group& group) const {
    if (gives_)
      builder.send(group, buddy_, window_);
    else if (in_pair_)
      builder.recv_reduce(group, buddy_, window_);
  }
  void halve(Builder& builder, const Group& group, int round) const {
    if (gives_) return;
    const Window now = kept(round);
    builder.send(group, partner(round), now.part(1 - bit(round), 2));
    builder.recv_reduce(group, partner(round), now.part(bit(round), 2));
  }
  // Undoes the same round of halving.
  void double_up(Builder& builder, const Group& group, int round) const {
    if (gives_) return;
    const Window then = kept(round);
    builder.send(group, partner(round), then.part(bit(round), 2));
    builder.recv(group, partner(round), then.part(1 - bit(round), 2));
  }
  void unfold(Builder& builder, const Group& group) const {
    if (gives_)
      builder.recv(group, buddy_, window_);
    else if (in_pair_)
      builder.send(group, buddy_, window_);
  }

 private:
  [[nodiscard]] std::uint32_t bit(int round) const { return static_cast<std::uint32_t>(participant_ >> round) & 1u; }
  [[nodiscard]] int partner(int round) const {
    const int other = participant_ ^ (1 << round);
    return other < pairs_ ? 2 * other + (into_odd_ ? 1 : 0) : other + pairs_;
  }

  Window window_;
  int power_;
  int pairs_;
  bool into_odd_;
  bool in_pair_;
  bool gives_;
  int buddy_;
  int participant_;
};

// The parts of one lane's window.
std::vector<Part> parts_of(int n, int me, Window window, std::uint32_t pieces) {
  std::vector<Part> parts;
  const bool halves = power_below(n) != n;
  for (std::uint32_t i = 0; i < pieces; ++i) {
    const Window piece = window.part(i, pieces);
    parts.emplace_back(n, me, true, halves ? piece.part(0, 2) : piece);
    if (halves) parts.emplace_back(n, me, false, piece.part(1, 2));
  }
  return parts;
}

void halve_all(Builder& builder, const Group& group, const std::vector<Part>& parts) {
  for (const Part& part : parts) part.fold(builder, group);
  for (int round = 0; round < parts[0].rounds(); ++round)
    for (const Part& part : parts) part.halve(builder, group, round);
}

void double_all(Builder& builder, const Group& group, const std::vector<Part>& parts) {
  for (int round = parts[0].rounds() - 1; round >= 0; --round)
    for (const Part& part : parts) part.double_up(builder, group, round);
  for (const Part& part : parts) part.unfold(builder, group);
}

void emit(Builder& builder, const Group& group, Window window) {
  const int n = group.size();
  if (n == 1) return;
  const int lanes = builder.shape().lanes;
  for (int lane = 0; lane < lanes; ++lane) {
    builder.lane(lane);
    const auto parts =
        parts_of(n, group.me, window.part(static_cast<std::uint32_t>(lane), static_cast<std::uint32_t>(lanes)),
                 static_cast<std::uint32_t>(builder.shape().pieces));
    halve_all(builder, group, parts);
    double_all(builder, group, parts);
  }
}

std::uint64_t phase_sent(int n, int member, std::uint32_t chunks) {
  const auto power = static_cast<std::uint64_t>(power_below(n));
  const std::uint64_t halved = (power - 1) * chunks / power;
  return member < 2 * (n - power_below(n)) ? (chunks + halved) / 2 : halved;
}

std::uint64_t chunks_sent(const Shape&, int n, int member, std::uint32_t chunks) {
  return 2 * phase_sent(n, member, chunks);
}

// Between the phases a share is one run of chunks (two for a rank without a pair), so pieces are not cut here.
std::uint32_t phase_grain(const Shape&, int n, std::uint32_t share) { return blocks(n) * share; }

std::vector<Window> shares(int n, int member, Window window) {
  std::vector<Window> shares;
  for (const Part& part : parts_of(n, member, window, 1))
    if (!part.gives()) shares.push_back(part.kept(part.rounds()));
  return shares;
}

void reduce_scatter(Builder& builder, const Group& group, Window window) {
  halve_all(builder, group, parts_of(group.size(), group.me, window, 1));
}

void all_gather(Builder& builder, const Group& group, Window window) {
  double_all(builder, group, parts_of(group.size(), group.me, window, 1));
}

}  // namespace

extern const Planner k_halving_doubling_allreduce{"halving_doubling",
                                                  Collective::allreduce,
                                                  "recursive halving, then doubling; few rounds, least bytes",
                                                  supports,
                                                  grain,
                                                  emit,
                                                  chunks_sent};

extern const TwoPhase k_halving_doubling_phases{"halving_doubling", phase_grain, shares,
                                                reduce_scatter,     all_gather,  phase_sent};

}  // namespace gradrail

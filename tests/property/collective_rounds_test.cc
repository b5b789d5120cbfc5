// Each plan takes as many rounds, and as few local copies, as its file says: what the proof of plans does not look at.
#include <algorithm>
#include <bit>
#include <functional>
#include <map>
#include <tuple>
#include <vector>

#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

int log2_up(int n) { return static_cast<int>(std::bit_width(static_cast<unsigned>(n - 1))); }

// Runs a schedule on ranks with one port: in a round a rank sends to one peer and receives from one peer, the first
// that it waits for, all messages that both have started. Local steps take no time.
class OnePort {
 public:
  explicit OnePort(const Schedule& schedule) : schedule_(schedule), ranks_(schedule.programs.size()) {
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      ranks_[rank].done.resize(schedule.programs[rank].steps.size());
  }

  // -1 if it does not end.
  int rounds() {
    for (int round = 0;; ++round) {
      for (std::size_t rank = 0; rank < ranks_.size(); ++rank) start(rank);
      if (std::all_of(ranks_.begin(), ranks_.end(), [](const Rank& rank) { return rank.first == rank.done.size(); }))
        return round;
      if (!exchange()) return -1;
    }
  }

 private:
  struct Rank {
    std::vector<bool> done;
    std::size_t first = 0;    // all before it are done
    std::size_t started = 0;  // steps before it have started
  };

  const std::vector<Step>& steps(std::size_t rank) const { return schedule_.programs[rank].steps; }

  // Starts what may start; one lane, so in the order written.
  void start(std::size_t rank) {
    Rank& state = ranks_[rank];
    for (; state.started < steps(rank).size(); ++state.started) {
      const Step& step = steps(rank)[state.started];
      for (auto earlier = static_cast<std::int32_t>(state.first); earlier < static_cast<std::int32_t>(state.started);
           ++earlier) {
        const bool send = steps(rank)[static_cast<std::size_t>(earlier)].op == Op::send;
        if (!state.done[static_cast<std::size_t>(earlier)] && earlier <= (send ? step.after_send : step.after)) return;
      }
      if (!step.talks()) state.done[state.started] = true;
      advance(state);
    }
    advance(state);
  }

  static void advance(Rank& state) {
    while (state.first < state.done.size() && state.done[state.first]) ++state.first;
  }

  // The started, unfinished sends (or receives) of a rank that go to (come from) the peer of the first of them.
  std::vector<std::size_t> port(std::size_t rank, bool sends) const {
    std::vector<std::size_t> found;
    for (std::size_t i = ranks_[rank].first; i < ranks_[rank].started; ++i) {
      const Step& step = steps(rank)[i];
      if (ranks_[rank].done[i] || !step.talks() || (step.op == Op::send) != sends) continue;
      if (found.empty() || steps(rank)[found.front()].peer == step.peer) found.push_back(i);
    }
    return found;
  }

  bool exchange() {
    std::vector<std::vector<std::size_t>> receives(ranks_.size());
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) receives[rank] = port(rank, false);
    bool moved = false;
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      const auto sends = port(rank, true);
      if (sends.empty()) continue;
      const std::size_t peer = steps(rank)[sends.front()].peer;
      const auto& expected = receives[peer];
      if (expected.empty() || steps(peer)[expected.front()].peer != rank) continue;
      for (std::size_t i = 0; i < std::min(sends.size(), expected.size()); ++i)
        ranks_[rank].done[sends[i]] = ranks_[peer].done[expected[i]] = moved = true;
    }
    for (Rank& rank : ranks_) advance(rank);
    return moved;
  }

  const Schedule& schedule_;
  std::vector<Rank> ranks_;
};

struct Promise {
  Collective collective;
  std::string_view name;
  std::function<int(int)> rounds;  // for n ranks
  bool at_most = false;            // the rounds are a bound, not met by every n
  // Blocks that a rank copies beyond those that the input holds and the output promises; v counts ranks from the root.
  std::function<int(int n, int rank, int v)> copies = [](int, int, int) { return 0; };
};

int others(int n) { return n - 1; }

// A rank that is neither the root nor a leaf joins its own block with its subtree's, or parts it from them; the last
// rank's block and the first one's are no neighbours.
int joined(int n, int rank, int v) { return v != 0 && v % 2 == 0 && v + 1 < n && rank != n - 1 ? 1 : 0; }

// Where an odd number of blocks is halved, the last one that stays was not added to; it joins the others unless it
// leaves alone in the next round.
int odd_one(int n, int, int) { return n % 2 == 1 && n >= 7 ? 1 : 0; }

Shape shape_of(Collective collective, int ranks, int root) {
  Shape shape;
  shape.collective = collective;
  shape.ranks = ranks;
  shape.root = root;
  return shape;
}

std::vector<Promise> promises() {
  return {
      {Collective::reduce_scatter, "ring", others},
      {Collective::reduce_scatter, "direct", others},
      {Collective::reduce_scatter, "recursive_halving", log2_up, false, odd_one},
      {Collective::all_gather, "ring", others},
      {Collective::all_gather, "direct", others},
      {Collective::all_gather, "bruck", log2_up},
      {Collective::broadcast, "direct", others},
      {Collective::broadcast, "binomial", log2_up},
      {Collective::broadcast, "chain", others},
      {Collective::broadcast, "scatter_allgather", [](int n) { return log2_up(n) + n - 1; }, true},
      {Collective::reduce, "direct", others},
      {Collective::reduce, "binomial", log2_up},
      {Collective::reduce, "chain", others},
      {Collective::reduce, "reduce_scatter_gather", [](int n) { return 2 * log2_up(n); }, true, odd_one},
      {Collective::all_to_all, "direct", others},
      {Collective::all_to_all, "pairwise", others},
      {Collective::gather, "direct", others},
      {Collective::gather, "binomial", log2_up, false, joined},
      {Collective::scatter, "direct", others},
      {Collective::scatter, "binomial", log2_up, false, joined},
      {Collective::send_recv, "direct", [](int n) { return n > 1 ? 1 : 0; }},
  };
}

// Chunks that the input holds at this rank and the output promises unchanged.
std::uint64_t kept(const Program& program) {
  const Shape& shape = program.shape;
  const Window in = window_of(Store::in, shape, program.rank, program.grid);
  const Window out = window_of(Store::out, shape, program.rank, program.grid);
  if (shape.ranks == 1) return out.count;
  if (reduces(shape.collective) || shape.collective == Collective::send_recv) return 0;
  if (shape.collective == Collective::all_to_all) return program.grid / static_cast<std::uint32_t>(shape.ranks);
  return std::min(in.count, out.count);
}

std::uint64_t copied(const Program& program) {
  std::uint64_t chunks = 0;
  for (const Step& step : program.steps)
    if (step.op == Op::copy) chunks += step.chunks;
  return chunks;
}

// Every shape that a promise is about.
void for_each_promise(const std::function<void(const Promise&, const Planner&, const Shape&, int root)>& look) {
  for (const Promise& promise : promises()) {
    const auto planner = find_planner(promise.collective, promise.name);
    ASSERT_TRUE(planner) << planner.error().message;
    for (int ranks = 1; ranks <= 17; ++ranks)
      for (const int root : roots(promise.collective, ranks))
        look(promise, **planner, shape_of(promise.collective, ranks, root), root);
  }
}

TEST(CollectiveRounds, AreAsPromised) {
  for_each_promise([](const Promise& promise, const Planner& planner, const Shape& shape, int) {
    const auto schedule = plan_all(planner, shape);
    ASSERT_TRUE(schedule) << schedule.error().message;
    const int rounds = OnePort(*schedule).rounds();
    ASSERT_GE(rounds, 0) << describe(planner, shape) << " does not end";
    if (promise.at_most)
      EXPECT_LE(rounds, promise.rounds(shape.ranks)) << describe(planner, shape);
    else
      EXPECT_EQ(rounds, promise.rounds(shape.ranks)) << describe(planner, shape);
  });
}

TEST(CollectiveRounds, BruckAllToAllTakesTheLogarithm) {
  const auto planner = find_planner(Collective::all_to_all, "bruck");
  ASSERT_TRUE(planner);
  for (int ranks = 1; ranks <= 40; ++ranks) {
    const auto schedule = plan_all(**planner, shape_of(Collective::all_to_all, ranks, 0));
    ASSERT_TRUE(schedule);
    EXPECT_EQ(OnePort(*schedule).rounds(), log2_up(ranks)) << ranks << " ranks";
    for (const Program& program : schedule->programs)
      EXPECT_EQ(std::ranges::count(program.steps, Op::send, &Step::op), log2_up(ranks)) << ranks << " ranks";
  }
}

TEST(CollectiveCopies, AreOnlyThoseThatAreNeeded) {
  for_each_promise([](const Promise& promise, const Planner& planner, const Shape& shape, int root) {
    for (int rank = 0; rank < shape.ranks; ++rank) {
      const auto program = plan(planner, shape, rank);
      ASSERT_TRUE(program) << program.error().message;
      const int extra = promise.copies(shape.ranks, rank, (rank - root + shape.ranks) % shape.ranks);
      const std::uint64_t block = program->grid / static_cast<std::uint32_t>(shape.ranks);
      EXPECT_EQ(copied(*program), kept(*program) + static_cast<std::uint64_t>(extra) * block)
          << describe(planner, shape) << ", rank " << rank;
    }
  });
}

}  // namespace
}  // namespace gradrail::test

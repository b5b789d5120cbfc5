// What the proofs of every planner do not see: how allreduces are put together, and that they waste nothing.
#include <gmock/gmock.h>

#include <algorithm>
#include <array>

#include "collectives/schedule/matching.h"
#include "collectives/schedule/verify.h"
#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

using testing::HasSubstr;

const Planner& allreduce(std::string_view name) { return **find_planner(Collective::allreduce, name); }

std::vector<const Planner*> allreduces() {
  std::vector<const Planner*> found;
  for (const Planner* planner : planners())
    if (planner->collective == Collective::allreduce) found.push_back(planner);
  return found;
}

std::uint64_t chunks_sent(const Program& program) {
  std::uint64_t sent = 0;
  for (const Step& step : program.steps)
    if (step.op == Op::send) sent += step.chunks;
  return sent;
}

auto count(const Program& program, Op op) {
  return std::count_if(program.steps.begin(), program.steps.end(), [&](const Step& step) { return step.op == op; });
}

TEST(Allreduce, HierarchicalIsRightForEveryInnerAndOuter) {
  const Planner& hierarchical = allreduce("hierarchical");
  std::size_t proved = 0;
  for (const int per_host : {1, 2, 3, 4, 5, 8})
    for (const int hosts : {1, 2, 3, 4, 6})
      for (const char* inner : {"", "ring", "two_shot", "halving_doubling"})
        for (const Planner* outer : allreduces())
          for (const bool in_place : {false, true}) {
            if (outer == &hierarchical) continue;
            Shape shape;
            shape.ranks_per_host = per_host;
            shape.ranks = per_host * hosts;
            shape.inner = inner;
            shape.outer = outer->name;
            shape.in_place = in_place;
            shape.lanes = 1 + hosts % 3;
            shape.pieces = 1 + per_host % 3;
            const auto schedule = plan_all(hierarchical, shape);
            ASSERT_TRUE(schedule) << schedule.error().message;
            const auto verified = verify(*schedule);
            ASSERT_TRUE(verified) << describe(hierarchical, shape) << " " << inner << "+" << outer->name << ": "
                                  << verified.error().message;
            for (const Program& program : schedule->programs)
              ASSERT_EQ(chunks_sent(program), hierarchical.chunks_sent(shape, shape.ranks, program.rank, program.grid))
                  << describe(hierarchical, shape) << " " << inner << "+" << outer->name << ", rank " << program.rank;
            ++proved;
          }
  EXPECT_EQ(proved, 6u * 5u * 4u * (allreduces().size() - 1) * 2u);
}

TEST(Allreduce, HierarchicalCrossesHostsWithItsShareOnly) {
  Shape shape;
  shape.ranks = 12;
  shape.ranks_per_host = 4;
  shape.inner = "ring";
  shape.outer = "ring";
  const auto schedule = plan_all(allreduce("hierarchical"), shape);
  ASSERT_TRUE(schedule);
  for (const Program& program : schedule->programs) {
    std::uint64_t between = 0;
    for (const Step& step : program.steps)
      if (step.op == Op::send && step.peer / 4 != program.rank / 4) between += step.chunks;
    EXPECT_EQ(between * 4 * 3, program.grid * 2u * 2u);  // 2 (h-1)/h of 1/m of the data
  }
}

TEST(Allreduce, HierarchicalRefusesWhatItCannotBeMadeOf) {
  const Planner& hierarchical = allreduce("hierarchical");
  Shape shape;
  shape.ranks = 8;
  shape.ranks_per_host = 4;
  const auto refusal = [&](std::string inner, std::string outer) {
    shape.inner = std::move(inner);
    shape.outer = std::move(outer);
    const auto supported = hierarchical.supports(shape);
    return supported ? std::string() : supported.error().message;
  };
  EXPECT_EQ(refusal("", ""), "");
  EXPECT_EQ(refusal("ring", "tree"), "");
  EXPECT_THAT(refusal("tree", ""), HasSubstr("'tree'"));
  EXPECT_THAT(refusal("tree", ""), HasSubstr("two_shot, ring, halving_doubling"));
  EXPECT_THAT(refusal("hierarchical", ""), HasSubstr("'hierarchical'"));
  EXPECT_THAT(refusal("", "hierarchical"), HasSubstr("another allreduce"));
  EXPECT_THAT(refusal("", "rign"), HasSubstr("'rign'"));
  shape.ranks_per_host = 3;
  EXPECT_THAT(refusal("", ""), HasSubstr("8 ranks"));
  EXPECT_FALSE(plan(hierarchical, shape, 0));
}

TEST(Allreduce, NoCopyWhereTheResultHasItsOwnBuffer) {
  for (const Planner* planner : allreduces())
    for (int ranks = 2; ranks <= 33; ++ranks) {
      Shape shape;
      shape.ranks = shape.ranks_per_host = ranks;
      shape.lanes = 2;
      shape.pieces = 3;
      for (const int rank : {0, 1, ranks - 1}) {
        EXPECT_EQ(count(*plan(*planner, shape, rank), Op::copy), 0) << describe(*planner, shape) << ", rank " << rank;
        shape.in_place = true;
        // In place, the exchange of one pair needs a second place.
        if (ranks > 3) {
          EXPECT_EQ(count(*plan(*planner, shape, rank), Op::copy), 0) << describe(*planner, shape);
        }
        shape.in_place = false;
      }
    }
}

TEST(Allreduce, LeastBytesWhereItIsSaid) {
  for (int ranks = 2; ranks <= 64; ++ranks)
    for (const char* name : {"ring", "tree", "halving_doubling", "two_shot"}) {
      Shape shape;
      shape.ranks = shape.ranks_per_host = ranks;
      const Planner& planner = allreduce(name);
      const auto schedule = plan_all(planner, shape);
      ASSERT_TRUE(schedule);
      std::uint64_t all = 0;
      const std::uint64_t grid = schedule->programs[0].grid;
      for (const Program& program : schedule->programs) {
        EXPECT_LE(chunks_sent(program), 2 * grid) << describe(planner, shape) << ", rank " << program.rank;
        all += chunks_sent(program);
      }
      const auto least = 2 * static_cast<std::uint64_t>(ranks - 1) * grid;
      // Folding sends some data once more than it must.
      if (std::string_view(name) == "halving_doubling" && (ranks & (ranks - 1)) != 0) {
        EXPECT_GE(all, least) << describe(planner, shape);
      } else {
        EXPECT_EQ(all, least) << describe(planner, shape);
      }
    }
}

// Calls look(shape, schedule, matching, message) for each message of all in-place plans of 2 to 9 ranks.
template <class Look>
void each_message_in_place(const Planner& planner, Look look) {
  for (int ranks = 2; ranks <= 9; ++ranks)
    for (const Shape& shape : shapes(planner, ranks, true)) {
      const auto schedule = plan_all(planner, shape);
      ASSERT_TRUE(schedule);
      if (!shape.in_place) continue;
      const auto matching = match(*schedule);
      ASSERT_TRUE(matching);
      for (const Message& message : matching->messages) {
        look(shape, *schedule, *matching, message);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
}

// What Planner::answers promises, by which receives are posted before the sends that they overwrite are done: the rank
// that sends it got those chunks by a recv_reduce, to just the place that it sends from, with nothing but sums since.
TEST(Allreduce, AnswersAreComputedFromWhatTheyOverwrite) {
  std::size_t answers = 0;
  for (const Planner* planner : planners()) {
    if (!planner->answers) continue;
    each_message_in_place(
        *planner, [&](const Shape& shape, const Schedule& schedule, const Matching& matching, const Message& message) {
          const Pipe& pipe = matching.pipes[message.pipe];
          const Program& mine = schedule.programs[pipe.to];
          const Program& its = schedule.programs[pipe.from];
          const Step& receive = mine.steps[message.receive];
          if (receive.op != Op::recv) return;
          for (std::size_t i = 0; i < message.receive; ++i) {
            const Step& sent = mine.steps[i];
            if (sent.op != Op::send || sent.from.chunk + sent.chunks <= receive.to.chunk ||
                receive.to.chunk + receive.chunks <= sent.from.chunk)
              continue;
            const std::string where = describe(*planner, shape) + ", rank " + std::to_string(mine.rank);
            ASSERT_EQ(sent.peer, receive.peer) << where;
            ASSERT_EQ(sent.chunks, receive.chunks) << where;
            ASSERT_EQ(sent.from.chunk, receive.to.chunk) << where;
            const std::uint32_t taken = matching.messages[matching.message_of[pipe.to][i]].receive;
            const Step& back = its.steps[message.send];
            ASSERT_LT(taken, message.send) << where;
            for (std::size_t k = taken; k < message.send; ++k) {
              const Step& step = its.steps[k];
              if (!step.writes() || step.to.chunk != back.from.chunk) continue;
              ASSERT_EQ(step.op, Op::recv_reduce) << where;
              ASSERT_EQ(step.to, back.from) << where;
            }
            ASSERT_EQ(its.steps[taken].to, back.from) << where;
            ++answers;
          }
        });
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(answers, 100u);
}

// A lane that is nothing but a send, a recv_reduce into scratch and a copy back is run as one exchange (binding.h),
// which takes what comes only as far as its own has left: the other side must receive without waiting for its sends.
TEST(Allreduce, WhoeverExchangesInPlaceMeetsOneWhoReceivesAtOnce) {
  std::size_t exchanges = 0;
  for (const Planner* planner : planners()) {
    if (planner->collective != Collective::allreduce) continue;
    each_message_in_place(
        *planner, [&](const Shape& shape, const Schedule& schedule, const Matching& matching, const Message& message) {
          const Pipe& pipe = matching.pipes[message.pipe];
          const Program& its = schedule.programs[pipe.from];
          std::vector<const Step*> lane;
          for (const Step& step : its.steps)
            if (step.lane == its.steps[message.send].lane) lane.push_back(&step);
          if (lane.size() != 3 || lane[0]->op != Op::send || lane[1]->op != Op::recv_reduce || lane[2]->op != Op::copy)
            return;
          const Step& receive = schedule.programs[pipe.to].steps[message.receive];
          ASSERT_LT(receive.after_send, 0) << describe(*planner, shape) << ", rank " << pipe.to;
          ++exchanges;
        });
    if (HasFatalFailure()) return;
  }
  EXPECT_GT(exchanges, 10u);
}

// The executor makes one pass over the peers' memory of n-1 receptions and n-1 sends of the same chunks.
TEST(Allreduce, TwoShotReducesAndSpreadsInOneRun) {
  for (const int ranks : {2, 3, 8})
    for (const bool in_place : {false, true}) {
      Shape shape;
      shape.ranks = shape.ranks_per_host = ranks;
      shape.lanes = 2;
      shape.pieces = 3;
      shape.in_place = in_place;
      const auto program = plan(allreduce("two_shot"), shape, 1);
      ASSERT_TRUE(program);
      const auto others = static_cast<std::size_t>(ranks - 1);
      std::size_t runs = 0;
      for (std::size_t i = 0; i < program->steps.size(); ++i) {
        if (program->steps[i].op != Op::recv_reduce) continue;
        ASSERT_LE(i + 2 * others, program->steps.size());
        for (std::size_t k = 0; k < 2 * others; ++k) {
          const Step& step = program->steps[i + k];
          ASSERT_EQ(step.op, k < others ? Op::recv_reduce : Op::send);
          ASSERT_EQ((k < others ? step.to : step.from).chunk, program->steps[i].to.chunk);
        }
        i += 2 * others - 1;
        ++runs;
      }
      EXPECT_EQ(runs, 2u * 3u);
    }
}

// In a tree of half of the data, an inner node receives from its children; being one in both trees would double its
// work.
TEST(Allreduce, RanksAreInnerNodesOfOneTreeOnly) {
  for (int ranks = 2; ranks <= 130; ++ranks) {
    Shape shape;
    shape.ranks = shape.ranks_per_host = ranks;
    shape.lanes = 2;  // one tree each
    for (int rank = 0; rank < ranks; ++rank) {
      const auto program = plan(allreduce("tree"), shape, rank);
      std::array<int, 2> children{};
      for (const Step& step : program->steps)
        if (step.op == Op::recv_reduce) ++children[step.lane];
      EXPECT_LE(children[0] + children[1], 2) << ranks << " ranks, rank " << rank;
      // With an odd number of ranks there is one inner node too many; it has one child in each.
      if (children[0] > 0 && children[1] > 0) {
        EXPECT_TRUE(ranks % 2 == 1 && rank == 0) << ranks << ", " << rank;
      }
    }
  }
}

TEST(Allreduce, LargeJobsAreRight) {
  for (const char* name : {"tree", "recursive_doubling", "halving_doubling", "hierarchical"})
    for (const int ranks : {129, 510}) {
      Shape shape;
      shape.ranks = ranks;
      shape.ranks_per_host = ranks % 3 == 0 ? 3 : 1;
      shape.in_place = ranks % 2 == 0;
      const auto schedule = plan_all(allreduce(name), shape);
      ASSERT_TRUE(schedule);
      const auto verified = verify(*schedule);
      EXPECT_TRUE(verified) << describe(allreduce(name), shape) << ": " << verified.error().message;
    }
}

}  // namespace
}  // namespace gradrail::test

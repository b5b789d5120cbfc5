// Plans for many ranks, hierarchical combinations, and plans that went through JSON.
#include <fmt/format.h>

#include "collectives/schedule/render.h"
#include "collectives/schedule/verify.h"
#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

class EveryPlannerAtScale : public testing::TestWithParam<const Planner*> {
 protected:
  static Shape shape_of(int ranks, int per_host) {
    Shape shape;
    shape.collective = GetParam()->collective;
    shape.ranks = ranks;
    shape.ranks_per_host = per_host;
    shape.root = has_root(GetParam()->collective) ? ranks / 3 : 0;
    return shape;
  }
  // All-pairs plans and blocks grow with the square of the ranks; their proof would take too much memory for a test.
  static bool feasible(const Shape& shape) {
    const auto program = plan(*GetParam(), shape, shape.root);
    if (!program) return false;
    const auto ranks = static_cast<std::uint64_t>(shape.ranks);
    const std::uint64_t cells = ranks * program->grid * (2u + program->planes);
    return ranks * program->steps.size() < 3'000'000 && cells < 4'000'000;
  }
};

TEST_P(EveryPlannerAtScale, IsRight) {
  int proved = 0;
  for (const auto& [ranks, per_host] : {std::pair(100, 10), {128, 8}, {257, 257}, {1000, 8}, {1024, 8}}) {
    const Shape shape = shape_of(ranks, per_host);
    if (!GetParam()->supports(shape) || !feasible(shape)) continue;
    const auto schedule = plan_all(*GetParam(), shape);
    ASSERT_TRUE(schedule);
    const auto verified = verify(*schedule);
    EXPECT_TRUE(verified) << describe(*GetParam(), shape) << ": " << verified.error().message;
    ++proved;
  }
  EXPECT_GE(proved, 2);
}

TEST_P(EveryPlannerAtScale, PlansOneRankOf1024Alone) {
  const Shape shape = shape_of(1024, 8);
  if (!GetParam()->supports(shape)) GTEST_SKIP() << "the planner does not support 1024 ranks";
  for (const int rank : {0, 1, 341, 512, 1023}) {
    const auto program = plan(*GetParam(), shape, rank);
    ASSERT_TRUE(program) << program.error().message;
    std::uint64_t sent = 0;
    for (const Step& step : program->steps)
      if (step.op == Op::send) sent += step.chunks;
    EXPECT_EQ(sent, GetParam()->chunks_sent(shape, 1024, rank, program->grid)) << rank;
  }
}

TEST_P(EveryPlannerAtScale, ComesBackFromJsonAsItWas) {
  for (const int ranks : {1, 2, 5, 8})
    for (const Shape& shape : shapes(*GetParam(), ranks, false)) {
      const auto schedule = plan_all(*GetParam(), shape);
      ASSERT_TRUE(schedule);
      const auto back = schedule_from_json(to_json(*schedule));
      ASSERT_TRUE(back) << describe(*GetParam(), shape) << ": " << back.error().message;
      ASSERT_EQ(back->programs.size(), schedule->programs.size());
      EXPECT_EQ(back->shape, schedule->shape);
      for (std::size_t rank = 0; rank < back->programs.size(); ++rank) {
        EXPECT_EQ(back->programs[rank].grid, schedule->programs[rank].grid);
        EXPECT_EQ(back->programs[rank].planes, schedule->programs[rank].planes);
        ASSERT_EQ(back->programs[rank].steps, schedule->programs[rank].steps) << describe(*GetParam(), shape);
      }
    }
}

INSTANTIATE_TEST_SUITE_P(Planners, EveryPlannerAtScale, testing::ValuesIn(all_planners()), PlannerName());

TEST(Hierarchical, IsRightWithEveryPartInsideAndBetween) {
  const auto hierarchical = find_planner(Collective::allreduce, "hierarchical");
  ASSERT_TRUE(hierarchical);
  int proved = 0;
  for (const std::string_view inner : {"two_shot", "ring", "halving_doubling"})
    for (const Planner* outer : planners()) {
      if (outer->collective != Collective::allreduce || outer == *hierarchical) continue;
      for (const auto& [hosts, per_host] : {std::pair(2, 2), {3, 2}, {2, 3}, {4, 4}, {5, 3}, {1, 4}, {4, 1}})
        for (const int lanes : {1, 2})
          for (const bool in_place : {false, true}) {
            Shape shape;
            shape.ranks = hosts * per_host;
            shape.ranks_per_host = per_host;
            shape.lanes = lanes;
            shape.pieces = lanes == 2 ? 3 : 1;
            shape.in_place = in_place;
            shape.inner = inner;
            shape.outer = outer->name;
            const auto schedule = plan_all(**hierarchical, shape);
            const auto where = [&] {
              return fmt::format("{} with {}+{}", describe(**hierarchical, shape), inner, outer->name);
            };
            ASSERT_TRUE(schedule) << where() << ": " << schedule.error().message;
            for (const int credits : {0, 4}) {
              const auto verified = verify(*schedule, {.credits = credits});
              ASSERT_TRUE(verified) << where() << ": " << verified.error().message;
            }
            for (const Program& program : schedule->programs) {
              std::uint64_t sent = 0;
              for (const Step& step : program.steps)
                if (step.op == Op::send) sent += step.chunks;
              ASSERT_EQ(sent, (*hierarchical)->chunks_sent(shape, shape.ranks, program.rank, program.grid)) << where();
            }
            ++proved;
          }
    }
  EXPECT_GT(proved, 200);
}

}  // namespace
}  // namespace gradrail::test

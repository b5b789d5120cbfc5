// Every plan of every planner is proved right.
#include "collectives/schedule/verify.h"

#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

std::uint64_t chunks_sent(const Program& program) {
  std::uint64_t sent = 0;
  for (const Step& step : program.steps)
    if (step.op == Op::send) sent += step.chunks;
  return sent;
}

class EveryPlanner : public testing::TestWithParam<const Planner*> {
 protected:
  // Plans, proves and counts; false if something was wrong, so that one message is enough.
  static bool right(const Planner& planner, const Shape& shape, std::initializer_list<int> credits) {
    auto schedule = plan_all(planner, shape);
    EXPECT_TRUE(schedule) << describe(planner, shape) << ": " << schedule.error().message;
    if (!schedule) return false;
    for (const int credit : credits) {
      const auto verified = verify(*schedule, {.credits = credit});
      EXPECT_TRUE(verified) << describe(planner, shape) << ", credits " << credit << ": " << verified.error().message;
      if (!verified) return false;
    }
    for (const Program& program : schedule->programs) {
      const auto closed_form = planner.chunks_sent(shape, shape.ranks, program.rank, program.grid);
      EXPECT_EQ(chunks_sent(program), closed_form) << describe(planner, shape) << ", rank " << program.rank;
      if (chunks_sent(program) != closed_form) return false;
    }
    return true;
  }
};

TEST_P(EveryPlanner, IsRightForAllShapesUpTo12Ranks) {
  std::size_t tried = 0;
  for (int ranks = 1; ranks <= 12; ++ranks)
    for (const Shape& shape : shapes(*GetParam(), ranks, true)) {
      ASSERT_TRUE(right(*GetParam(), shape, {0, 1, 4}));
      ++tried;
    }
  EXPECT_GT(tried, 100u);
}

TEST_P(EveryPlanner, IsRightForSomeShapesUpTo64Ranks) {
  for (int ranks = 13; ranks <= 64; ++ranks)
    for (const Shape& shape : shapes(*GetParam(), ranks, false)) ASSERT_TRUE(right(*GetParam(), shape, {0}));
}

INSTANTIATE_TEST_SUITE_P(Planners, EveryPlanner, testing::ValuesIn(all_planners()), PlannerName());

}  // namespace
}  // namespace gradrail::test

// That all ranks end with the same bits where data travels encoded, proved on symbols for every plan.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "collectives/exec/coded_program.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

Shape shape_of(int ranks, int ranks_per_host, bool in_place) {
  Shape shape;
  shape.ranks = ranks;
  shape.ranks_per_host = ranks_per_host;
  shape.in_place = in_place;
  return shape;
}

TEST(CodedAgreement, HoldsForEveryPlanOf1To33Ranks) {
  for (const Planner* planner : planners()) {
    if (planner->collective != Collective::allreduce && planner->collective != Collective::reduce_scatter &&
        planner->collective != Collective::all_gather)
      continue;
    for (int n = 1; n <= 33; ++n)
      for (const bool in_place : {false, true}) {
        Shape shape = shape_of(n, n % 3 == 0 ? 3 : n, in_place);
        shape.collective = planner->collective;
        if (!planner->supports(shape)) continue;
        const auto agreement = agreement_of(*planner, shape, CodecWhere::everywhere);
        ASSERT_TRUE(agreement) << planner->name << ", " << n << " ranks: " << agreement.error().message;
        EXPECT_EQ(agreement->requantised == 0, n == 1) << planner->name << ", " << n << " ranks";
      }
  }
}

TEST(CodedAgreement, CountsTheErrorsThatAddUp) {
  const auto requantised = [](std::string_view name, int n) {
    return agreement_of(*find_planner(Collective::allreduce, name).value(), shape_of(n, n, false),
                        CodecWhere::everywhere)
        ->requantised;
  };
  EXPECT_EQ(requantised("one_shot", 8), 1);            // each contribution once, by who sends it
  EXPECT_EQ(requantised("two_shot", 8), 2);            // and the sum once
  EXPECT_EQ(requantised("ring", 8), 8);                // seven hops of the sum, and the sum
  EXPECT_EQ(requantised("recursive_doubling", 8), 3);  // one a round
}

TEST(CodedAgreement, EncodesAResultForThoseWhoNeedNotSendIt) {
  // Of three ranks, one only gets the result, encoded; another has it and sends it to nobody.
  const auto three = agreement_of(*find_planner(Collective::allreduce, "recursive_doubling").value(),
                                  shape_of(3, 3, false), CodecWhere::everywhere);
  ASSERT_TRUE(three);
  EXPECT_TRUE(three->round_trip);
  const auto four = agreement_of(*find_planner(Collective::allreduce, "recursive_doubling").value(),
                                 shape_of(4, 4, false), CodecWhere::everywhere);
  ASSERT_TRUE(four);
  EXPECT_FALSE(four->round_trip);
}

TEST(CodedAgreement, BetweenHostsIsForWhatMeetsBetweenThemWhole) {
  for (const int hosts : {2, 3, 4, 5}) {
    Shape shape = shape_of(hosts * 4, 4, false);
    for (const std::string_view text :
         {"hierarchical", "hierarchical:ring+ring", "hierarchical:two_shot+recursive_doubling",
          "hierarchical:halving_doubling+tree"}) {
      const Planner* planner = parse_algorithm(text, shape).value();
      const auto agreement = agreement_of(*planner, shape, CodecWhere::between_hosts);
      EXPECT_TRUE(agreement) << text << ", " << hosts << " hosts: " << agreement.error().message;
    }
    const Planner* ring = parse_algorithm("ring", shape).value();
    const auto refused = agreement_of(*ring, shape, CodecWhere::between_hosts);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Code::unsupported);
    EXPECT_THAT(refused.error().message, HasSubstr("choose hierarchical"));
  }
}

TEST(CodedProgram, SendsOnWhatCameEncodedAsItCame) {
  Shape shape = shape_of(4, 4, false);
  const Program program = plan(*find_planner(Collective::allreduce, "ring").value(), shape, 1).value();
  const CodedProgram made = coded(program, CodecWhere::everywhere, false);
  std::size_t encodes = 0, sends = 0, of_received = 0;
  for (const CodedStep& step : made.lanes[0].main) {
    encodes += step.kind == CodedStep::Kind::encode;
    sends += step.kind == CodedStep::Kind::send;
    of_received += step.kind == CodedStep::Kind::send && made.messages[step.from.message].received;
  }
  EXPECT_EQ(sends, 6u);
  EXPECT_EQ(encodes, 4u);      // the first block, two partial sums, and the whole sum
  EXPECT_EQ(of_received, 2u);  // of the three blocks that come whole, two go on
  EXPECT_EQ(made.lanes[0].later.size(), 4u);
}

}  // namespace
}  // namespace gradrail

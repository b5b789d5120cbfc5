#include "collectives/schedule/render.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "collectives/plan/planner.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

Schedule planned(std::string_view algorithm, int ranks, int ranks_per_host = 1) {
  Shape shape;
  shape.ranks = ranks;
  shape.ranks_per_host = ranks_per_host;
  auto planner = parse_algorithm(algorithm, shape);
  EXPECT_TRUE(planner);
  auto schedule = plan_all(**planner, shape);
  EXPECT_TRUE(schedule);
  return *std::move(schedule);
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const auto at = text.find(from);
  EXPECT_NE(at, text.npos) << from;
  return at == text.npos ? text : text.replace(at, from.size(), to);
}

std::size_t occurrences(std::string_view text, std::string_view what) {
  std::size_t count = 0;
  for (auto at = text.find(what); at != text.npos; at = text.find(what, at + what.size())) ++count;
  return count;
}

TEST(RenderText, ShowsEachStepOfEachRank) {
  const std::string text = to_text(planned("ring", 2));
  EXPECT_EQ(text,
            "allreduce, 2 ranks on 2 hosts of 1, lanes 1, pieces 1\n"
            "data in 2 chunks, 0 scratch planes\n"
            "\n"
            "rank 0: 4 steps; sends 2 chunks in 2 messages\n"
            "   step  lane  operation       peer  from                to                  after  after send\n"
            "      0     0  send            -> 1  in 0\n"
            "      1     0  recv_reduce     <- 1  in 1                out 1\n"
            "      2     0  send            -> 1  out 1                                       1\n"
            "      3     0  recv            <- 1                      out 0\n"
            "\n"
            "rank 1: 4 steps; sends 2 chunks in 2 messages\n"
            "   step  lane  operation       peer  from                to                  after  after send\n"
            "      0     0  send            -> 0  in 1\n"
            "      1     0  recv_reduce     <- 0  in 0                out 0\n"
            "      2     0  send            -> 0  out 0                                       1\n"
            "      3     0  recv            <- 0                      out 1\n");
}

TEST(RenderText, NamesRunsAndPlanes) {
  EXPECT_EQ(to_string(Place{Store::in, 0, 3}, 1), "in 3");
  EXPECT_EQ(to_string(Place{Store::out, 0, 3}, 4), "out 3..6");
  EXPECT_EQ(to_string(Place{Store::scratch, 2, 0}, 2), "scratch2 0..1");
}

TEST(RenderJson, ComesBackAsItWas) {
  const Schedule schedule = planned("hierarchical:two_shot+ring", 8, 4);
  const auto back = schedule_from_json(to_json(schedule));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->shape, schedule.shape);
  ASSERT_EQ(back->programs.size(), schedule.programs.size());
  for (std::size_t rank = 0; rank < schedule.programs.size(); ++rank) {
    EXPECT_EQ(back->programs[rank].grid, schedule.programs[rank].grid);
    EXPECT_EQ(back->programs[rank].planes, schedule.programs[rank].planes);
    EXPECT_EQ(back->programs[rank].steps, schedule.programs[rank].steps);
  }
}

struct Damage {
  const char* from;
  const char* to;
  const char* message;
};

TEST(RenderJson, EveryFieldIsChecked) {
  const std::string good = to_json(planned("ring", 2));
  ASSERT_TRUE(schedule_from_json(good));
  const Damage damages[] = {
      {"\"schema\":1", "\"schema\":2", "schema is not from 1 to 1"},
      {"\"schema\":1", "\"scheme\":1", "schema is missing"},
      {"allreduce", "allreduces", "shape.collective is 'allreduces', which is not known"},
      {"\"ranks\":2", "\"ranks\":0", "shape.ranks is not from 1 to 65536"},
      {"\"ranks\":2", "\"ranks\":2.5", "shape.ranks is not a whole number"},
      {"\"ranks\":2", "\"ranks\":18446744073709551615", "shape.ranks is not from 1 to 65536"},
      {"\"ranks\":2", "\"ranks\":3", "programs has 2 entries for 3 ranks"},
      {"\"ranks\":2", "\"ranks\":1", "programs has 2 entries; at most 1 are allowed"},
      {"\"ranks_per_host\":1", "\"ranks_per_host\":3", "shape.ranks_per_host is not from 1 to 2"},
      {"\"root\":0", "\"root\":2", "shape.root is not from 0 to 1"},
      {"\"in_place\":false", "\"in_place\":0", "shape.in_place is neither true nor false"},
      {"\"lanes\":1", "\"lanes\":65", "shape.lanes is not from 1 to 64"},
      {"\"pieces\":1", "\"pieces\":-1", "shape.pieces is not from 1 to 1024"},
      {"\"inner\":\"\"", "\"inner\":7", "shape.inner is not a string"},
      {"\"rank\":0", "\"rank\":1", "programs[0].rank is not from 0 to 0"},
      {"\"grid\":2", "\"grid\":0", "programs[0].grid is not from 1 to 134217728"},
      {"\"planes\":0", "\"planes\":256", "programs[0].planes is not from 0 to 255"},
      {"\"op\":\"send\"", "\"op\":\"sent\"", "programs[0].steps[0].op is 'sent', which is not known"},
      {"\"lane\":0", "\"lane\":1", "programs[0].steps[0].lane is not from 0 to 0"},
      {"\"peer\":1", "\"peer\":2", "programs[0].steps[0].peer is not from 0 to 1"},
      {"\"chunks\":1", "\"chunks\":3", "programs[0].steps[0].chunks is not from 1 to 2"},
      {"\"chunk\":0", "\"chunk\":2", "programs[0].steps[0].from.chunk is not from 0 to 1"},
      {"\"store\":\"in\"", "\"store\":\"scratch\"", "programs[0].steps[0].from.plane is missing"},
      {"\"after\":-1", "\"after\":0", "programs[0].steps[0].after is not from -1 to -1"},
      {"\"after_send\":-1", "\"after_send\":-2", "programs[0].steps[0].after_send is not from -1 to -1"},
      {"\"from\":{", "\"form\":{", "programs[0].steps[0].from is missing"},
      {"\"steps\":[", "\"steps\":[3,", "programs[0].steps[0] is not an object"},
      {"{\"schema\"", "[{\"schema\"", "the plan is not JSON; it goes wrong at byte"},
  };
  for (const Damage& damage : damages) {
    const auto result = schedule_from_json(replaced(good, damage.from, damage.to));
    ASSERT_FALSE(result) << damage.to;
    EXPECT_EQ(result.error().code, Code::malformed);
    EXPECT_THAT(result.error().message, HasSubstr(damage.message)) << damage.to;
  }
}

TEST(RenderJson, NothingCutShortIsAccepted) {
  const std::string good = to_json(planned("ring", 3));
  for (std::size_t length = 0; length + 2 < good.size(); ++length)
    ASSERT_FALSE(schedule_from_json(std::string_view(good).substr(0, length))) << length;
  EXPECT_FALSE(schedule_from_json(std::string(100000, '[')));
}

TEST(RenderSvg, DrawsEachMessageOnce) {
  const std::string svg = to_svg(planned("ring", 4), "ring & <friends>");
  EXPECT_THAT(svg, HasSubstr("ring &amp; &lt;friends>: allreduce on 4 ranks"));
  EXPECT_THAT(svg, HasSubstr(">6 rounds; the data is 4 chunks, of which the busiest rank sends 6 in all (1.5 times"));
  EXPECT_EQ(occurrences(svg, "<title>rank "), 24u);       // 4 ranks send in 6 rounds
  EXPECT_EQ(occurrences(svg, ", reduced</title>"), 12u);  // half of them are reduced
  EXPECT_EQ(occurrences(svg, "text-anchor=\"end\" fill=\"#111\">rank "), 4u);
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
}

TEST(RenderSvg, ShowsHostsAndLocalSteps) {
  EXPECT_EQ(occurrences(to_svg(planned("hierarchical", 8, 4)), ">host "), 2u);
  // One rank: nothing to send, one copy from input to output.
  const std::string alone = to_svg(planned("ring", 1));
  EXPECT_THAT(alone, HasSubstr("allreduce on 1 rank<"));
  EXPECT_EQ(occurrences(alone, "copy in 0 to out 0</title>"), 1u);
}

}  // namespace
}  // namespace gradrail

// What is measured before auto can choose: what no table answers, and no more.
#include "bench/measure/survey_needs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradrail {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t k_kib = 1 << 10;
constexpr std::uint64_t k_mib = 1 << 20;

Question question(Collective collective, std::uint64_t bytes, int ranks = 4) {
  return {collective, bytes, ranks, ranks / 2, "shm+tcp", false};
}

// Of an allreduce between two hosts of two, up to 1 MiB.
DecisionTable table() {
  DecisionTable table;
  table.entries.push_back({Collective::allreduce, "shm+tcp", 4, 2, {{8, k_mib, {"hierarchical", 1, 1}}}});
  return table;
}

SurveyOptions needs(const std::vector<Question>& asked, const DecisionTable* known,
                    const std::vector<std::string>& codecs = {}) {
  SurveyOptions needs;
  add_needs(needs, asked, known, codecs);
  return needs;
}

TEST(SurveyNeeds, NothingWhereTheTableAnswersAll) {
  const DecisionTable known = table();
  const auto all = needs({question(Collective::allreduce, 8), question(Collective::allreduce, 16 * k_mib),
                          question(Collective::allreduce, k_mib, 8)},
                         &known);
  EXPECT_THAT(all.collectives, IsEmpty()) << "sizes beyond, and as many ranks again, belong to the nearest";
  EXPECT_THAT(all.coded_collectives, IsEmpty());
  EXPECT_EQ(all.largest, 0u);
}

TEST(SurveyNeeds, AllWithoutATable) {
  const auto all = needs({question(Collective::broadcast, 64), question(Collective::allreduce, k_mib)}, nullptr);
  EXPECT_THAT(all.collectives, ElementsAre(Collective::broadcast, Collective::allreduce));
  EXPECT_EQ(all.smallest, 64u);
  EXPECT_EQ(all.largest, k_mib);
}

TEST(SurveyNeeds, OnlyWhatTheTableDoesNotAnswer) {
  const DecisionTable known = table();
  const auto some = needs({question(Collective::allreduce, 8), question(Collective::broadcast, 4 * k_kib),
                           question(Collective::allreduce, 16 * k_mib), question(Collective::broadcast, 64 * k_kib)},
                          &known);
  EXPECT_THAT(some.collectives, ElementsAre(Collective::broadcast));
  EXPECT_EQ(some.smallest, 4 * k_kib);
  EXPECT_EQ(some.largest, 64 * k_kib);
  EXPECT_THAT(needs({question(Collective::allreduce, 8, 16)}, &known).collectives, ElementsAre(Collective::allreduce))
      << "so many ranks are too far from the table's";
}

TEST(SurveyNeeds, NothingWhereTheAnswerRestsOnHowPlansAreRun) {
  Question one_host{Collective::allreduce, k_mib, 2, 2, "shm", false, Reached::no};
  EXPECT_THAT(needs({one_host}, nullptr).collectives, IsEmpty());
  one_host.reached = Reached::unknown;
  EXPECT_THAT(needs({one_host}, nullptr).collectives, ElementsAre(Collective::allreduce));
}

TEST(SurveyNeeds, CodecsWhereTheTableKnowsNone) {
  DecisionTable known = table();
  const std::vector<std::string> codecs{"int8"};
  const std::vector<Question> asked{question(Collective::allreduce, 64), question(Collective::allreduce, k_mib)};
  const auto without = needs(asked, &known, codecs);
  EXPECT_THAT(without.collectives, IsEmpty());
  EXPECT_THAT(without.coded_collectives, ElementsAre(Collective::allreduce));
  EXPECT_THAT(without.codecs, ElementsAre("int8"));
  EXPECT_EQ(without.smallest, k_mib) << "what is shorter is never encoded";
  known.entries.front().codecs.push_back({k_mib, 1, {}});
  EXPECT_THAT(needs(asked, &known, codecs).coded_collectives, IsEmpty()) << "the table says that none pays";
  EXPECT_THAT(needs(asked, nullptr, codecs).collectives, ElementsAre(Collective::allreduce));
  EXPECT_THAT(needs(asked, nullptr).coded_collectives, IsEmpty());
}

}  // namespace
}  // namespace gradrail

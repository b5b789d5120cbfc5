// Candidates, the cost model's choice, and fitting the model to times.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>
#include <string>

#include "collectives/plan/planner.h"
#include "collectives/select/candidates.h"
#include "collectives/select/cost_selector.h"
#include "collectives/select/model_fit.h"
#include "collectives/select/table.h"

namespace gradrail {
namespace {

Question allreduce(std::uint64_t bytes, int ranks, int ranks_per_host = 0) {
  return {Collective::allreduce, bytes, ranks, ranks_per_host > 0 ? ranks_per_host : ranks, "shm", false};
}

TEST(Candidates, CoverEveryAlgorithmAndCanAllBePlanned) {
  for (const Collective collective : k_collectives)
    for (const int ranks : {1, 2, 3, 8})
      for (const std::uint64_t bytes : {std::uint64_t{8}, std::uint64_t{1} << 26}) {
        const Question question{collective, bytes, ranks, ranks, "shm", false};
        const auto list = candidates(question);
        std::set<std::string> names;
        for (const Selection& selection : list) {
          names.insert(selection.algorithm);
          EXPECT_TRUE(can_answer(selection, question)) << selection.algorithm;
        }
        for (const Planner* planner : planners()) {
          if (planner->collective != collective || planner->name == "hierarchical") continue;
          EXPECT_TRUE(names.contains(std::string(planner->name))) << planner->name;
        }
        EXPECT_FALSE(names.contains("hierarchical"));
      }
}

TEST(Candidates, PiecesAndLanesOnlyWhereDataIsLarge) {
  for (const Selection& selection : candidates(allreduce(8 << 10, 4))) {
    EXPECT_EQ(selection.pieces, 1) << selection.algorithm;
    EXPECT_EQ(selection.lanes, 1) << selection.algorithm;
  }
  const auto large = candidates(allreduce(64 << 20, 4));
  const auto has = [&](const Selection& wanted) {
    return std::find(large.begin(), large.end(), wanted) != large.end();
  };
  EXPECT_TRUE(has({"ring", 1, 16}));
  EXPECT_TRUE(has({"ring", 2, 1}));
  EXPECT_TRUE(has({"tree", 1, 16}));
}

TEST(Candidates, HierarchicalWhereThereAreLevels) {
  const auto list = candidates(allreduce(1 << 20, 4, 2));
  EXPECT_TRUE(std::any_of(list.begin(), list.end(), [](const Selection& s) { return s.algorithm == "hierarchical"; }));
}

TEST(CostSelector, FewRoundsForSmallFewBytesForLarge) {
  CostModel model;
  model.inside = {2e-6, 1e-10};
  model.shared_medium = false;
  const CostSelector selector(model, "test");
  const Selection small = selector.choose(allreduce(8, 16));
  const Selection large = selector.choose(allreduce(256 << 20, 16));
  EXPECT_NE(small.algorithm, large.algorithm);
  const auto seconds = [&](const Selection& s, std::uint64_t bytes) {
    return predict(s, allreduce(bytes, 16), model).value();
  };
  EXPECT_LT(seconds(small, 8), seconds({"ring", 1, 1}, 8) / 3);
  EXPECT_LT(seconds(large, 256 << 20), seconds({"recursive_doubling", 1, 1}, 256 << 20) / 1.5);
}

TEST(CostSelector, SlowLinksBetweenHostsWantHierarchy) {
  CostModel model;
  model.inside = {1e-6, 1e-11};
  model.between = {50e-6, 1e-9};
  const CostSelector selector(model, "test");
  // Three hosts: with a power of two, halving_doubling crosses between hosts as little.
  EXPECT_THAT(selector.choose(allreduce(16 << 20, 24, 8)).algorithm, ::testing::StartsWith("hierarchical"));
}

TEST(CostSelector, AlwaysAnswersWithSomethingThatCanRun) {
  const CostSelector selector(CostModel{}, "test");
  for (const Collective collective : k_collectives)
    for (const int ranks : {1, 2, 7, 64})
      for (const std::uint64_t bytes : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 24}) {
        const Question question{collective, bytes, ranks, ranks, "tcp", false};
        const auto answer = can_answer(selector.choose(question), question);
        EXPECT_TRUE(answer) << to_string(collective) << " " << ranks << " " << bytes << ": " << answer.error().message;
      }
}

TEST(CostSelector, ThousandRanksAreEstimatedNotSimulated) {
  const CostModel model;
  // n^2 messages in all; alike for all ranks, so an estimate from one rank keeps the order of the two.
  const double ring = predict({"ring", 1, 1}, allreduce(1 << 30, 1024), model).value();
  const double doubling = predict({"recursive_doubling", 1, 1}, allreduce(1 << 30, 1024), model).value();
  EXPECT_GT(doubling, ring);
  EXPECT_LT(predict({"recursive_doubling", 1, 1}, allreduce(8, 1024), model).value(),
            predict({"ring", 1, 1}, allreduce(8, 1024), model).value());
}

TEST(CostSelector, EstimateIsNearTheSimulation) {
  CostModel model;
  model.shared_medium = true;
  // A ring of n ranks has 4n(n-1) steps: 70 ranks are just below the limit, 72 above. The estimate goes on from there.
  for (const std::uint64_t bytes : {std::uint64_t{8}, std::uint64_t{1} << 28}) {
    const double simulated = predict({"ring", 1, 1}, allreduce(bytes, 70), model).value();
    const double estimated = predict({"ring", 1, 1}, allreduce(bytes, 72), model).value();
    EXPECT_NEAR(std::log(estimated / simulated), 0, std::log(2.0)) << bytes;
  }
}

TEST(CostSelector, TimesOfAlgorithmsOutweighTheModel) {
  CostModel model;
  model.inside = {2e-6, 1e-10};
  const Selection by_model = CostSelector(model, "test").choose(allreduce(1 << 16, 4));
  ASSERT_NE(by_model.algorithm, "tree");
  // Measured at two sizes, tree is as fast as nothing else; above, it is as slow.
  GroupTimes times{4, 4, {}};
  for (const char* name : {"ring", "tree", "recursive_doubling", "halving_doubling", "one_shot", "two_shot"})
    for (const std::uint64_t bytes : {std::uint64_t{1} << 12, std::uint64_t{1} << 20, std::uint64_t{1} << 24}) {
      const bool fast = (std::string(name) == "tree") == (bytes < (1 << 24));
      times.observations.push_back({Collective::allreduce, {name, 1, 1}, bytes, fast ? 1e-6 : 1e-3});
    }
  const CostSelector selector(model, "test", times);
  for (const std::uint64_t bytes :
       {std::uint64_t{8}, std::uint64_t{1} << 12, std::uint64_t{1} << 16, std::uint64_t{1} << 20})
    EXPECT_EQ(selector.choose(allreduce(bytes, 4)).algorithm, "tree") << bytes;
  EXPECT_NE(selector.choose(allreduce(1 << 24, 4)).algorithm, "tree");
  // They are of four ranks.
  EXPECT_EQ(selector.choose(allreduce(1 << 16, 8)), CostSelector(model, "test").choose(allreduce(1 << 16, 8)));
}

TEST(CostSelector, TimesMeasuredInPlaceAreThoseOfCallsInPlace) {
  CostModel model;
  model.inside = {2e-6, 1e-10};
  constexpr std::uint64_t k_bytes = 1 << 20;
  Question question = allreduce(k_bytes, 4);
  question.in_place = true;
  GroupTimes times{4, 4, {}, true};
  // All take about as long as each other, and tree takes least, whatever the model says of either way to call them.
  for (const char* name : {"ring", "tree", "recursive_doubling", "halving_doubling", "one_shot", "two_shot"})
    times.observations.push_back({Collective::allreduce, {name, 1, 1}, k_bytes, 1.1e-3});
  times.observations[1].seconds = 1e-3;
  EXPECT_EQ(CostSelector(model, "test", times).choose(question).algorithm, "tree");
}

TEST(CostSelector, HierarchicalIsTakenWhereMeasuringFindsItLevel) {
  constexpr std::uint64_t k_bytes = 1 << 20;
  const auto choice = [&](double seconds_of_halving_doubling) {
    Question question = allreduce(k_bytes, 4);
    question.ranks_per_host = 2;
    GroupTimes times{4, 2, {}};
    for (const Selection& selection : candidates(question, {.lanes = false}))
      times.observations.push_back({Collective::allreduce, selection, k_bytes, 20e-3});
    for (Observation& one : times.observations) {
      if (one.selection == Selection{"hierarchical", 1, 4}) one.seconds = 8.9e-3;
      if (one.selection == Selection{"halving_doubling", 1, 1}) one.seconds = seconds_of_halving_doubling;
    }
    return CostSelector(CostModel{}, "test", times).choose(question);
  };
  EXPECT_EQ(choice(8.7e-3), (Selection{"hierarchical", 1, 4}));
  EXPECT_EQ(choice(8.0e-3), (Selection{"halving_doubling", 1, 1}));
}

TEST(CostSelector, KnowsCodecsOfItsGroup) {
  CostSelector selector(CostModel{}, "test", {4, 4, {}});
  selector.know_codecs(Collective::allreduce, {{1 << 20, 1000, {{{"two_shot", 1, 1, "int8"}, 300, 0.009}}}});
  Question question = allreduce(1 << 20, 4);
  EXPECT_EQ(selector.choose(question).codec, "");
  question.error_budget = 0.01;
  EXPECT_EQ(selector.choose(question), (Selection{"two_shot", 1, 1, "int8"}));
  question.error_budget = 0.005;
  EXPECT_EQ(selector.choose(question).codec, "");
  question = allreduce(1 << 20, 8);
  question.error_budget = 0.01;
  EXPECT_EQ(selector.choose(question).codec, "") << "they are of four ranks";
}

TEST(ModelFit, FindsTheParametersThatMadeTheTimes) {
  CostModel truth;
  truth.inside = {4e-6, 3e-10};
  truth.gamma = 2e-10;
  truth.step = 1e-7;
  truth.shared_medium = true;
  std::vector<Observation> observations;
  const auto add = [&](Collective collective, Selection selection, std::uint64_t bytes) {
    const Question question{collective, bytes, 4, 4, "shm", false};
    observations.push_back({collective, selection, bytes, predict(selection, question, truth).value()});
  };
  for (const std::uint64_t bytes : {64u, 16384u, 1u << 20}) {
    add(Collective::send_recv, {"direct", 1, 1}, bytes);
    add(Collective::all_gather, {"direct", 1, 1}, bytes);
    add(Collective::reduce_scatter, {"direct", 1, 1}, bytes);
    add(Collective::allreduce, {"ring", 1, 1}, bytes);
  }
  const ModelFit fit = fit_model(observations, 4, 4, CostModel{});
  EXPECT_LT(fit.error, 0.05);
  EXPECT_TRUE(fit.model.shared_medium);
  EXPECT_NEAR(std::log(fit.model.inside.alpha / truth.inside.alpha), 0, 0.15);
  EXPECT_NEAR(std::log(fit.model.inside.beta / truth.inside.beta), 0, 0.15);
  EXPECT_NEAR(std::log(fit.model.gamma / truth.gamma), 0, 0.3);
  // It predicts what it was not fitted on.
  const Selection tree{"tree", 1, 4};
  EXPECT_NEAR(
      predict(tree, allreduce(3 << 20, 4), fit.model).value() / predict(tree, allreduce(3 << 20, 4), truth).value(), 1,
      0.1);
}

}  // namespace
}  // namespace gradrail

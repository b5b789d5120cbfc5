// Adaptive tuning on times made up: what is measured, where ranges end, and what is said of sizes held out.
#include "bench/measure/tuning.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <set>

#include "bench/measure/regret.h"
#include "collectives/select/candidates.h"

namespace gradrail {
namespace {

const Question k_question{Collective::allreduce, 0, 4, 4, "shm", false};

std::vector<std::int64_t> grid(std::int64_t from, std::int64_t to) {
  std::vector<std::int64_t> sizes;
  for (; from <= to; from *= 4) sizes.push_back(from);
  return sizes;
}

// A machine on which an algorithm takes start + bytes * each microseconds.
class Machine {
 public:
  struct Line {
    double start = 50;
    double each = 0.05;
  };
  std::map<std::string, Line> lines;
  double noise = 0;  // relative, uniform
  std::map<std::int64_t, std::set<std::string>> measured;
  std::map<std::pair<std::int64_t, std::string>, double> efforts;  // of plain algorithms

  MeasureSize measure() {
    return [this](std::int64_t bytes, std::span<const Selection> selections, double effort) {
      std::vector<std::vector<double>> all;
      for (const Selection& selection : selections) {
        measured[bytes].insert(selection.algorithm);
        if (selection.lanes == 1 && selection.pieces == 1) efforts[{bytes, selection.algorithm}] += effort;
        std::vector<double> samples;
        for (int i = 0; i < static_cast<int>(32 * effort); ++i)
          samples.push_back(time(selection, bytes) * (1 + noise * random_(engine_)));
        all.push_back(std::move(samples));
      }
      return Result<std::vector<std::vector<double>>>(std::move(all));
    };
  }
  double time(const Selection& selection, std::int64_t bytes) const {
    const auto found = lines.find(selection.algorithm);
    const Line line = found == lines.end() ? Line{} : found->second;
    // Lanes and pieces are worth nothing here.
    return (line.start + line.each * static_cast<double>(bytes)) * (1 + 0.1 * (selection.lanes + selection.pieces - 2));
  }

 private:
  std::mt19937_64 engine_{7};
  std::uniform_real_distribution<double> random_{-1, 1};
};

// recursive_doubling is the best up to 10,000 bytes, two_shot from there on.
Machine machine_with_a_crossing() {
  Machine machine;
  machine.lines["recursive_doubling"] = {1, 1e-3};
  machine.lines["two_shot"] = {10, 1e-4};
  return machine;
}

Tuned tune(Machine& machine, const std::vector<std::int64_t>& sizes, TuneRules rules = {}) {
  auto tuned = tune_sizes(k_question, sizes, 4, machine.measure(), rules);
  EXPECT_TRUE(tuned);
  return *std::move(tuned);
}

TableSelector table_of(const Tuned& tuned) {
  DecisionTable table;
  table.entries.push_back({Collective::allreduce, "shm", 4, 4, tuned.ranges});
  return {std::move(table), "t", nullptr};
}

TEST(Tuning, FindsTheCrossing) {
  Machine machine = machine_with_a_crossing();
  const Tuned tuned = tune(machine, grid(8, 1 << 25));
  ASSERT_EQ(tuned.ranges.size(), 2u);
  EXPECT_EQ(tuned.ranges[0].selection, (Selection{"recursive_doubling", 1, 1}));
  EXPECT_EQ(tuned.ranges[1].selection, (Selection{"two_shot", 1, 1}));
  EXPECT_NEAR(static_cast<double>(tuned.ranges[0].to_bytes), 10'000, 1'000);
  EXPECT_EQ(tuned.ranges[1].from_bytes, tuned.ranges[0].to_bytes + 1);
  EXPECT_EQ(tuned.ranges[0].from_bytes, 8u);
  EXPECT_EQ(tuned.ranges[1].to_bytes, std::uint64_t{1} << 25);
  EXPECT_EQ(tuned.ranges[0].runner_up, "two_shot");
  EXPECT_GT(tuned.ranges[0].margin, 2);
  EXPECT_GT(tuned.ranges[1].confidence, 0.5);
}

TEST(Tuning, RefinesOffPowersOfTwo) {
  Machine machine = machine_with_a_crossing();
  const Tuned tuned = tune(machine, grid(8, 1 << 25));
  int off = 0;
  for (const TunedSize& size : tuned.sizes) {
    EXPECT_EQ(size.bytes % 4, 0);
    off += (size.bytes & (size.bytes - 1)) != 0;
  }
  EXPECT_GE(off, 2);
}

TEST(Tuning, HopelessAlgorithmsAreNotMeasuredAtLargeSizes) {
  Machine machine;
  machine.lines["two_shot"] = {1, 1e-4};
  machine.lines["one_shot"] = {1, 1e-3};
  const Tuned tuned = tune(machine, grid(8, 1 << 25));
  const auto dropped = std::find_if(tuned.dropped.begin(), tuned.dropped.end(),
                                    [](const Dropped& d) { return d.selection.algorithm == "one_shot"; });
  ASSERT_NE(dropped, tuned.dropped.end());
  EXPECT_GT(dropped->ratio, 3);
  for (const auto& [bytes, algorithms] : machine.measured)
    EXPECT_EQ(algorithms.contains("one_shot"), bytes <= dropped->bytes) << bytes;
  EXPECT_LT(dropped->bytes, 1 << 20);
}

TEST(Tuning, WhatIsSlowForFewBytesIsNotHopeless) {
  Machine machine;
  machine.lines["recursive_doubling"] = {1, 1e-3};
  machine.lines["ring"] = {40, 1e-4};  // 40 times slower at 8 bytes, and at 32; best from 43 KiB on
  const Tuned tuned = tune(machine, grid(8, 1 << 25));
  EXPECT_EQ(tuned.ranges.back().selection.algorithm, "ring");
  for (const Dropped& dropped : tuned.dropped) EXPECT_NE(dropped.selection, (Selection{"ring", 1, 1}));
}

TEST(Tuning, TiesKeepTheSimplerAndNoiseMakesNoRanges) {
  Machine machine;
  machine.noise = 0.1;
  for (const char* name : {"ring", "tree", "recursive_doubling", "halving_doubling", "one_shot", "two_shot"})
    machine.lines[name] = {5, 1e-4};
  const Tuned tuned = tune(machine, grid(8, 1 << 25));
  ASSERT_EQ(tuned.ranges.size(), 1u);
  EXPECT_EQ(tuned.ranges[0].selection, tuned.candidates.front());
}

TEST(Tuning, WhatMayBeTheBestIsMeasuredLongest) {
  Machine machine = machine_with_a_crossing();
  machine.lines["one_shot"] = {10.5, 1e-4};
  machine.lines["ring"] = {50, 1e-4};
  (void)tune(machine, grid(8, 1 << 25));
  EXPECT_GT((machine.efforts[{1 << 15, "two_shot"}]), 2 * (machine.efforts[{1 << 15, "ring"}]));
  EXPECT_GT((machine.efforts[{1 << 15, "one_shot"}]), 2 * (machine.efforts[{1 << 15, "ring"}]));
  EXPECT_GT((machine.efforts[{1 << 15, "ring"}]), 0);
}

TEST(Tuning, SmallLossesAtManySizesAddUp) {
  Machine machine;
  machine.noise = 0.02;
  machine.lines["ring"] = {10.6, 1.06e-4};  // the first candidate, and 6 % slower everywhere
  machine.lines["two_shot"] = {10, 1e-4};
  const Tuned tuned = tune(machine, grid(8, 1 << 25));
  ASSERT_EQ(tuned.ranges.size(), 1u);
  EXPECT_EQ(tuned.ranges[0].selection.algorithm, "two_shot");
}

TEST(Tuning, OneLuckyBlockMakesNoRange) {
  Machine machine;
  machine.lines["two_shot"] = {10, 1e-4};
  machine.lines["one_shot"] = {11, 1.1e-4};
  const MeasureSize honest = machine.measure();
  std::map<std::int64_t, int> blocks;
  const MeasureSize lucky = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    auto samples = honest(bytes, selections, effort);
    // At 2 KiB, one_shot is ahead by a quarter in the first three blocks.
    if (bytes == 2048 && blocks[bytes]++ < 3)
      for (std::size_t i = 0; i < selections.size(); ++i)
        if (selections[i].algorithm == "one_shot")
          for (double& sample : (*samples)[i]) sample *= 0.7;
    return samples;
  };
  const auto tuned = tune_sizes(k_question, grid(8, 1 << 17), 4, lucky, {});
  ASSERT_TRUE(tuned);
  EXPECT_EQ(tuned->ranges.size(), 1u);
  EXPECT_GT(blocks[2048], 3);
}

TEST(Tuning, TheRivalsOfACrossingAreMeasuredAgainThoughADisturbedBlockSpokeAgainstOne) {
  Machine machine = machine_with_a_crossing();
  for (const char* name : {"one_shot", "tree", "ring", "halving_doubling"}) machine.lines[name] = {11, 1e-4};
  const auto sizes = grid(8, 1 << 25);
  std::set<std::int64_t> begun;
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    auto samples = machine.measure()(bytes, selections, effort);
    const bool between = std::find(sizes.begin(), sizes.end(), bytes) == sizes.end();
    if (between && begun.insert(bytes).second)
      for (std::size_t i = 0; i < selections.size(); ++i)
        if (selections[i].algorithm == "recursive_doubling")
          for (double& sample : (*samples)[i]) sample *= 1.5;
    return samples;
  };
  const auto tuned = tune_sizes(k_question, sizes, 4, measure, {});
  ASSERT_TRUE(tuned);
  ASSERT_GT(begun.size(), 0u);
  ASSERT_GE(tuned->ranges.size(), 2u);
  EXPECT_NEAR(static_cast<double>(tuned->ranges[0].to_bytes), 10'000, 1'500);
}

TEST(Tuning, OutOfTimeMeasuresFinalistsOnly) {
  Machine machine = machine_with_a_crossing();
  TuneRules rules;
  int asked = 0;
  rules.out_of_time = [&] { return ++asked > 2; };
  const Tuned tuned = tune(machine, grid(8, 1 << 25), rules);
  EXPECT_TRUE(tuned.hurried);
  EXPECT_EQ(tuned.sizes.size(), grid(8, 1 << 25).size()) << "no bisection";
  EXPECT_LE(machine.measured.at(1 << 21).size(), 3u);
  EXPECT_FALSE(tuned.ranges.empty());
}

TEST(Tuning, ASizeBetweenAtWhichThereWasTimeForOneOnlySaysNothing) {
  Machine machine = machine_with_a_crossing();
  const auto sizes = grid(8, 1 << 25);
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    auto samples = machine.measure()(bytes, selections, effort);
    if (std::find(sizes.begin(), sizes.end(), bytes) == sizes.end())
      for (std::size_t i = 0; i < selections.size(); ++i)
        if (selections[i].algorithm != "two_shot") (*samples)[i].clear();
    return samples;
  };
  const auto tuned = tune_sizes(k_question, sizes, 4, measure, {});
  ASSERT_TRUE(tuned);
  EXPECT_EQ(tuned->sizes.size(), sizes.size());
  ASSERT_EQ(tuned->ranges.size(), 2u);
  EXPECT_GT(tuned->ranges[0].to_bytes, 8192u) << "where recursive_doubling is the faster";
}

TEST(Tuning, NothingMeasurableIsNoRange) {
  const MeasureSize nothing = [](std::int64_t, std::span<const Selection> selections, double) {
    return Result<std::vector<std::vector<double>>>(std::vector<std::vector<double>>(selections.size()));
  };
  const auto tuned = tune_sizes(k_question, grid(8, 1 << 15), 4, nothing, {});
  ASSERT_TRUE(tuned);
  EXPECT_TRUE(tuned->ranges.empty());
}

TEST(Tuning, FailureToMeasureIsPassedOn) {
  const MeasureSize broken = [](std::int64_t, std::span<const Selection>,
                                double) -> Result<std::vector<std::vector<double>>> {
    return fail(Code::peer_gone, "rank 1 is gone", 1);
  };
  const auto tuned = tune_sizes(k_question, grid(8, 1 << 15), 4, broken, {});
  ASSERT_FALSE(tuned);
  EXPECT_EQ(tuned.error().peer, 1);
}

class Always : public Selector {
 public:
  explicit Always(Selection selection) : selection_(std::move(selection)) {}
  [[nodiscard]] Selection choose(const Question&) const override { return selection_; }
  [[nodiscard]] std::string describe() const override { return "always"; }

 private:
  Selection selection_;
};

TEST(Regret, OfTheTableTheModelAndTheBestFixed) {
  Machine machine = machine_with_a_crossing();
  machine.lines["tree"] = {30, 3e-4};
  const auto sizes = grid(8, 1 << 25);
  const Tuned tuned = tune(machine, sizes);
  const auto held_out = held_out_sizes(sizes, 4, tuned);
  ASSERT_GE(held_out.size(), 8u);
  for (const std::int64_t bytes : held_out) {
    EXPECT_NE(bytes & (bytes - 1), 0) << bytes;
    for (const TunedSize& size : tuned.sizes) EXPECT_NE(size.bytes, bytes);
  }
  const TableSelector by_table = table_of(tuned);
  const Always model({"tree", 1, 1});
  const auto regret = measure_regret(k_question, tuned, held_out, by_table, model, machine.measure(), {});
  ASSERT_TRUE(regret);
  EXPECT_EQ(regret->sizes.size(), held_out.size());
  EXPECT_LT(regret->table.worst, 1.05);
  EXPECT_GE(regret->table.mean, 1);
  EXPECT_GT(regret->model.mean, 2.5);
  EXPECT_GT(regret->model.worst, 10);
  EXPECT_EQ(regret->fixed, (Selection{"two_shot", 1, 1}));
  EXPECT_GT(regret->fixed_spread.mean, 1.5);
  EXPECT_GT(regret->fixed_spread.worst, 8);
}

TEST(Regret, SizesJudgedInAnotherPhaseAreToldApart) {
  Machine machine = machine_with_a_crossing();
  TuneRules rules;
  std::string phase = "near";
  rules.phase = [&] { return phase; };
  const auto sizes = grid(8, 1 << 25);
  const Tuned tuned = tune(machine, sizes, rules);
  const TableSelector selector = table_of(tuned);
  // Halfway, the machine becomes one on which two_shot takes five times as long.
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    const bool far = bytes > 1 << 20;
    phase = far ? "far" : "near";
    machine.lines["two_shot"] = far ? Machine::Line{50, 5e-4} : Machine::Line{10, 1e-4};
    machine.lines["tree"] = far ? Machine::Line{10, 1e-4} : Machine::Line{};
    return machine.measure()(bytes, selections, effort);
  };
  const auto regret =
      measure_regret(k_question, tuned, held_out_sizes(sizes, 4, tuned), selector, selector, measure, rules);
  ASSERT_TRUE(regret);
  EXPECT_LT(regret->table_same_phase.worst, 1.05);
  for (const HeldOutSize& row : regret->sizes) EXPECT_EQ(row.same_phase, row.bytes <= 1 << 20) << row.bytes;
}

TEST(Tuning, SizesMeasuredInAnotherPhaseAreMeasuredAgain) {
  Machine machine = machine_with_a_crossing();
  TuneRules rules;
  std::string phase = "near";
  rules.phase = rules.phase_now = [&] { return phase; };
  int blocks = 0;
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    if (++blocks == 10) {
      phase = "far";
      machine.lines["recursive_doubling"] = {1, 1e-2};  // crosses two_shot at 900 bytes now
    }
    return machine.measure()(bytes, selections, effort);
  };
  auto tuned = tune_sizes(k_question, grid(8, 1 << 25), 4, measure, rules);
  ASSERT_TRUE(tuned);
  ASSERT_TRUE(fit_again(*tuned, measure, rules));
  for (const TunedSize& size : tuned->sizes) EXPECT_EQ(size.phase, "far") << size.bytes;
  ASSERT_EQ(tuned->ranges.size(), 2u);
  EXPECT_NEAR(static_cast<double>(tuned->ranges[0].to_bytes), 900, 500);
}

TEST(Tuning, OnlyWhatWasMeasuredAgainIsSaidToBe) {
  for (const bool there_is_time : {true, false}) {
    Machine machine = machine_with_a_crossing();
    TuneRules rules;
    std::string phase = "near";
    std::string said;
    rules.phase = rules.phase_now = [&] { return phase; };
    rules.say = [&](const std::string& what) { said += what; };
    const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
      if (phase == "far" && !there_is_time) return Result<SelectionSamples>(SelectionSamples(selections.size()));
      if (bytes == 1 << 25) phase = "far";
      return machine.measure()(bytes, selections, effort);
    };
    auto tuned = tune_sizes(k_question, std::vector<std::int64_t>{1 << 23, 1 << 25}, 4, measure, rules);
    ASSERT_TRUE(tuned);
    ASSERT_TRUE(fit_again(*tuned, measure, rules));
    EXPECT_EQ(said.find("8 MiB had been measured in another phase of the machine, and was measured again") !=
                  std::string::npos,
              there_is_time)
        << said;
  }
}

TEST(Regret, SizesJudgedInAnotherPhaseAreJudgedAgain) {
  Machine machine = machine_with_a_crossing();
  TuneRules rules;
  std::string phase = "near";
  rules.phase = [&] { return phase; };
  const auto sizes = grid(8, 1 << 25);
  const Tuned tuned = tune(machine, sizes, rules);
  const TableSelector selector = table_of(tuned);
  int blocks = 0;
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    const bool far = ++blocks <= 5;
    phase = far ? "far" : "near";
    machine.lines["two_shot"] = far ? Machine::Line{50, 5e-4} : Machine::Line{10, 1e-4};
    return machine.measure()(bytes, selections, effort);
  };
  const auto held_out = held_out_sizes(sizes, 4, tuned);
  const auto regret = measure_regret(k_question, tuned, held_out, selector, selector, measure, rules);
  ASSERT_TRUE(regret);
  ASSERT_EQ(regret->sizes.size(), held_out.size());
  for (std::size_t i = 0; i < held_out.size(); ++i) {
    EXPECT_TRUE(regret->sizes[i].same_phase);
    EXPECT_EQ(regret->sizes[i].bytes, held_out[i]);
  }
  EXPECT_LT(regret->table.worst, 1.05);
}

TEST(Regret, ThePhaseOfFittingIsWaitedFor) {
  Machine machine;
  machine.lines["recursive_doubling"] = {1, 1e-3};
  machine.lines["two_shot"] = {10, 1e-4};
  TuneRules rules;
  std::string phase = "near";
  rules.phase = [&] { return phase; };
  const auto sizes = grid(8, 1 << 25);
  const Tuned tuned = tune(machine, sizes, rules);
  DecisionTable table;
  table.entries.push_back({Collective::allreduce, "shm", 4, 4, tuned.ranges});
  const TableSelector selector(table, "t", nullptr);
  const auto held_out = held_out_sizes(sizes, 4, tuned);
  std::size_t blocks = 0;
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    ++blocks;
    return machine.measure()(bytes, selections, effort);
  };
  const auto judged = [&](bool comes) {
    phase = "far";
    blocks = 0;
    rules.await_phase = [&, comes](const std::string& wanted) {
      EXPECT_EQ(wanted, "near");
      if (comes) phase = wanted;
      return Result<bool>(comes);
    };
    return measure_regret(k_question, tuned, held_out, selector, selector, measure, rules).value();
  };
  for (const HeldOutSize& row : judged(true).sizes) EXPECT_TRUE(row.same_phase) << row.bytes;
  const std::size_t once = blocks;
  for (const HeldOutSize& row : judged(false).sizes) EXPECT_FALSE(row.same_phase) << row.bytes;
  EXPECT_EQ(blocks, once) << "judged again though the phase had not come";
}

TEST(Regret, TheTableIsFittedAgainWhereThePhaseDoesNotComeBack) {
  Machine machine = machine_with_a_crossing();
  machine.lines["tree"] = {10, 1.3e-4};
  TuneRules rules;
  std::string phase = "near";
  rules.phase = rules.phase_now = [&] { return phase; };
  rules.await_phase = [&](const std::string& wanted) { return Result<bool>(phase == wanted); };
  const auto sizes = grid(8, 1 << 25);
  Tuned tuned = tune(machine, sizes, rules);
  // After a few sizes were judged two_shot becomes slow, and tree the best of long messages in its place.
  const auto held_out = held_out_sizes(sizes, 4, tuned);
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    if (bytes == held_out[4]) {
      phase = "far";
      machine.lines["two_shot"] = {50, 1.5e-4};
      machine.lines["tree"] = {10, 1e-4};
    }
    return machine.measure()(bytes, selections, effort);
  };
  class Changing : public Selector {
   public:
    explicit Changing(const Tuned& tuned) : tuned_(tuned) {}
    [[nodiscard]] Selection choose(const Question& question) const override {
      return table_of(tuned_).choose(question);
    }
    [[nodiscard]] std::string describe() const override { return "changing"; }

   private:
    const Tuned& tuned_;
  } table(tuned);
  int times = 0;
  const FitAgain again = [&]() -> Result<bool> {
    ++times;
    GRADRAIL_TRY(fit_again(tuned, measure, rules));
    return true;
  };
  const auto regret = measure_regret(k_question, tuned, held_out, table, table, measure, rules, again);
  ASSERT_TRUE(regret);
  EXPECT_EQ(times, 1);
  ASSERT_EQ(regret->sizes.size(), held_out.size());
  for (const HeldOutSize& row : regret->sizes) EXPECT_TRUE(row.same_phase) << row.bytes;
  EXPECT_LT(regret->table.worst, 1.05);
  EXPECT_EQ(tuned.ranges.back().selection.algorithm, "tree");
}

TEST(Regret, WhatWasJudgedByAnotherTableDoesNotCount) {
  Machine machine = machine_with_a_crossing();
  TuneRules rules;
  std::string phase = "near";
  rules.phase = rules.phase_now = [&] { return phase; };
  const auto sizes = grid(8, 1 << 25);
  Tuned tuned = tune(machine, sizes, rules);
  bool over = false;
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> selections, double effort) {
    if (over) return Result<SelectionSamples>(SelectionSamples(selections.size()));
    return machine.measure()(bytes, selections, effort);
  };
  Selection answer{"two_shot", 1, 1};
  class Answer : public Selector {
   public:
    explicit Answer(const Selection& answer) : answer_(answer) {}
    [[nodiscard]] Selection choose(const Question&) const override { return answer_; }
    [[nodiscard]] std::string describe() const override { return "answer"; }

   private:
    const Selection& answer_;
  } table(answer);
  rules.await_phase = [&](const std::string&) {
    phase = "far";
    return Result<bool>(true);
  };
  const FitAgain again = [&]() -> Result<bool> {
    answer = {"tree", 1, 1};
    over = true;
    return false;
  };
  const auto regret =
      measure_regret(k_question, tuned, held_out_sizes(sizes, 4, tuned), table, table, measure, rules, again);
  ASSERT_TRUE(regret);
  EXPECT_TRUE(regret->sizes.empty());
}

TEST(Regret, NoiseAloneIsNotRegret) {
  Machine machine;
  machine.noise = 0.3;
  for (const char* name : {"ring", "tree", "recursive_doubling", "halving_doubling", "one_shot", "two_shot"})
    machine.lines[name] = {5, 1e-4};
  const auto sizes = grid(8, 1 << 13);  // too small for pieces
  const Tuned tuned = tune(machine, sizes);
  const TableSelector selector = table_of(tuned);
  const auto held_out = held_out_sizes(sizes, 4, tuned);
  const auto regret = measure_regret(k_question, tuned, held_out, selector, selector, machine.measure(), {});
  ASSERT_TRUE(regret);
  EXPECT_NEAR(regret->table.mean, 1, 0.1);
}

}  // namespace
}  // namespace gradrail

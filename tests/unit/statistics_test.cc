#include "bench/measure/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

namespace gradrail {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<double> normal(std::size_t n, double mean, double deviation, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(mean, deviation);
  std::vector<double> out(n);
  for (double& value : out) value = draw(random);
  return out;
}

Timing timing_of(std::size_t n, double mean, double deviation, unsigned seed) {
  return summarise(normal(n, mean, deviation, seed));
}

TEST(Statistics, QuantilesInterpolateAsInRAndNumPy) {
  const std::vector<double> sorted = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(quantile(sorted, 0), 1);
  EXPECT_DOUBLE_EQ(quantile(sorted, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile(sorted, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(quantile(sorted, 0.95), 3.85);
  EXPECT_DOUBLE_EQ(quantile(sorted, 1), 4);
  EXPECT_DOUBLE_EQ(quantile(std::vector<double>{7}, 0.99), 7);
}

TEST(Statistics, TheMedianNeedsNoOrder) {
  EXPECT_DOUBLE_EQ(median(std::vector<double>{9, 1, 5}), 5);
  EXPECT_DOUBLE_EQ(median(std::vector<double>{9, 1, 5, 7}), 6);
}

TEST(Statistics, VariationIsRelativeToTheMean) {
  EXPECT_DOUBLE_EQ(coefficient_of_variation(std::vector<double>{2, 4, 4, 4, 5, 5, 7, 9}), std::sqrt(32.0 / 7) / 5);
  EXPECT_DOUBLE_EQ(coefficient_of_variation(std::vector<double>{3}), 0);
  EXPECT_DOUBLE_EQ(coefficient_of_variation(std::vector<double>{3, 3, 3}), 0);
}

TEST(Statistics, ASummaryHoldsEverythingARecordSays) {
  std::vector<double> samples(101);
  std::iota(samples.rbegin(), samples.rend(), 100.0);  // 200 down to 100
  const Timing timing = summarise(samples, 8);
  EXPECT_DOUBLE_EQ(timing.median, 150);
  EXPECT_DOUBLE_EQ(timing.p95, 195);
  EXPECT_DOUBLE_EQ(timing.p99, 199);
  EXPECT_DOUBLE_EQ(timing.min, 100);
  EXPECT_DOUBLE_EQ(timing.max, 200);
  EXPECT_NEAR(timing.cv, 29.3 / 150, 1e-3);
  EXPECT_EQ(timing.n, 101);
  EXPECT_EQ(timing.batch, 8);
  EXPECT_LT(timing.ci[0], timing.median);
  EXPECT_GT(timing.ci[1], timing.median);
}

TEST(Statistics, TheSameSamplesGiveTheSameIntervalInAnyOrder) {
  auto samples = normal(50, 10, 1, 1);
  const Timing first = summarise(samples);
  std::reverse(samples.begin(), samples.end());
  EXPECT_EQ(summarise(samples).ci, first.ci);
}

// What "95 %" promises, kept by both methods: the bootstrap (below 1000 samples) and the order statistics (above).
TEST(Statistics, IntervalsHoldTheTrueMedianAboutAsOftenAsTheySay) {
  for (const std::size_t n : {20, 101, 2000}) {
    int held = 0;
    constexpr int k_trials = 300;
    for (unsigned trial = 0; trial < k_trials; ++trial) {
      const Timing timing = timing_of(n, 10, 1, 1000 + trial);
      held += timing.ci[0] <= 10 && 10 <= timing.ci[1];
    }
    EXPECT_GE(held, k_trials * 91 / 100) << n << " samples";
    EXPECT_LE(held, k_trials * 99 / 100) << n << " samples";
  }
}

TEST(Statistics, MoreSamplesNarrowTheIntervalAndTheTwoMethodsMeet) {
  const auto width = [](std::size_t n) {
    const Timing timing = timing_of(n, 10, 1, 3);
    return timing.ci[1] - timing.ci[0];
  };
  EXPECT_LT(width(1000), width(50));
  EXPECT_LT(width(10000), width(1000));
  // 2 x 1.96 x 1.2533 sigma / sqrt(n), the width for normal samples.
  EXPECT_NEAR(width(1000), 0.155, 0.05);
  EXPECT_NEAR(width(1001), 0.155, 0.05);
}

TEST(Statistics, AFewSamplesGiveTheirRangeAndNeverPart) {
  const Timing fast = summarise(std::vector<double>{1, 1.1, 1.2});
  const Timing slow = summarise(std::vector<double>{9, 9.1, 9.2});
  EXPECT_THAT(fast.ci, ElementsAre(1, 1.2));
  EXPECT_FALSE(parted(fast, slow)) << "three samples promise nothing";
  const Timing one = summarise(std::vector<double>{4});
  EXPECT_THAT(one.ci, ElementsAre(4, 4));
  EXPECT_FALSE(parted(one, slow));
}

TEST(Statistics, IntervalsThatDoNotTouchPart) {
  EXPECT_TRUE(parted(timing_of(30, 10, 1, 1), timing_of(30, 20, 1, 2)));
  EXPECT_TRUE(parted(timing_of(30, 20, 1, 1), timing_of(30, 10, 1, 2)));
  EXPECT_FALSE(parted(timing_of(30, 10, 1, 1), timing_of(30, 10.1, 1, 2)));
  Timing a, b;
  a.n = b.n = 30;
  a.ci = {1, 2};
  b.ci = {2, 3};
  EXPECT_FALSE(parted(a, b)) << "touching is not parted";
}

TEST(Statistics, ARatioComesWithItsInterval) {
  const Ratio ratio = ratio_of_medians(normal(200, 20, 1, 1), normal(300, 10, 1, 2));
  EXPECT_NEAR(ratio.value, 2, 0.05);
  EXPECT_LT(ratio.interval.low, 2);
  EXPECT_GT(ratio.interval.high, 2);
  EXPECT_GT(ratio.interval.low, 1.9);
  EXPECT_LT(ratio.interval.high, 2.1);
}

// Reference: scipy.stats.mannwhitneyu(method="asymptotic"), the example of its documentation.
TEST(Statistics, MannWhitneyAgreesWithThePublishedExample) {
  const std::vector<double> males = {19, 22, 16, 29, 24};
  const std::vector<double> females = {20, 11, 17, 12};
  EXPECT_NEAR(mann_whitney_p(males, females), 0.11134688653314041, 1e-12);
  EXPECT_NEAR(mann_whitney_p(females, males), 0.11134688653314041, 1e-12);
}

TEST(Statistics, MannWhitneyHandlesTiesAndNothing) {
  const std::vector<double> same(20, 5.0);
  EXPECT_DOUBLE_EQ(mann_whitney_p(same, same), 1);
  EXPECT_DOUBLE_EQ(mann_whitney_p(same, {}), 1);
  EXPECT_LT(mann_whitney_p(normal(50, 10, 1, 1), normal(50, 12, 1, 2)), 1e-6);
  EXPECT_GT(mann_whitney_p(normal(50, 10, 1, 1), normal(50, 10, 1, 2)), 0.05);
  // Half the values tied. By hand: ranks of a are 2, 2, 4.5; U = 2.5, variance = 9/12 (7 - 30/30) = 4.5, z
  // = 1.5/sqrt(4.5).
  EXPECT_NEAR(mann_whitney_p(std::vector<double>{1, 1, 2}, std::vector<double>{1, 2, 3}), std::erfc(1.5 / 3), 1e-12);
}

TEST(Statistics, AnIterationTakesAsLongAsItsSlowestRank) {
  const std::vector<std::vector<double>> by_rank = {{1, 5, 3}, {2, 4, 9}, {0, 6, 1, 7}};
  EXPECT_THAT(slowest_rank(by_rank), ElementsAre(2, 6, 9)) << "the fourth iteration is one rank's alone";
  EXPECT_THAT(slowest_rank({}), IsEmpty());
}

}  // namespace
}  // namespace gradrail

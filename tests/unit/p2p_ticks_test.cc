#include "bench/measure/p2p_ticks.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>

namespace gradrail {
namespace {

TEST(Ticks, RoundsAreToldAsTheClockSeesThem) {
  const auto begin = Clock::now();
  Ticks ticks(3);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  ticks.mark();
  ticks.mark();
  const auto rounds = ticks.rounds_us(1);
  const double all_us = Seconds(Clock::now() - begin).count() * 1e6;
  ASSERT_EQ(rounds.size(), 2U) << "one of three was not run";
  EXPECT_GT(rounds[0], rounds[1]);
  EXPECT_GE(rounds[1], 0);
  EXPECT_GE(rounds[0], 19'000) << "the sleep";
  EXPECT_LE(rounds[0] + rounds[1], 1.01 * all_us);
}

TEST(Ticks, AFactorAppliesToEach) {
  Ticks ticks(1);
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ticks.mark();
  const auto halves = ticks.rounds_us(0.5);
  ASSERT_EQ(halves.size(), 1U);
  EXPECT_GE(halves[0], 950);
  EXPECT_TRUE(Ticks(0).rounds_us(0.5).empty());
}

}  // namespace
}  // namespace gradrail

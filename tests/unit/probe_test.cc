// The probes: that they run, clean up and say what they cannot do; and the rule that tells phases apart. How fast the
// machine is, no test asks.
#include "bench/measure/probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cmath>

#include "transports/base/cores.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

constexpr Seconds k_short{0.002};

TEST(Probe, UsableCpusAreThoseOfTheAffinityMask) {
  const auto cpus = usable_cores();
  ASSERT_FALSE(cpus.empty());
  EXPECT_TRUE(std::is_sorted(cpus.begin(), cpus.end()));
  cpu_set_t before;
  ASSERT_EQ(::sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_EQ(static_cast<int>(cpus.size()), CPU_COUNT(&before));

  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<std::size_t>(cpus.back()), &one);
  ASSERT_EQ(::sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cores(), std::vector<int>{cpus.back()});
  move_to_core(cpus.back());
  EXPECT_EQ(usable_cores(), std::vector<int>{cpus.back()});
  ASSERT_EQ(::sched_setaffinity(0, sizeof before, &before), 0);
  move_to_core(cpus.back());
  EXPECT_EQ(usable_cores(), cpus) << "it may leave the core again";
}

TEST(Probe, LatencyNeedsTwoCpus) {
  const auto same = core_to_core_ns(0, 0, k_short);
  ASSERT_FALSE(same);
  EXPECT_EQ(same.error().code, Code::unavailable);
  EXPECT_THAT(same.error().message, HasSubstr("two CPUs"));
}

TEST(Probe, LatencyRefusesACpuThatIsNotThere) {
  const auto absent = core_to_core_ns(usable_cores().front(), 100000, k_short);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Code::unavailable);
  EXPECT_THAT(absent.error().message, HasSubstr("CPU 100000"));
  EXPECT_FALSE(core_to_core_ns(-1, 0, k_short));
}

TEST(Probe, LatencyIsMeasuredInBothDirections) {
  const auto cpus = usable_cores();
  if (cpus.size() < 2) GTEST_SKIP() << "this process may run on one CPU only";
  for (const auto& [from, to] : {std::pair(cpus.front(), cpus.back()), std::pair(cpus.back(), cpus.front())}) {
    const auto ns = core_to_core_ns(from, to, k_short);
    ASSERT_TRUE(ns) << ns.error().message;
    EXPECT_GT(*ns, 0);
    EXPECT_TRUE(std::isfinite(*ns));
  }
}

TEST(Probe, LeavesTheCallersAffinityAlone) {
  const auto before = usable_cores();
  auto probe = Probe::create({{}, 4 << 20, k_short, k_short});
  ASSERT_TRUE(probe) << probe.error().message;
  const Phase phase = probe->phase();
  EXPECT_GT(phase.memory_gbs, 0);
  EXPECT_EQ(phase.core_to_core_ns > 0, before.size() > 1);
  EXPECT_EQ(usable_cores(), before);
}

TEST(Probe, OneCpuHasNoLatencyButABandwidth) {
  auto probe = Probe::create({{usable_cores().front()}, 1, k_short, k_short});
  ASSERT_TRUE(probe);
  const Phase phase = probe->phase();
  EXPECT_EQ(phase.core_to_core_ns, 0);
  EXPECT_GT(phase.memory_gbs, 0);
}

TEST(Probe, AnyNumberOfThreads) {
  auto probe = Probe::create({{}, 3 << 20, k_short, k_short});
  ASSERT_TRUE(probe);
  Probe moved = *std::move(probe);
  for (const int threads : {1, 2, 3, 17}) {
    EXPECT_GT(moved.copy_gbs(threads, k_short), 0);
    EXPECT_GT(moved.add_gbs(threads, k_short), 0);
  }
}

TEST(Probe, BuffersThatDoNotFitAreRefused) {
  const auto probe = Probe::create({{}, std::size_t{1} << 60, k_short, k_short});
  ASSERT_FALSE(probe);
  EXPECT_EQ(probe.error().code, Code::exhausted);
}

TEST(Probe, CacheBandwidthOfAnySize) {
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1000}, std::size_t{1} << 20}) {
    const CacheBandwidth rate = cache_bandwidth(bytes, k_short);
    EXPECT_GT(rate.copy_gbs, 0);
    EXPECT_GT(rate.add_gbs, 0);
    EXPECT_EQ(rate.bytes % 128, 0u);
  }
}

// The figures of shared machines in practice: near placements, far placements, and noise within each.
TEST(Phase, NearAndFarDifferAndNoiseDoesNot) {
  const Phase near{55, 70}, near_noisy{65, 50}, far{250, 140}, far_noisy{330, 110};
  EXPECT_TRUE(same_phase(near, near_noisy));
  EXPECT_TRUE(same_phase(far, far_noisy));
  EXPECT_FALSE(same_phase(near, far));
  EXPECT_FALSE(same_phase(near_noisy, far_noisy));
  EXPECT_FALSE(same_phase({60, 70}, {60, 140})) << "bandwidth alone tells phases apart as well";
  EXPECT_TRUE(same_phase(far, far));
}

TEST(Phase, AFigureThatIsMissingOnOneSideDiffers) {
  EXPECT_TRUE(same_phase({0, 70}, {0, 60}));
  EXPECT_FALSE(same_phase({0, 70}, {60, 70}));
  EXPECT_FALSE(same_phase({60, 0}, {60, 70}));
  EXPECT_TRUE(same_phase({}, {}));
}

TEST(Phase, NamesAreRoundedFigures) {
  PhaseNames names;
  EXPECT_EQ(names.name({58, 70}), "64ns-64GB/s");
  EXPECT_EQ(names.name({290, 130}), "256ns-128GB/s");
  EXPECT_EQ(names.name({0, 17}), "16GB/s");
  EXPECT_EQ(names.name({3'959'820, 0.5}), "4194304ns-0.5GB/s");  // ranks that waited for a core
  EXPECT_EQ(names.name({}), "unknown");
}

TEST(Phase, OnePhaseKeepsItsNameAcrossARoundingBorder) {
  PhaseNames names;
  const std::string name = names.name({89, 70});  // the border is at 90.5
  EXPECT_EQ(name, "64ns-64GB/s");
  EXPECT_EQ(names.name({92, 70}), name);
  EXPECT_EQ(PhaseNames().name({92, 70}), "128ns-64GB/s");
}

TEST(Phase, TwoPhasesNeverShareAName) {
  PhaseNames names;
  EXPECT_EQ(names.name({64, 46}), "64ns-64GB/s");
  EXPECT_EQ(names.name({64, 90}), "64ns-64GB/s#2");
  EXPECT_EQ(names.name({64, 46}), "64ns-64GB/s");
  EXPECT_EQ(names.name({64, 88}), "64ns-64GB/s#2");
}

}  // namespace
}  // namespace gradrail

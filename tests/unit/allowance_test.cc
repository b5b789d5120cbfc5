// The division of a time among what is to be measured in it, by a clock that moves as told.
#include "bench/measure/allowance.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "bench/measure/tuning.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr std::int64_t k_mib = 1 << 20;

std::vector<Selection> selections(int count) {
  std::vector<Selection> all;
  for (int i = 0; i < count; ++i) all.push_back({fmt::format("a{}", i), 1, 1});
  return all;
}

// A link on which an operation of selection i takes (1 + i / 4) * `a_mib` seconds for each MiB; blocks take as long as
// their operations do, and rank 0's clock with them.
class SlowLink {
 public:
  double now = 0;
  double a_mib = 0.01;
  double surprise = 1;  // what the operations take, over what was expected
  double longest = 0;   // one trial: check, warm-up and fewest samples

  [[nodiscard]] double operation(const Selection& selection, std::int64_t bytes) const {
    const int i = std::stoi(selection.algorithm.substr(1));
    return (1 + i / 4.0) * a_mib * static_cast<double>(bytes) / k_mib;
  }
  Allowance allowance() {
    return Allowance([this] { return now; },
                     [this](const Selection& selection, std::int64_t bytes) { return operation(selection, bytes); });
  }
  [[nodiscard]] std::vector<Allowance::Part> parts(const std::vector<std::int64_t>& sizes) const {
    std::vector<Allowance::Part> parts;
    for (const std::int64_t bytes : sizes) parts.push_back({bytes, a_mib * static_cast<double>(bytes) / k_mib});
    return parts;
  }
  // Plans and runs a block as block.h does: nothing more is prepared once the limit is near. How many were measured.
  std::size_t run(Allowance& allowance, std::int64_t bytes, const std::vector<Selection>& all, double each = 0.01) {
    const auto plan = allowance.plan(bytes, all, each);
    const double begin = now;
    std::vector<Selection> done;
    SelectionSamples samples;
    for (const std::size_t i : plan.which) {
      if (!done.empty() && plan.most_time > 0 && now - begin > 0.4 * plan.most_time) break;
      const double once = surprise * operation(all[i], bytes);
      const int beside = 1 + std::min(5, plan.pace.most_warmup) + plan.pace.estimates;
      now += beside * once;
      longest = std::max(longest, (beside + plan.pace.fewest_samples) * once);
      done.push_back(all[i]);
      samples.push_back({once * 1e6});
    }
    std::vector<int> wanted;
    std::vector<double> sample_us;
    for (const auto& sample : samples) {
      wanted.push_back(std::max(plan.pace.fewest_samples, static_cast<int>(plan.time_per_point / sample[0] * 1e6)));
      sample_us.push_back(sample[0] * (plan.pace.refresh ? 2 : 1));
    }
    if (plan.most_time > 0) fit_samples(wanted, sample_us, (plan.most_time - (now - begin)) * 1e6);
    for (std::size_t i = 0; i < wanted.size(); ++i) now += wanted[i] * sample_us[i] * 1e-6;
    allowance.learn(bytes, done, samples);
    allowance.took(now - begin);
    return done.size();
  }
};

TEST(Allowance, WhatFitsIsMeasuredWithAllCare) {
  SlowLink link;
  link.a_mib = 1e-5;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 100, link.parts({k_mib, 4 * k_mib}));
  const auto plan = allowance.plan(k_mib, selections(20), 0.02);
  EXPECT_THAT(plan.which, SizeIs(20));
  EXPECT_EQ(plan.pace.fewest_samples, k_thorough.fewest_samples);
  EXPECT_EQ(plan.time_per_point, 0.02);
  EXPECT_EQ(plan.most_time, 0) << "no need to watch it";
  EXPECT_THAT(allowance.left_out(), IsEmpty());
}

TEST(Allowance, CareGoesBeforeCandidates) {
  SlowLink link;
  link.a_mib = 0.02;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 10, link.parts({k_mib}));
  const auto plan = allowance.plan(k_mib, selections(12), 0.02);
  EXPECT_THAT(plan.which, SizeIs(12));
  EXPECT_LT(plan.pace.fewest_samples, k_thorough.fewest_samples);
  EXPECT_GT(plan.most_time, 0);
}

TEST(Allowance, TheSlowestAreLeftOutFirst) {
  SlowLink link;
  link.a_mib = 0.1;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 4, link.parts({k_mib}));
  auto all = selections(12);
  std::reverse(all.begin(), all.end());
  const auto plan = allowance.plan(k_mib, all, 0.02);
  ASSERT_FALSE(plan.which.empty());
  ASSERT_LT(plan.which.size(), all.size());
  for (std::size_t i = 0; i < plan.which.size(); ++i) EXPECT_EQ(all[plan.which[i]], selections(12)[i]);
  EXPECT_THAT(allowance.left_out(), HasSubstr(fmt::format("fitting ({} of 12 at 1 MiB", 12 - plan.which.size())));
}

TEST(Allowance, WhatIsKeptComesFirst) {
  SlowLink link;
  link.a_mib = 0.1;
  Allowance allowance = link.allowance();
  allowance.begin("codecs", 4, link.parts({k_mib}));
  const auto all = selections(12);
  const auto plan = allowance.plan(k_mib, all, 0.02, std::span(all).last(1));
  ASSERT_FALSE(plan.which.empty());
  EXPECT_EQ(plan.which.front(), 11u);
}

TEST(Allowance, MeasuringAgainIsAllOrNothing) {
  SlowLink link;
  link.a_mib = 0.1;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 3, link.parts({k_mib}));
  const auto all = selections(2);
  ASSERT_EQ(link.run(allowance, k_mib, all), 2u);
  EXPECT_THAT(allowance.plan(k_mib, all, 0.02).which, IsEmpty());
  EXPECT_THAT(allowance.left_out(), HasSubstr("1 block again"));
}

TEST(Allowance, AShortBlockAgainIsWorthMoreThanItsPart) {
  SlowLink link;
  link.a_mib = 1e-4;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 10, link.parts({k_mib, 4 * k_mib, 16 * k_mib}));
  const auto all = selections(2);
  ASSERT_EQ(link.run(allowance, k_mib, all), 2u);
  link.now += 6;  // the machine was busy with something else
  EXPECT_THAT(allowance.plan(k_mib, all, 0.02).which, SizeIs(2));
  EXPECT_THAT(allowance.left_out(), IsEmpty());
}

TEST(Allowance, NothingIsBegunWhenTheTimeIsOver) {
  SlowLink link;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 3, link.parts({k_mib, 4 * k_mib}));
  ASSERT_GT(link.run(allowance, k_mib, selections(3)), 0u);
  link.now = 3;
  EXPECT_THAT(allowance.plan(4 * k_mib, selections(3), 0.02).which, IsEmpty());
  EXPECT_THAT(allowance.left_out(), HasSubstr("4 MiB"));
}

TEST(Allowance, OneThingIsMeasuredWhateverTheTime) {
  SlowLink link;
  link.a_mib = 100;
  Allowance allowance = link.allowance();
  allowance.begin("fitting", 1, link.parts({k_mib}));
  EXPECT_EQ(allowance.plan(k_mib, selections(3), 0.02).which, std::vector<std::size_t>{0});
}

TEST(Allowance, EverySizeComesToItsPartAndTheEndIsPassedByOneTrialAtMost) {
  for (const double surprise : {0.3, 1.0, 5.0})
    for (const double a_mib : {1e-5, 1e-3, 1e-2, 0.05}) {
      SlowLink link;
      link.a_mib = a_mib;
      link.surprise = surprise;
      Allowance allowance = link.allowance();
      const std::vector<std::int64_t> sizes{k_mib, 4 * k_mib, 16 * k_mib};
      allowance.begin("fitting", 12, link.parts(sizes), 0.3);
      for (const std::int64_t bytes : sizes) {
        const std::size_t measured = link.run(allowance, bytes, selections(12));
        if (link.longest < 1) {
          EXPECT_GT(measured, 0u) << bytes << " at " << a_mib << " and " << surprise;
        }
        for (int again = 0; again < 3; ++again) link.run(allowance, bytes, selections(static_cast<int>(measured)));
      }
      EXPECT_LE(link.now, 12 + link.longest) << a_mib << " and " << surprise;
    }
}

TEST(Allowance, TuningKeepsWithinIt) {
  const Question question{Collective::allreduce, 0, 4, 4, "shm", false};
  double now = 0;
  double longest = 0;
  const auto operation = [](const Selection&, std::int64_t bytes) { return 2e-8 * static_cast<double>(bytes); };
  Allowance allowance([&] { return now; }, operation);
  const std::vector<std::int64_t> sizes{k_mib, 16 * k_mib};
  allowance.begin("fitting", 8, {{k_mib, 0.02}, {16 * k_mib, 0.32}}, 0.3);
  const MeasureSize measure = [&](std::int64_t bytes, std::span<const Selection> all, double effort) {
    SelectionSamples samples(all.size());
    const auto plan = allowance.plan(bytes, all, 0.05 * effort);
    const double once = operation({}, bytes);
    const double one = (2 + plan.pace.most_warmup % 100 + plan.pace.estimates + plan.pace.fewest_samples) * once;
    for (const std::size_t i : plan.which) {
      samples[i].assign(3, once * 1e6);
      now += one;
      longest = std::max(longest, one);
    }
    allowance.learn(bytes, all, samples);
    return Result<SelectionSamples>(std::move(samples));
  };
  TuneRules rules;
  rules.out_of_time = [&] { return now > 8; };
  const auto tuned = tune_sizes(question, sizes, 4, measure, rules);
  ASSERT_TRUE(tuned);
  EXPECT_LE(now, 8 + longest);
  EXPECT_FALSE(tuned->ranges.empty());
  EXPECT_EQ(tuned->ranges.back().to_bytes, static_cast<std::uint64_t>(16 * k_mib)) << "the largest has a part";
  EXPECT_THAT(allowance.left_out(), HasSubstr("16 MiB"));
}

TEST(FitSamples, TheDearestGiveTheirsUpFirst) {
  std::vector<int> wanted{8, 8, 100};
  const std::vector<double> sample_us{100, 10, 1};
  EXPECT_FALSE(fit_samples(wanted, sample_us, 600));
  EXPECT_LT(wanted[0], 8);
  EXPECT_GE(wanted[0], 3);
  EXPECT_EQ(wanted[1], 8);
  EXPECT_EQ(wanted[2], 100);
  std::vector<int> few{8, 8};
  EXPECT_FALSE(fit_samples(few, std::vector<double>{100, 10}, -5));
  EXPECT_EQ(few, (std::vector<int>{3, 3}));
  std::vector<int> all{8, 8};
  EXPECT_TRUE(fit_samples(all, std::vector<double>{1, 1}, 16));
  EXPECT_EQ(all, (std::vector<int>{8, 8}));
}

}  // namespace
}  // namespace gradrail

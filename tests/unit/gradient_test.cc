// Data for calls that encode, what the exact result is, and which result passes for right.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "bench/measure/codec_choice.h"
#include "bench/measure/coding_figures.h"
#include "bench/report/codecs.h"
#include "bench/report/tuned.h"

namespace gradrail {
namespace {

Call call_of(Collective collective, std::uint64_t count) {
  Call call;
  call.collective = collective;
  call.count = count;
  return call;
}

std::vector<float> input(const Gradient& gradient, int rank, std::size_t count) {
  std::vector<float> values(count);
  gradient.fill(rank, std::as_writable_bytes(std::span(values)));
  return values;
}

TEST(Gradient, TheExactSumPassesAndAMisplacedOneDoesNot) {
  constexpr std::size_t k_count = 70'000;  // beyond a period
  const Call call = call_of(Collective::allreduce, k_count);
  const Gradient gradient(call, 3, 7);
  std::vector<float> sum(k_count, 0.0f);
  for (int rank = 0; rank < 3; ++rank) {
    const auto values = input(gradient, rank, k_count);
    for (std::size_t i = 0; i < k_count; ++i) sum[i] += values[i];
  }
  const auto off = [&](std::span<const float> result) {
    const auto seen = gradient.look(0, std::as_bytes(result));
    return std::sqrt(seen.off_squared / seen.exact_squared);
  };
  EXPECT_LT(off(sum), 1e-6);
  std::rotate(sum.begin(), sum.begin() + 256, sum.end());
  EXPECT_GT(off(sum), 1);
  EXPECT_LT(gradient.allowed(0.006, 2), 0.1);
  EXPECT_NE(input(gradient, 0, 100), input(gradient, 1, 100));
}

TEST(Gradient, KnowsBlocks) {
  constexpr std::size_t k_block = 500;
  const Gradient gathered(call_of(Collective::all_gather, k_block), 3, 1);
  std::vector<float> all;
  for (int rank = 0; rank < 3; ++rank) {
    const auto block = input(gathered, rank, k_block);
    all.insert(all.end(), block.begin(), block.end());
  }
  EXPECT_EQ(gathered.look(1, std::as_bytes(std::span(all))).off_squared, 0);
  const Gradient scattered(call_of(Collective::reduce_scatter, k_block), 2, 1);
  const auto a = input(scattered, 0, 2 * k_block), b = input(scattered, 1, 2 * k_block);
  std::vector<float> second(k_block);
  for (std::size_t i = 0; i < k_block; ++i) second[i] = a[k_block + i] + b[k_block + i];
  EXPECT_LT(scattered.look(1, std::as_bytes(std::span(second))).most_off, 1e-8);
}

TEST(Gradient, ACodecsErrorIsThatOfItsFormat) {
  const Gradient gradient(call_of(Collective::allreduce, 65521), 2, 1);
  EXPECT_NEAR(gradient.error_of_one("int8", 0).value(), 0.0068, 0.001);
  EXPECT_NEAR(gradient.error_of_one("bf16", 1).value(), 0.0017, 0.0003);
  EXPECT_FALSE(gradient.error_of_one("int9", 0));
}

TEST(Judgement, OfDifferentBitsOrTooLargeAnErrorIsWrong) {
  Call call = call_of(Collective::allreduce, 1000);
  call.coding.codec = "int8";
  Ran ran;
  ran.codec = "int8";
  ran.requantised = 2;
  CodingLook look;
  look.seen.exact_squared = 1;
  look.seen.off_squared = 1e-4;
  look.seen.bits = 5;
  look.error_of_one = 0.0068;
  std::vector<CodingLook> looks{look, look};
  EXPECT_EQ(judge(call, ran, looks, 1).why_wrong, "");
  EXPECT_NEAR(judge(call, ran, looks, 1).figures.relative_error, 0.01, 1e-9);
  looks[1].seen.bits = 6;
  EXPECT_EQ(judge(call, ran, looks, 1).why_wrong, "ranks ended with different bits; the point was not timed");
  looks[1].seen.bits = 5;
  looks[1].seen.off_squared = 0.3;
  EXPECT_NE(judge(call, ran, looks, 1).why_wrong.find("explains no more than"), std::string::npos);
  looks[1].seen.off_squared = std::nan("");
  EXPECT_NE(judge(call, ran, looks, 1).why_wrong, "");
}

Point row(std::int64_t bytes, const char* codec, double us, double error) {
  Point point;
  point.collective = "allreduce";
  point.algorithm = "two_shot";
  point.transport = "tcp";
  point.topology = "2x2";
  point.ranks = 4;
  point.type = "f32";
  point.op = "sum";
  point.bytes = bytes;
  point.codec = codec;
  point.rel_l2_error = error;
  point.wire_ratio = 2;
  Timing timing;
  timing.median = us;
  timing.ci = {us * 0.98, us * 1.02};
  timing.n = 50;
  point.time_us = timing;
  return point;
}

TEST(CodecSummary, SaysHowMuchFasterEachIsOrThatNobodyCanTell) {
  const std::string summary =
      codec_summary(std::vector{row(1 << 16, "none", 100, 0), row(1 << 16, "int8", 101, 0.009),
                                row(1 << 16, "bf16", 140, 0.002), row(1 << 20, "none", 1000, 0)});
  EXPECT_NE(summary.find("int8  two_shot  cannot be told from two_shot without a codec"), std::string::npos) << summary;
  EXPECT_NE(summary.find("bf16  two_shot  1.40x slower than two_shot"), std::string::npos) << summary;
}

// A case of a block, with samples around `us`.
Outcome outcome(const char* codec, double us, double error, const char* algorithm = "two_shot") {
  Outcome made;
  made.ran.algorithm = algorithm;
  made.ran.pieces = 4;
  made.ran.codec = codec;
  made.coding.emplace();
  made.coding->relative_error = error;
  for (int i = 0; i < 40; ++i) made.samples_us.push_back(us * (1 + 0.001 * (i % 5)));
  return made;
}

Question question_of(int ranks, int ranks_per_host) {
  Question question;
  question.bytes = 1 << 20;
  question.ranks = ranks;
  question.ranks_per_host = ranks_per_host;
  return question;
}

TEST(CodecChoice, IsWhatIsFasterBeyondDoubtByAQuarter) {
  const std::vector<Selection> selections = {
      {"ring", 1, 1},        {"auto", 0, 0, "bf16"},        {"auto", 0, 0, "int8"},
      {"auto", 0, 0, "fp8"}, {"sparse", 0, 0, "topk:0.01"}, {"two_shot", 1, 1, "int4"}};
  std::vector<Outcome> outcomes = {outcome("", 1000, 0),
                                   outcome("bf16", 810, 0.002),
                                   outcome("int8", 400, 0.009),
                                   outcome("fp8:e4m3", 500, 0.03),
                                   outcome("topk:0.01", 100, 0.96, "gather"),
                                   outcome("int4", 200, 0.1)};
  outcomes[5].wrong = 3;
  const CodedSize size = what_pays(question_of(4, 2), selections, outcomes);
  EXPECT_EQ(size.bytes, 1u << 20);
  EXPECT_NEAR(size.dense_us, 1000, 5);
  ASSERT_EQ(size.choices.size(), 2u);
  EXPECT_EQ(size.choices[0].selection, (Selection{"two_shot", 1, 4, "int8"})) << "as auto carried it";
  EXPECT_NEAR(size.choices[0].error, 0.009, 1e-9);
  EXPECT_EQ(size.choices[1].selection.algorithm, "sparse") << "as it was asked for, which adapts to other sizes";
  EXPECT_EQ(
      codecs_text(std::vector{CodedSize{1 << 16, 90, {}}, size}, 0.01),
      "# Codecs within an error of 0.01\n"
      "#        from           to  codec              where         by                        faster than none  error\n"
      "       64 KiB       64 KiB  none               no codec within the error pays\n"
      "        1 MiB        1 MiB  int8               all           two_shot, 4 pieces                   2.50x  "
      "0.009\n");
}

TEST(CodecChoice, NothingPaysWithoutSomethingToBeat) {
  const std::vector<Selection> selections = {{"ring", 1, 1}, {"auto", 0, 0, "int8"}};
  std::vector<Outcome> outcomes = {outcome("", 1000, 0), outcome("int8", 400, 0.009)};
  outcomes[0].refused = Error{Code::unsupported, "no", Error::k_no_peer, 0};
  EXPECT_TRUE(what_pays(question_of(2, 1), selections, outcomes).choices.empty());
}

// Inside one host codecs work at the rate at which data moves as it is.
TEST(CodecChoice, InOneHostHalfTheTimeIsAsked) {
  const std::vector<Selection> selections = {{"ring", 1, 1}, {"auto", 0, 0, "int8"}};
  const auto paid = [&](int ranks_per_host, double us) {
    return what_pays(question_of(2, ranks_per_host), selections,
                     std::vector<Outcome>{outcome("", 1000, 0), outcome("int8", us, 0.009)})
        .choices.size();
  };
  EXPECT_EQ(paid(2, 532), 0u) << "1.88 times faster";
  EXPECT_EQ(paid(2, 450), 1u);
  EXPECT_EQ(paid(1, 532), 1u);
  EXPECT_EQ(paid(1, 810), 0u);
}

// What counts is the best without a codec, whichever that is.
TEST(CodecChoice, TheBestWithoutACodecIsToBeBeaten) {
  const std::vector<Selection> selections = {{"two_shot", 1, 1}, {"ring", 0, 0}, {"auto", 0, 0, "int8"}};
  const std::vector<Outcome> outcomes = {outcome("", 1000, 0), outcome("", 450, 0), outcome("int8", 400, 0.009)};
  EXPECT_TRUE(what_pays(question_of(2, 1), selections, outcomes).choices.empty());
}

// Medians far apart are not enough where the interval of one is wide.
TEST(CodecChoice, WhatIsUnsteadyDoesNotPay) {
  const std::vector<Selection> selections = {{"ring", 1, 1}, {"auto", 0, 0, "int8"}};
  std::vector<Outcome> outcomes = {outcome("", 1000, 0), outcome("int8", 400, 0.009)};
  EXPECT_EQ(what_pays(question_of(2, 1), selections, outcomes).choices.size(), 1u);
  for (std::size_t i = 0; i < 19; ++i) outcomes[0].samples_us[i] = 450;
  EXPECT_TRUE(what_pays(question_of(2, 1), selections, outcomes).choices.empty());
}

TEST(CodecChoice, RivalsAreAllAlgorithmsAsTheCommunicatorTunesThem) {
  const auto rivals = dense_rivals(question_of(2, 2));
  const auto has = [&](const Selection& one) { return std::find(rivals.begin(), rivals.end(), one) != rivals.end(); };
  EXPECT_TRUE(has({"two_shot", 0, 0}));
  EXPECT_TRUE(has({"recursive_doubling", 0, 0}));
  EXPECT_FALSE(has({"two_shot", 1, 4}));
}

TEST(CodecChoice, TriesThoseWhoseOwnErrorIsWithinTheBudget) {
  const auto within = [](const std::vector<std::string>& named, double budget) {
    return codecs_within(named, budget).value();
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(within({"none", "auto", "int8", "int4"}, 1e-2), Names{"int8"});
  const Names all = within({"none", "auto"}, 1e-2);
  EXPECT_NE(std::find(all.begin(), all.end(), "bf16"), all.end());
  EXPECT_EQ(std::find(all.begin(), all.end(), "int4"), all.end());
  EXPECT_TRUE(within({"none", "bf16", "int8"}, 1e-9).empty());
}

}  // namespace
}  // namespace gradrail

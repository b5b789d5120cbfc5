// Calls that state the error they bear get the codec that the selector names, and nobody else ever gets one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "tests/contract/ranks.h"

namespace gradrail {
namespace {

constexpr std::size_t k_count = 40'000;

// int8 from an error of 0.01 on, an exchange that there is not from 0.5 on.
class Budgets : public Selector {
 public:
  [[nodiscard]] Selection choose(const Question& question) const override {
    if (question.error_budget >= 0.5) return {"teleport", 1, 1, "topk:0.01"};
    if (question.error_budget >= 0.01) return {"ring", 1, 2, "int8"};
    return {question.bytes <= 1024 ? "one_shot" : "two_shot", 1, 1};
  }
  [[nodiscard]] std::string describe() const override { return "test"; }
};

class ErrorBudget : public testing::Test {
 protected:
  explicit ErrorBudget(const std::string& transport = "local") : ranks_(3, transport, "", 0, 1, choose) {}
  static void choose(int, CommunicatorOptions& options) { options.selector = std::make_shared<Budgets>(); }

  struct Came {
    Ran ran;
    std::vector<double> off;  // of each value
  };
  // The call by all ranks, rank r contributing 1 + r + i / 1000; what rank 0 saw.
  Result<Came> run(Call call) {
    Came came;
    const auto said = ranks_.all([&](Communicator& communicator) -> Result<void> {
      std::vector<float> in(call.count), out(call.count, 77.0f);
      for (std::size_t i = 0; i < call.count; ++i)
        in[i] = 1.0f + static_cast<float>(communicator.rank()) + static_cast<float>(i % 1000) / 1000;
      GRADRAIL_ASSIGN(const Memory from, communicator.adopt(std::as_writable_bytes(std::span(in))));
      GRADRAIL_ASSIGN(const Memory to, communicator.adopt(std::as_writable_bytes(std::span(out))));
      Call own = call;
      own.in = {&from, 0};
      own.out = {&to, 0};
      GRADRAIL_TRY(communicator.run(own, soon()));
      GRADRAIL_ASSIGN(const Ran ran, communicator.resolve(own, soon()));
      if (communicator.rank() != 0) return {};
      came.ran = ran;
      for (std::size_t i = 0; i < call.count; ++i)
        came.off.push_back(std::abs(double{out[i]} - (6 + 3 * static_cast<double>(i % 1000) / 1000)));
      return {};
    });
    for (const auto& one : said)
      if (!one) return tl::unexpected<Error>(one.error());
    return came;
  }
  static Call call_with(double budget) {
    Call call;
    call.count = k_count;
    call.coding.error_budget = budget;
    return call;
  }
  static double most(const std::vector<double>& off) { return *std::max_element(off.begin(), off.end()); }

  Ranks ranks_;
};

// Where short messages go over a board, and the same call again is not looked at as a whole.
class ErrorBudgetOverShm : public ErrorBudget {
 protected:
  ErrorBudgetOverShm() : ErrorBudget("shm") {}
};

TEST_F(ErrorBudget, GetsTheCodecThatTheSelectorNames) {
  const auto came = run(call_with(0.01));
  ASSERT_TRUE(came) << came.error().message;
  EXPECT_EQ(came->ran.codec, "int8");
  EXPECT_EQ(came->ran.algorithm, "ring");
  EXPECT_EQ(came->ran.pieces, 2);
  EXPECT_GT(most(came->off), 1e-4);
  EXPECT_LT(most(came->off), 0.3);
}

TEST_F(ErrorBudget, WithoutOneNothingIsEverEncoded) {
  const auto came = run(call_with(0));
  ASSERT_TRUE(came) << came.error().message;
  EXPECT_EQ(came->ran.codec, "");
  EXPECT_LT(most(came->off), 1e-5);
  const auto exact = run(call_with(0.001));
  ASSERT_TRUE(exact) << exact.error().message;
  EXPECT_EQ(exact->ran.codec, "") << "no codec is so exact";
  EXPECT_EQ(exact->ran.algorithm, "two_shot");
  EXPECT_LT(most(exact->off), 1e-5);
}

TEST_F(ErrorBudget, WhatCannotBeCarriedOutIsNoAnswer) {
  for (int again = 0; again < 2; ++again) {
    const auto came = run(call_with(0.5));
    ASSERT_TRUE(came) << came.error().message;
    EXPECT_EQ(came->ran.codec, "");
    EXPECT_EQ(came->ran.algorithm, "two_shot");
    EXPECT_LT(most(came->off), 1e-5);
  }
}

TEST_F(ErrorBudget, DataThatNoCodecIsForTravelsAsItIs) {
  Call call = call_with(0.01);
  call.op = ReduceOp::max;
  const auto came = run(call);
  ASSERT_TRUE(came) << came.error().message;
  EXPECT_EQ(came->ran.codec, "");
  call = call_with(0.01);
  call.type = Type::i32;
  const auto integers = run(call);
  ASSERT_TRUE(integers) << integers.error().message;
  EXPECT_EQ(integers->ran.codec, "");
}

TEST_F(ErrorBudgetOverShm, CountsInAShortCallRightAfterOneWithoutIt) {
  for (const double budget : {0.0, 0.01, 0.0, 0.01}) {
    Call call = call_with(budget);
    call.count = 100;
    const auto came = run(call);
    ASSERT_TRUE(came) << came.error().message;
    if (budget > 0)
      EXPECT_GT(most(came->off), 1e-4) << "was not encoded";
    else
      EXPECT_LT(most(came->off), 1e-5);
  }
}

TEST_F(ErrorBudget, IsRefusedWithAnAlgorithmOrWhereItMakesNoSense) {
  Call call = call_with(0.01);
  call.algorithm = "ring";
  const auto named = run(call);
  ASSERT_FALSE(named);
  EXPECT_EQ(named.error().code, Code::bad_usage);
  EXPECT_THAT(named.error().message, testing::HasSubstr("leave out ring"));
  const auto all = run(call_with(1));
  ASSERT_FALSE(all);
  EXPECT_EQ(all.error().code, Code::bad_usage);
  EXPECT_TRUE(run(call_with(0.01))) << "refusing poisons nothing";
}

}  // namespace
}  // namespace gradrail

// Codecs with a memory: error feedback and the other wrappers, and PowerSGD.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "collectives/compress/powersgd.h"
#include "tests/property/codec_cases.h"

namespace gradrail {
namespace {

constexpr std::size_t k_count = 12365;  // several stretches of what is worked on at once, and a part of one

// The residual, kept by the test beside the wrapper: what the wrapper sends must be what the bare codec makes of
// residual + gradient. For codecs that send float32, nothing is ever lost, bit for bit.
TEST(ErrorFeedback, SentAndResidualAreWhatWasAccumulated) {
  for (const char* name : {"topk:0.01", "topk:0.05:sampled", "randomk:0.02", "bf16", "fp16", "int8", "int4", "fp8",
                           "qsgd:4", "terngrad", "onebit", "signsgd"}) {
    const auto wrapped = codec_of(std::string(name) + "+ef"), bare = codec_of(name);
    const bool exact = std::string_view(name).substr(0, 4) == "topk" || std::string_view(name).substr(0, 4) == "rand";
    std::vector<float> residual(k_count);
    std::vector<double> given(k_count), sent(k_count);
    for (std::uint64_t step = 0; step < 20; ++step) {
      const auto gradient = make_values(k_count, Values::normal, static_cast<std::uint32_t>(step));
      const Origin origin{.seed = 3, .step = step, .rank = 1};
      auto accumulated = residual;
      for (std::size_t i = 0; i < k_count; ++i) accumulated[i] += gradient[i];
      const auto message = encode_all(*wrapped, gradient, origin);
      ASSERT_EQ(message, encode_all(*bare, accumulated, origin)) << name << ", step " << step;
      const auto decoded = decode_all(*wrapped, message, k_count);
      for (std::size_t i = 0; i < k_count; ++i) {
        residual[i] = accumulated[i] - decoded[i];
        if (exact) {
          ASSERT_EQ(arithmetic::bits_of(decoded[i] + residual[i]), arithmetic::bits_of(accumulated[i] + 0.0f));
        }
        given[i] += gradient[i];
        sent[i] += decoded[i];
      }
    }
    // Over all steps nothing is lost but roundings of the residual.
    double most = 0;
    for (std::size_t i = 0; i < k_count; ++i) {
      const double scale = std::fabs(residual[i]) + std::fabs(sent[i]) + 10;
      most = std::max(most, std::fabs(given[i] - sent[i] - residual[i]) / scale);
    }
    EXPECT_LE(most, 40 * std::ldexp(1, -24)) << name;
  }
}

// Integers in float32: sums are exact, so that conservation holds bit for bit over any number of steps.
TEST(ErrorFeedback, LosesNoBitOfIntegersInTopK) {
  const auto codec = codec_of("topk:0.01+ef");
  std::mt19937 random(1);
  std::vector<float> given(k_count), sent(k_count), gradient(k_count);
  for (std::uint64_t step = 0; step < 50; ++step) {
    for (std::size_t i = 0; i < k_count; ++i) {
      gradient[i] = static_cast<float>(static_cast<int>(random() % 201) - 100);
      given[i] += gradient[i];
    }
    ASSERT_TRUE(codec->decode_add(encode_all(*codec, gradient), sent));
  }
  const std::vector<float> nothing(k_count);
  for (int step = 0; step < 101; ++step) ASSERT_TRUE(codec->decode_add(encode_all(*codec, nothing), sent));
  EXPECT_EQ(sent, given);
}

TEST(ErrorFeedback, IsRidOfNaNsAfterOneStep) {
  for (const char* name :
       {"int8+ef", "topk:0.01+ef", "onebit+ef", "signsgd+ef", "fp16+ef", "powersgd:2+ef", "topk:0.01+momentum:0.9"}) {
    const auto codec = codec_of(name);
    auto gradient = make_values(k_count, Values::normal, 1);
    gradient[5] = std::nanf("");
    gradient[3000] = INFINITY;
    std::vector<std::byte> message(codec->max_bytes(k_count));
    EXPECT_TRUE(codec->encode(gradient, message, {})->non_finite) << name;
    const auto healthy = make_values(k_count, Values::normal, 2);
    EXPECT_FALSE(codec->encode(healthy, message, {.step = 1})->non_finite) << name;
  }
}

TEST(ErrorFeedback, BelongsToOneTensor) {
  const auto codec = codec_of("int8+ef");
  (void)encode_all(*codec, make_values(100, Values::normal, 1));
  std::vector<std::byte> message(codec->max_bytes(200));
  const auto encoded = codec->encode(make_values(200, Values::normal, 1), message, {});
  ASSERT_FALSE(encoded);
  EXPECT_THAT(encoded.error().message, testing::HasSubstr("keeps the state of 100 values and was given 200"));
}

TEST(MomentumCorrection, FollowsItsEquations) {
  const auto codec = codec_of("topk:0.01+momentum:0.5"), bare = codec_of("topk:0.01");
  std::vector<float> u(k_count), v(k_count);
  for (std::uint32_t step = 0; step < 10; ++step) {
    const auto gradient = make_values(k_count, Values::normal, step);
    for (std::size_t i = 0; i < k_count; ++i) {
      u[i] = 0.5f * u[i] + gradient[i];
      v[i] += u[i];
    }
    const auto message = encode_all(*codec, gradient);
    ASSERT_EQ(message, encode_all(*bare, v));
    const auto sent = decode_all(*bare, message, k_count);
    for (std::size_t i = 0; i < k_count; ++i) {
      if (sent[i] == 0) continue;
      u[i] = 0;
      v[i] -= sent[i];
    }
  }
}

TEST(Clip, ScalesDownToItsNormAndNeverUp) {
  const auto codec = codec_of("topk:1+clip:2");
  auto norm = [](const std::vector<float>& values) {
    double sum = 0;
    for (const float value : values) sum += double{value} * double{value};
    return std::sqrt(sum);
  };
  const auto large = make_values(k_count, Values::normal, 1);
  EXPECT_NEAR(norm(decode_all(*codec, encode_all(*codec, large), k_count)), 2, 1e-5);
  const auto huge = make_values(k_count, Values::huge, 1);
  EXPECT_NEAR(norm(decode_all(*codec, encode_all(*codec, huge), k_count)), 2, 1e-5);
  std::vector<float> small(k_count, 0.01f);
  EXPECT_EQ(decode_all(*codec, encode_all(*codec, small), k_count), small);
  const auto nan = make_values(k_count, Values::with_nan, 1);
  const auto decoded = decode_all(*codec, encode_all(*codec, nan), k_count);
  EXPECT_EQ(std::count_if(decoded.begin(), decoded.end(), [](float x) { return std::isnan(x); }), 1);
}

TEST(WarmUp, SendsLessStepByStep) {
  const auto codec = codec_of("topk:0.001+warmup:4:0.25");
  const auto gradient = make_values(100000, Values::normal, 1);
  std::vector<std::size_t> sent;
  for (std::uint64_t step = 0; step < 6; ++step) {
    const auto decoded = decode_all(*codec, encode_all(*codec, gradient, {.step = step}), gradient.size());
    sent.push_back(decoded.size() - static_cast<std::size_t>(std::count(decoded.begin(), decoded.end(), 0.0f)));
  }
  EXPECT_THAT(sent, testing::ElementsAre(25000, 6287, 1581, 398, 100, 100));
}

// --- PowerSGD.

std::vector<float> low_rank_matrix(std::size_t rows, std::size_t columns, std::size_t rank, std::uint32_t seed) {
  const auto a = make_values(rows * rank, Values::normal, seed),
             b = make_values(columns * rank, Values::normal, seed + 1);
  std::vector<float> out(rows * columns);
  for (std::size_t i = 0; i < rows; ++i) {
    for (std::size_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (std::size_t r = 0; r < rank; ++r) sum += double{a[i * rank + r]} * double{b[j * rank + r]};
      out[i * columns + j] = static_cast<float>(sum);
    }
  }
  return out;
}

double distance(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
  return std::sqrt(sum);
}
double length(std::span<const float> a) { return distance(a, std::vector<float>(a.size())); }

TEST(PowerSgdCodec, SendsAMatrixOfItsRankWithoutError) {
  for (const std::size_t rank : {1u, 2u, 4u, 5u}) {
    const auto matrix = low_rank_matrix(90, 70, rank, 3);
    PowerSgd codec(static_cast<std::uint32_t>(rank), {90, 70});
    const auto decoded = decode_all(codec, encode_all(codec, matrix), matrix.size());
    EXPECT_LE(distance(decoded, matrix), 1e-5 * length(matrix)) << rank;
  }
}

TEST(PowerSgdCodec, IsAProjectionThatWarmStartsImprove) {
  for (const std::size_t count : {std::size_t{1024}, std::size_t{4096}, std::size_t{102400}, std::size_t{100003}}) {
    PowerSgd codec(4, {});
    auto matrix = make_values(count, Values::normal, 5);
    const auto strong = low_rank_matrix(count / 64 + 1, 64, 4, 9);
    for (std::size_t i = 0; i < count; ++i) matrix[i] = 0.1f * matrix[i] + strong[i];
    double before = INFINITY;
    for (std::uint64_t step = 0; step < 6; ++step) {
      const auto decoded = decode_all(codec, encode_all(codec, matrix, {.step = step}), count);
      const double error = distance(decoded, matrix);
      // A projection: error and image are at right angles. (The last count fills no whole rows; what is cut off is
      // lost.)
      if (count != 100003) {
        EXPECT_NEAR(error * error + length(decoded) * length(decoded), length(matrix) * length(matrix),
                    1e-5 * length(matrix) * length(matrix));
      }
      EXPECT_LE(error, before * 1.0001);
      before = error;
    }
  }
}

TEST(PowerSgdCodec, RoundsOfAllRanksGiveTheProjectionOfTheSum) {
  constexpr std::size_t k_rows = 60, k_columns = 50;
  for (std::uint32_t ranks = 1; ranks <= 9; ++ranks) {
    std::vector<PowerSgd> codecs;
    std::vector<std::vector<float>> gradients;
    std::vector<float> sum(k_rows * k_columns);
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      codecs.emplace_back(3, TensorShape{k_rows, k_columns});
      // Matrices that share their columns, so that their sum has the rank 3 as well.
      auto one = low_rank_matrix(k_rows, k_columns, 3, 7);
      for (float& value : one) value *= static_cast<float>(rank + 1);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += one[i];
      gradients.push_back(std::move(one));
    }
    const auto reduce = [&](std::vector<std::span<float>> parts) {
      for (std::size_t i = 0; i < parts[0].size(); ++i) {
        float all = 0;
        for (const auto part : parts) all += part[i];
        for (const auto part : parts) part[i] = all;
      }
    };
    std::vector<std::span<float>> p, q;
    for (std::uint32_t rank = 0; rank < ranks; ++rank) {
      p.push_back(codecs[rank].first(gradients[rank], {.seed = 5, .rank = rank}).value());
    }
    reduce(p);
    for (std::uint32_t rank = 0; rank < ranks; ++rank) q.push_back(codecs[rank].second());
    reduce(q);
    std::vector<float> result(sum.size()), other(sum.size());
    codecs.front().apply_rounds(result, static_cast<int>(ranks));
    codecs.back().apply_rounds(other, static_cast<int>(ranks));
    EXPECT_EQ(result, other) << "ranks differ";
    EXPECT_LE(distance(result, sum), 1e-5 * length(sum)) << ranks;
  }
}

TEST(PowerSgdCodec, ZeroAndLostStartsAreDrawnAnew) {
  PowerSgd codec(2, {40, 50});
  const std::vector<float> nothing(2000);
  EXPECT_EQ(decode_all(codec, encode_all(codec, nothing), 2000), nothing);
  auto broken = make_values(2000, Values::with_nan, 3);
  for (const float value : decode_all(codec, encode_all(codec, broken, {.step = 1}), 2000))
    EXPECT_TRUE(std::isnan(value));
  const auto matrix = low_rank_matrix(40, 50, 2, 3);
  EXPECT_LE(distance(decode_all(codec, encode_all(codec, matrix, {.step = 2}), 2000), matrix), 1e-5 * length(matrix));
}

TEST(PowerSgdCodec, SmallTensorsAreSentAsTheyAre) {
  for (const std::size_t count : {0u, 1u, 50u, 300u}) {
    PowerSgd codec(16, {});
    const auto from = make_values(count, Values::normal, 3);
    EXPECT_EQ(decode_all(codec, encode_all(codec, from), count), from);
  }
}

TEST(PowerSgdCodec, AShapeThatDoesNotFitIsRefused) {
  PowerSgd codec(1, {40, 50});
  std::vector<std::byte> message(codec.max_bytes(2001));
  const auto encoded = codec.encode(std::vector<float>(2001), message, {});
  ASSERT_FALSE(encoded);
  EXPECT_THAT(encoded.error().message, testing::HasSubstr("2001 values are no matrix of 40 times 50"));
}

TEST(LowRank, OrthonormaliseMakesUnitVectorsAtRightAngles) {
  auto p = make_values(5 * 100, Values::wide, 3);
  std::copy_n(p.begin(), 100, p.begin() + 200);  // the third depends on the first
  orthonormalise(p, 100);
  for (std::size_t a = 0; a < 5; ++a) {
    for (std::size_t b = 0; b <= a; ++b) {
      double dot = 0;
      for (std::size_t i = 0; i < 100; ++i) dot += double{p[a * 100 + i]} * double{p[b * 100 + i]};
      EXPECT_NEAR(dot, a == b && a != 2 ? 1 : 0, 1e-4) << a << " " << b;
    }
  }
}

}  // namespace
}  // namespace gradrail

// The codecs' arithmetic, which host and devices share, against double precision and known answers; and the vector
// kernels against that arithmetic, on every instruction set this CPU has and on the portable fallback, bit by bit.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/block_arithmetic.h"
#include "collectives/compress/block_codec.h"
#include "collectives/compress/codec.h"
#include "collectives/compress/random.h"
#include "tests/unit/simd_targets.h"

namespace gradrail {
namespace {

using namespace arithmetic;

TEST(CodecArithmetic, PhiloxGivesThePublishedAnswers) {
  const auto seven = philox::words({{0, 0, 0, 0}}, 0, 0, 7);
  EXPECT_EQ(seven.word[0], 0x5f6fb709u);
  EXPECT_EQ(seven.word[1], 0x0d893f64u);
  EXPECT_EQ(seven.word[2], 0x4f121f81u);
  EXPECT_EQ(seven.word[3], 0x4f730a48u);
  const auto ten = philox::words({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822, 0x299f31d0, 10);
  EXPECT_EQ(ten.word[0], 0xd16cfe09u);
  EXPECT_EQ(ten.word[1], 0x94fdccebu);
  EXPECT_EQ(ten.word[2], 0x5001e420u);
  EXPECT_EQ(ten.word[3], 0x24126ea1u);
}

TEST(CodecArithmetic, LargestLevelsTimesTheirInverseAreOne) {
  for (const float levels : {1.0f, 7.0f, 127.0f, k_e4m3_largest, k_e5m2_largest}) {
    EXPECT_EQ(levels * (1.0f / levels), 1.0f) << levels;
  }
}

// Every code decodes to a number that encodes to the code; and what lies between two neighbours goes to the nearer one,
// or to the even one from the middle.
template <class Encode, class Decode>
void expect_rounding(std::uint32_t codes, Encode encode, Decode decode) {
  for (std::uint32_t code = 0; code + 1 < codes; ++code) {
    const double low = decode(code), high = decode(code + 1), middle = (low + high) / 2;
    ASSERT_LT(low, high) << code;
    ASSERT_EQ(encode(static_cast<float>(low)), code);
    const auto at = static_cast<float>(middle);
    ASSERT_EQ(double{at}, middle);
    EXPECT_EQ(encode(at), code % 2 == 0 ? code : code + 1) << at;
    EXPECT_EQ(encode(std::nextafter(at, 0.0f)), code);
    EXPECT_EQ(encode(std::nextafter(at, 1e30f)), code + 1);
  }
}

TEST(CodecArithmetic, SmallFloatsRoundToNearestEven) {
  expect_rounding(
      0x7F, [](float v) { return E4m3::code(v); }, [](std::uint32_t c) { return E4m3::value(c); });
  expect_rounding(
      0x7C, [](float v) { return E5m2::code(v); }, [](std::uint32_t c) { return E5m2::value(c); });
  expect_rounding(
      0x7C00, [](float v) { return std::uint32_t{f16_of(v)}; },
      [](std::uint32_t c) { return of_f16(static_cast<std::uint16_t>(c)); });
  EXPECT_EQ(E4m3::value(0x7E), k_e4m3_largest);
  EXPECT_EQ(E5m2::value(0x7B), k_e5m2_largest);
  EXPECT_EQ(E4m3::value(1), std::ldexp(1.0f, -9));
  EXPECT_EQ(E5m2::value(1), std::ldexp(1.0f, -16));
  EXPECT_EQ(E4m3::value(E4m3::code(-1.5f)), -1.5f);
  EXPECT_EQ(f16_of(65520.0f), 0x7C00);
  EXPECT_EQ(f16_of(-1e30f), 0xFC00);
  EXPECT_EQ(f16_of(std::nanf("")), 0x7E00);
}

TEST(CodecArithmetic, Bf16RoundsToNearestEven) {
  std::mt19937 random(3);
  for (int i = 0; i < 100000; ++i) {
    const float value = float_of(random());
    if (!std::isfinite(value)) continue;
    const double low = of_bf16(static_cast<std::uint16_t>(bits_of(value) >> 16));
    const auto next = static_cast<std::uint16_t>((bits_of(value) >> 16) + 1);
    const double high = next % 0x8000 == 0x7F80 ? std::copysign(std::ldexp(1, 128), low) : double{of_bf16(next)};
    const double below = std::fabs(value - low), above = std::fabs(high - value);
    const bool up = above < below || (above == below && next % 2 == 0);
    ASSERT_EQ(bf16_of(value), up ? next : static_cast<std::uint16_t>(next - 1)) << value;
  }
  EXPECT_EQ(bf16_of(-std::nanf("")), 0x7FC0);
}

TEST(CodecArithmetic, AScaleOfAnySizeHasFiniteSteps) {
  for (const float scale : {std::ldexp(1.0f, -149), 3e-45f, 1e-40f, std::ldexp(1.0f, -126), 1e-30f, 1.0f, 3e38f}) {
    for (const float levels : {1.0f, 127.0f, k_e5m2_largest}) {
      const Steps steps = steps_of(scale, levels);
      EXPECT_TRUE(std::isfinite(steps.factor)) << scale;
      EXPECT_NEAR(level_of(scale, steps) / levels, 1, 1e-6) << scale;
      EXPECT_EQ(value_of(levels, 1 / levels, scale), scale);
    }
  }
  EXPECT_EQ(level_of(5, steps_of(0, 127)), 0);
}

// --- The scalar reference of a whole message body, from arithmetic.h and random.h alone.

std::vector<std::byte> reference_encode(const BlockFormat& format, std::span<const float> from, const RandomKey& key) {
  std::vector<std::byte> out;
  std::uint64_t group = 0;
  for (std::size_t at = 0; at < from.size(); at += format.block) {
    const auto x = from.subspan(at, std::min<std::size_t>(format.block, from.size() - at));
    const std::size_t groups = (x.size() + k_group - 1) / k_group;
    Steps steps;
    bool marked = false;
    if (format.scaling != Scaling::none) {
      std::uint32_t largest = 0;
      for (const float value : x) largest = std::max(largest, size_bits(value));
      float sums[k_columns] = {};
      for (std::size_t i = 0; i < groups * k_group && largest < k_infinity; ++i) {
        const float near = (i < x.size() ? x[i] : 0.0f) * power_near(float_of(largest));
        const float term = format.scaling == Scaling::norm ? near * near : std::fabs(near);
        sums[i % k_columns] = sums[i % k_columns] + term;
      }
      const std::uint32_t scale = scale_from(format.scaling, largest, sums, x.size());
      for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::byte>(scale >> (8 * i)));
      marked = scale == k_quiet_nan;
      if (!marked) steps = steps_of(float_of(scale), format.levels);
    }
    for (std::size_t g = 0; g < groups; ++g, ++group) {
      const auto part = x.subspan(g * k_group);
      for (std::uint32_t byte = 0; byte < k_group / 8 * format.bits; ++byte) {
        out.push_back(marked ? std::byte{0}
                             : std::byte{encode_byte(format, part.data(), part.size(), byte, steps, key, group)});
      }
    }
  }
  return out;
}

std::vector<float> reference_decode(const BlockFormat& format, std::span<const std::byte> from, std::size_t count) {
  std::vector<float> out(count);
  for (std::size_t at = 0; at < count; at += format.block) {
    const std::size_t values = std::min<std::size_t>(format.block, count - at);
    float scale = 1;
    if (format.scaling != Scaling::none) {
      std::memcpy(&scale, from.data(), sizeof scale);
      from = from.subspan(sizeof scale);
    }
    for (std::size_t i = 0; i < values; ++i) {
      const auto* group =
          reinterpret_cast<const std::uint8_t*>(from.data()) + i / k_group * (k_group / 8 * format.bits);
      out[at + i] = decode_value(format, code_in_group(format, group, i % k_group), scale);
    }
    from = from.subspan((values + k_group - 1) / k_group * (k_group / 8) * format.bits);
  }
  return out;
}

// --- Values of every kind.

std::vector<float> values_of(std::size_t count, int kind, std::mt19937& random) {
  std::vector<float> out(count);
  std::normal_distribution<float> normal;
  for (float& value : out) {
    switch (kind) {
      case 0: value = normal(random); break;
      case 1: value = std::ldexp(normal(random), static_cast<int>(random() % 60) - 30); break;
      case 2: value = float_of(random() & 0x807FFFFFu); break;  // subnormals
      case 3: value = 0.0f; break;
      case 4: value = std::ldexp(normal(random), 120); break;
      case 5: value = -0.375f; break;
      case 7: value = std::ldexp(normal(random), -118); break;
      case 8: value = std::ldexp(normal(random), static_cast<int>(random() % 250) - 125); break;
      default: value = float_of(random()); break;  // NaNs and infinities too, now and then
    }
  }
  if (kind == 1 && count > 0) out[random() % count] = 1e30f;
  return out;
}

constexpr BlockFormat k_formats[] = {
    {Coding::nearest, Scaling::largest, 8, 127, 256},
    {Coding::nearest, Scaling::largest, 4, 7, 256},
    {Coding::stochastic, Scaling::norm, 8, 127, 256},
    {Coding::stochastic, Scaling::largest, 8, 127, 256},
    {Coding::stochastic, Scaling::norm, 4, 7, 256},
    {Coding::stochastic, Scaling::largest, 4, 7, 256},
    {Coding::stochastic, Scaling::norm, 2, 1, 256},
    {Coding::stochastic, Scaling::largest, 2, 1, 256},
    {Coding::e4m3, Scaling::largest, 8, k_e4m3_largest, 256},
    {Coding::e5m2, Scaling::largest, 8, k_e5m2_largest, 256},
    {Coding::sign, Scaling::none, 1, 1, 2048},
    {Coding::sign, Scaling::mean, 1, 1, 2048},
};

using CodecKernels = OnSimdTarget;

bool same_bits(float a, float b) { return bits_of(a) == bits_of(b) || (std::isnan(a) && std::isnan(b)); }

TEST_P(CodecKernels, BlocksEqualTheScalarArithmetic) {
  std::mt19937 random(5);
  const RandomKey key = random_key(42, 7, 3, 1, 0);
  for (const BlockFormat& format : k_formats) {
    const BlockKernels kernels = block_kernels(format.coding, format.bits);
    ASSERT_NE(kernels.encode, nullptr);
    for (const std::size_t count :
         {0u, 1u, 2u, 15u, 16u, 17u, 127u, 128u, 129u, 255u, 256u, 257u, 2047u, 2048u, 5000u}) {
      for (int kind = 0; kind < 9; ++kind) {
        const auto from = values_of(count, kind, random);
        const auto want = reference_encode(format, from, key);
        ASSERT_EQ(want.size(), format.bytes(count));
        // Messages need no alignment; those that begin with a word are written in other ways.
        std::vector<std::byte> got;
        std::size_t shift = 0;
        for (const std::size_t begin : {count % 3, 4 * (count % 17)}) {
          shift = begin;
          got.assign(want.size() + shift + 1, std::byte{0x5A});
          (void)kernels.encode(format, from.data(), count, got.data() + shift, key);
          ASSERT_EQ(got.back(), std::byte{0x5A});
          for (std::size_t i = 0; i < shift; ++i) ASSERT_EQ(got[i], std::byte{0x5A});
          for (std::size_t i = 0; i < want.size(); ++i) {
            ASSERT_EQ(got[shift + i], want[i])
                << "byte " << i << " of " << count << " values at " << shift << ", kind " << kind << ", coding "
                << int(format.coding) << " of " << format.bits << " bits";
          }
        }
        const std::span<const std::byte> body(got.data() + shift, want.size());

        const auto values = reference_decode(format, body, count);
        const auto before = values_of(count, 0, random);
        std::vector<float> stored(count), added = before, subtracted = before;
        ASSERT_TRUE(kernels.store(format, body.data(), stored.data(), count, 1.0f));
        ASSERT_TRUE(kernels.add(format, body.data(), added.data(), count, 1.0f));
        ASSERT_TRUE(kernels.subtract(format, body.data(), subtracted.data(), count, 1.0f));
        for (std::size_t i = 0; i < count; ++i) {
          ASSERT_TRUE(same_bits(stored[i], values[i])) << stored[i] << " is not " << values[i] << " at " << i;
          ASSERT_TRUE(same_bits(added[i], before[i] + values[i]));
          ASSERT_TRUE(same_bits(subtracted[i], before[i] - values[i]));
        }
      }
    }
  }
}

// Those are written around the caches, wherever they begin.
TEST_P(CodecKernels, LongMessagesHaveTheBitsOfShortOnes) {
  std::mt19937 random(8);
  constexpr std::size_t k_count = (std::size_t{9} << 18) + 77, k_short = std::size_t{1} << 18;
  const auto from = values_of(k_count, 0, random);
  for (const BlockFormat& format : {k_formats[0], k_formats[1]}) {
    const BlockKernels kernels = block_kernels(format.coding, format.bits);
    const std::size_t bytes = format.bytes(k_count);
    std::vector<std::byte> want(bytes);
    for (std::size_t at = 0; at < k_count; at += k_short) {
      ASSERT_FALSE(kernels.encode(format, from.data() + at, std::min(k_short, k_count - at),
                                  want.data() + format.bytes(at), RandomKey()));
    }
    std::vector<std::byte> got(bytes + 200);
    for (const std::size_t shift : {0u, 1u, 16u, 60u, 63u, 64u}) {
      std::fill(got.begin(), got.end(), std::byte{0x5A});
      ASSERT_FALSE(kernels.encode(format, from.data(), k_count, got.data() + shift, RandomKey()));
      ASSERT_TRUE(std::equal(want.begin(), want.end(), got.begin() + static_cast<std::ptrdiff_t>(shift))) << shift;
      for (std::size_t i = 0; i < shift; ++i) ASSERT_EQ(got[i], std::byte{0x5A});
      for (std::size_t i = shift + bytes; i < got.size(); ++i) ASSERT_EQ(got[i], std::byte{0x5A});
    }
  }
}

TEST_P(CodecKernels, HalvesEqualTheScalarArithmetic) {
  std::mt19937 random(6);
  for (const bool f16 : {true, false}) {
    const auto codec = make_codec(f16 ? "fp16" : "bf16").value();
    for (const std::size_t count : {0u, 1u, 3u, 15u, 16u, 17u, 100u, 70000u}) {
      for (int kind = 0; kind < 7; ++kind) {
        const auto from = values_of(count, kind, random);
        std::vector<std::byte> message(codec->max_bytes(count));
        const auto encoded = codec->encode(from, message, {}).value();
        ASSERT_EQ(encoded.bytes, message.size());
        bool non_finite = false;
        std::vector<float> values(count);
        for (std::size_t i = 0; i < count; ++i) {
          const std::uint16_t want = f16 ? f16_of(from[i]) : bf16_of(from[i]);
          std::uint16_t got = 0;
          std::memcpy(&got, message.data() + 16 + 2 * i, 2);
          ASSERT_EQ(got, want) << from[i];
          values[i] = f16 ? of_f16(want) : of_bf16(want);
          non_finite |= !std::isfinite(values[i]);
        }
        EXPECT_EQ(encoded.non_finite, non_finite);
        const auto before = values_of(count, 0, random);
        std::vector<float> added = before, subtracted = before, stored(count);
        ASSERT_TRUE(codec->decode(message, stored) && codec->decode_add(message, added) &&
                    codec->decode_subtract(message, subtracted));
        for (std::size_t i = 0; i < count; ++i) {
          ASSERT_TRUE(same_bits(stored[i], values[i]));
          ASSERT_TRUE(same_bits(added[i], before[i] + values[i]));
          ASSERT_TRUE(same_bits(subtracted[i], before[i] - values[i]));
        }
      }
    }
  }
}

TEST_P(CodecKernels, EveryHalfIsDecoded) {
  for (const bool f16 : {true, false}) {
    const auto codec = make_codec(f16 ? "fp16" : "bf16").value();
    const std::vector<float> zeros(1 << 16);
    std::vector<std::byte> message(codec->max_bytes(zeros.size()));
    ASSERT_TRUE(codec->encode(zeros, message, {}));
    for (std::size_t i = 0; i < zeros.size(); ++i) {
      const auto code = static_cast<std::uint16_t>(i);
      std::memcpy(message.data() + 16 + 2 * i, &code, 2);
    }
    std::vector<float> values(zeros.size());
    ASSERT_TRUE(codec->decode(message, values));
    for (std::size_t i = 0; i < zeros.size(); ++i) {
      const auto code = static_cast<std::uint16_t>(i);
      ASSERT_TRUE(same_bits(values[i], f16 ? of_f16(code) : of_bf16(code))) << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, CodecKernels, testing::ValuesIn(simd_targets_here()), simd_target_name);

}  // namespace
}  // namespace gradrail

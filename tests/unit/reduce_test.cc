// The reduce kernels, on every instruction set this CPU has and on the portable fallback, against a scalar reference
// that shares nothing with them: 16-bit floats are computed in double and rounded by decimal-free arithmetic on the
// significand.
#include "collectives/exec/kernels/reduce.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/simd_targets.h"

namespace gradrail {
namespace {

using Memory = std::vector<std::byte>;

// --- The reference: one element at a time, on bit patterns of up to 64 bits.

struct Format {
  int fraction;  // bits stored
  int bias;
  [[nodiscard]] std::uint64_t infinity() const { return std::uint64_t(2 * bias + 1) << fraction; }
  [[nodiscard]] std::uint64_t quiet_nan() const { return infinity() | std::uint64_t{1} << (fraction - 1); }
};
constexpr Format k_f16{10, 15};
constexpr Format k_bf16{7, 127};

double decode(std::uint64_t bits, Format f, int width) {
  const bool negative = (bits >> (width - 1)) & 1;
  const std::uint64_t size = bits & ((std::uint64_t{1} << (width - 1)) - 1);
  const auto exponent = static_cast<int>(size >> f.fraction);
  const auto fraction = static_cast<double>(size & ((std::uint64_t{1} << f.fraction) - 1));
  double value = 0;
  if (size > f.infinity()) return std::numeric_limits<double>::quiet_NaN();
  if (size == f.infinity()) {
    value = std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(fraction, 1 - f.bias - f.fraction);
  } else {
    value = std::ldexp(fraction + std::ldexp(1, f.fraction), exponent - f.bias - f.fraction);
  }
  return negative ? -value : value;
}

std::uint64_t encode(double value, Format f, int width) {
  if (std::isnan(value)) return f.quiet_nan();
  const std::uint64_t sign = std::uint64_t(std::signbit(value)) << (width - 1);
  const double size = std::fabs(value);
  if (size == 0) return sign;
  if (std::isinf(size)) return sign | f.infinity();
  const int exponent = std::max(std::ilogb(size), 1 - f.bias);
  const auto significand = static_cast<std::uint64_t>(std::nearbyint(std::ldexp(size, f.fraction - exponent)));
  // A significand without its leading one is a subnormal; one that was rounded up to the next power carries by itself.
  const std::uint64_t bits = (std::uint64_t(exponent + f.bias - 1) << f.fraction) + significand;
  return sign | std::min(bits, f.infinity());
}

template <class F>
F combine_floats(F a, F b, ReduceOp op) {
  F out{};
  switch (op) {
    case ReduceOp::avg:
    case ReduceOp::sum: out = a + b; break;
    case ReduceOp::prod: out = a * b; break;
    case ReduceOp::min: out = a < b || (a == b && std::signbit(a)) ? a : b; break;
    case ReduceOp::max: out = a > b || (a == b && !std::signbit(a)) ? a : b; break;
  }
  return std::isnan(a) || std::isnan(b) || std::isnan(out) ? std::numeric_limits<F>::quiet_NaN() : out;
}

template <class I>
I combine_integers(I a, I b, ReduceOp op) {
  const auto x = static_cast<std::uint64_t>(a), y = static_cast<std::uint64_t>(b);
  switch (op) {
    case ReduceOp::avg:
    case ReduceOp::sum: return static_cast<I>(x + y);
    case ReduceOp::prod: return static_cast<I>(x * y);
    case ReduceOp::min: return std::min(a, b);
    case ReduceOp::max: return std::max(a, b);
  }
  return {};
}

template <class T>
T get(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}
template <class T>
void put(std::byte* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

// Calls f with a zero of the type's C++ counterpart; 16-bit floats come as uint16_t with their format.
template <class F>
void with_type(Type type, F f) {
  switch (type) {
    case Type::i8: return f(std::int8_t{});
    case Type::u8: return f(std::uint8_t{});
    case Type::i32: return f(std::int32_t{});
    case Type::u32: return f(std::uint32_t{});
    case Type::i64: return f(std::int64_t{});
    case Type::u64: return f(std::uint64_t{});
    case Type::f16: return f(k_f16);
    case Type::bf16: return f(k_bf16);
    case Type::f32: return f(float{});
    case Type::f64: return f(double{});
  }
}

void reference_reduce(Type type, ReduceOp op, std::byte* to, const std::byte* a, const std::byte* b,
                      std::size_t count) {
  with_type(type, [&](auto zero) {
    using T = decltype(zero);
    for (std::size_t i = 0; i < count; ++i) {
      if constexpr (std::is_same_v<T, Format>) {
        const double x = decode(get<std::uint16_t>(a + 2 * i), zero, 16);
        const double y = decode(get<std::uint16_t>(b + 2 * i), zero, 16);
        put(to + 2 * i, static_cast<std::uint16_t>(encode(combine_floats(x, y, op), zero, 16)));
      } else if constexpr (std::is_floating_point_v<T>) {
        put(to + sizeof(T) * i, combine_floats(get<T>(a + sizeof(T) * i), get<T>(b + sizeof(T) * i), op));
      } else {
        put(to + sizeof(T) * i, combine_integers(get<T>(a + sizeof(T) * i), get<T>(b + sizeof(T) * i), op));
      }
    }
  });
}

// Bit patterns worth trying for a float of the given layout: zeros, subnormals, ends of ranges, infinities, NaNs with
// different payloads, and neighbours of one.
std::vector<std::uint64_t> special_patterns(Format f, int width) {
  const std::uint64_t one = std::uint64_t(f.bias) << f.fraction, least_normal = std::uint64_t{1} << f.fraction;
  std::vector<std::uint64_t> out = {0,
                                    1,
                                    2,
                                    3,
                                    least_normal - 1,
                                    least_normal,
                                    least_normal + 1,
                                    one - 1,
                                    one,
                                    one + 1,
                                    one + least_normal,
                                    f.infinity() - 1,
                                    f.infinity() - 2,
                                    f.infinity(),
                                    f.infinity() + 1,
                                    f.quiet_nan(),
                                    f.quiet_nan() + 5,
                                    f.infinity() | (least_normal - 1)};
  const auto positive = out.size();
  for (std::size_t i = 0; i < positive; ++i) out.push_back(out[i] | std::uint64_t{1} << (width - 1));
  return out;
}

struct Layout {
  Type type;
  Format format;
  int width;
};
constexpr Layout k_float_layouts[] = {
    {Type::f16, k_f16, 16}, {Type::bf16, k_bf16, 16}, {Type::f32, {23, 127}, 32}, {Type::f64, {52, 1023}, 64}};

// Random bits, so floats of every kind; and for three of four elements of a float type, numbers near one, where
// rounding shows.
void fill(Type type, std::byte* at, std::size_t count, std::mt19937_64& random) {
  for (std::size_t i = 0; i < count * size_of(type); ++i) at[i] = static_cast<std::byte>(random());
  for (const Layout& layout : k_float_layouts) {
    if (layout.type != type) continue;
    const auto bytes = size_of(type);
    const std::uint64_t least_normal = std::uint64_t{1} << layout.format.fraction;
    for (std::size_t i = 0; i < count; ++i) {
      if (random() % 4 == 0) continue;
      std::uint64_t bits =
          (std::uint64_t(layout.format.bias - 2) << layout.format.fraction) + random() % (4 * least_normal);
      bits |= (random() & 1) << (layout.width - 1);
      std::memcpy(at + i * bytes, &bits, bytes);
    }
  }
}

// --- One run of all tests for each instruction set.

class ReduceTest : public OnSimdTarget {
 protected:
  void SetUp() override {
    OnSimdTarget::SetUp();
    ASSERT_STREQ(simd_target(), hwy::TargetName(GetParam()));
  }
};

std::string name_of(Type type, ReduceOp op) { return std::string(to_string(type)) + " " + std::string(to_string(op)); }

TEST_P(ReduceTest, EveryTypeAndOpOverRaggedCountsMisalignedAndAliased) {
  constexpr std::size_t k_guard = 64;
  std::mt19937_64 random(7);
  for (const Type type : k_types) {
    for (const ReduceOp op : k_reduce_ops) {
      const ReduceFn reduce = reduce_function(type, op);
      for (std::size_t count = 0; count <= 200; ++count) {
        const std::size_t bytes = count * size_of(type);
        // Starts that are aligned, aligned to the element only, and to nothing.
        const std::size_t shift_a = count % 3 * size_of(type), shift_b = count % 7,
                          shift_to = count % 5 * size_of(type) + count % 2;
        Memory a(bytes + 2 * k_guard), b(bytes + 2 * k_guard), to(bytes + 2 * k_guard, std::byte{0x5A}), want = to;
        std::byte* const pa = a.data() + shift_a;
        std::byte* const pb = b.data() + shift_b;
        fill(type, pa, count, random);
        fill(type, pb, count, random);
        reference_reduce(type, op, want.data() + shift_to, pa, pb, count);
        reduce(to.data() + shift_to, pa, pb, count);
        ASSERT_EQ(to, want) << name_of(type, op) << ", " << count << " elements";

        const std::byte* const result = want.data() + shift_to;
        Memory in_a = a, in_b = b;
        reduce(in_a.data() + shift_a, in_a.data() + shift_a, pb, count);
        reduce(in_b.data() + shift_b, pa, in_b.data() + shift_b, count);
        std::copy_n(result, bytes, pa);
        ASSERT_EQ(in_a, a) << name_of(type, op) << " into its first operand, " << count << " elements";
        std::copy_n(result, bytes, pb);
        ASSERT_EQ(in_b, b) << name_of(type, op) << " into its second operand, " << count << " elements";
      }
    }
  }
}

TEST_P(ReduceTest, AvgReducesAsSum) {
  for (const Type type : k_types) {
    EXPECT_EQ(reduce_function(type, ReduceOp::avg), reduce_function(type, ReduceOp::sum));
    EXPECT_EQ(reduce_many_function(type, ReduceOp::avg), reduce_many_function(type, ReduceOp::sum));
  }
}

TEST_P(ReduceTest, SpecialValuesInBothOrders) {
  for (const auto& [type, format, width] : k_float_layouts) {
    const auto patterns = special_patterns(format, width);
    const auto bytes = size_of(type);
    const std::size_t count = patterns.size() * patterns.size();
    Memory a(count * bytes), b(count * bytes), ab(count * bytes), ba(count * bytes), want(count * bytes);
    for (std::size_t i = 0; i < count; ++i) {
      std::memcpy(a.data() + i * bytes, &patterns[i / patterns.size()], bytes);
      std::memcpy(b.data() + i * bytes, &patterns[i % patterns.size()], bytes);
    }
    for (const ReduceOp op : k_reduce_ops) {
      reference_reduce(type, op, want.data(), a.data(), b.data(), count);
      reduce_function(type, op)(ab.data(), a.data(), b.data(), count);
      reduce_function(type, op)(ba.data(), b.data(), a.data(), count);
      EXPECT_EQ(ab, want) << name_of(type, op);
      EXPECT_EQ(ba, want) << name_of(type, op) << ", operands exchanged";
    }
  }
}

// Every 16-bit float against a partner drawn at random: all roundings, subnormals and overflows of f16 and bf16.
TEST_P(ReduceTest, Every16BitFloat) {
  constexpr std::size_t k_count = 1 << 16;
  std::mt19937_64 random(11);
  Memory a(2 * k_count), b(2 * k_count), to(2 * k_count), want(2 * k_count);
  for (const Type type : {Type::f16, Type::bf16}) {
    for (std::size_t i = 0; i < k_count; ++i) put(a.data() + 2 * i, static_cast<std::uint16_t>(i));
    fill(type, b.data(), k_count, random);
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::prod, ReduceOp::min, ReduceOp::max}) {
      reference_reduce(type, op, want.data(), a.data(), b.data(), k_count);
      reduce_function(type, op)(to.data(), a.data(), b.data(), k_count);
      EXPECT_EQ(to, want) << name_of(type, op);
    }
  }
}

TEST_P(ReduceTest, ManyEqualsTheChainOfPairs) {
  std::mt19937_64 random(13);
  for (const Type type : k_types) {
    for (const ReduceOp op : k_reduce_ops) {
      for (const std::size_t inputs : {1u, 2u, 3u, 5u, 8u, 9u, 19u}) {
        for (const std::size_t count : {0u, 1u, 7u, 64u, 65u, 333u, 2049u}) {
          const std::size_t bytes = count * size_of(type);
          std::vector<Memory> from(inputs, Memory(bytes + 8));
          for (std::size_t k = 0; k < inputs; ++k) fill(type, from[k].data() + k % 4, count, random);
          Memory chain(from[0].begin(), from[0].begin() + static_cast<std::ptrdiff_t>(bytes));
          for (std::size_t k = 1; k < inputs; ++k) {
            reduce_function(type, op)(chain.data(), chain.data(), from[k].data() + k % 4, count);
          }
          // Outputs: one of its own, and every second input.
          Memory own(bytes + 1, std::byte{0x5A});
          std::vector<const std::byte*> inputs_at;
          std::vector<std::byte*> outputs_at = {own.data()};
          for (std::size_t k = 0; k < inputs; ++k) {
            inputs_at.push_back(from[k].data() + k % 4);
            if (k % 2 == 1) outputs_at.push_back(from[k].data() + k % 4);
          }
          const std::vector<Memory> before = from;
          // The first output is the one that is no input.
          reduce_many_function(type, op)(outputs_at, inputs_at, count, inputs % 2);
          for (std::byte* out : outputs_at) {
            ASSERT_TRUE(std::equal(chain.begin(), chain.end(), out))
                << name_of(type, op) << ", " << inputs << " inputs, " << count << " elements";
          }
          ASSERT_EQ(own.back(), std::byte{0x5A});
          for (std::size_t k = 0; k < inputs; k += 2) ASSERT_EQ(from[k], before[k]) << "an input was written";
          for (std::size_t k = 1; k < inputs; k += 2) {
            ASSERT_TRUE(std::equal(from[k].begin() + static_cast<std::ptrdiff_t>(bytes + k % 4), from[k].end(),
                                   before[k].begin() + static_cast<std::ptrdiff_t>(bytes + k % 4)));
          }
        }
      }
    }
  }
}

TEST_P(ReduceTest, DividesForAvg) {
  std::mt19937_64 random(17);
  for (const Type type : k_types) {
    for (const int ranks : {1, 2, 3, 7, 128, 1000, 2147483647}) {
      for (const std::size_t count : {0u, 1u, 5u, 64u, 131u}) {
        Memory data(count * size_of(type) + 3);
        fill(type, data.data() + 1, count, random);
        Memory want = data;
        with_type(type, [&](auto zero) {
          using T = decltype(zero);
          for (std::size_t i = 0; i < count; ++i) {
            std::byte* const at = want.data() + 1 + i * size_of(type);
            if constexpr (std::is_same_v<T, Format>) {
              // The divisor as an f32, as documented: computed in f32.
              const auto value = static_cast<float>(decode(get<std::uint16_t>(at), zero, 16));
              put(at, static_cast<std::uint16_t>(encode(value / static_cast<float>(ranks), zero, 16)));
            } else if constexpr (std::is_floating_point_v<T>) {
              put(at, get<T>(at) / static_cast<T>(ranks));
            } else if constexpr (std::is_signed_v<T>) {
              put(at, static_cast<T>(std::int64_t{get<T>(at)} / ranks));
            } else {
              put(at, static_cast<T>(std::uint64_t{get<T>(at)} / static_cast<unsigned>(ranks)));
            }
          }
        });
        divide_function(type)(data.data() + 1, count, ranks);
        for (std::size_t i = 0; i < count; ++i) {
          const std::byte* const got = data.data() + 1 + i * size_of(type);
          const std::byte* const ref = want.data() + 1 + i * size_of(type);
          bool same = std::equal(got, got + size_of(type), ref);
          // The payload of a NaN that was in the data is not part of the contract.
          if (type == Type::f32) same |= std::isnan(get<float>(got)) && std::isnan(get<float>(ref));
          if (type == Type::f64) same |= std::isnan(get<double>(got)) && std::isnan(get<double>(ref));
          if (type == Type::f16)
            same |= std::isnan(decode(get<std::uint16_t>(got), k_f16, 16)) &&
                    std::isnan(decode(get<std::uint16_t>(ref), k_f16, 16));
          if (type == Type::bf16)
            same |= std::isnan(decode(get<std::uint16_t>(got), k_bf16, 16)) &&
                    std::isnan(decode(get<std::uint16_t>(ref), k_bf16, 16));
          ASSERT_TRUE(same) << to_string(type) << " / " << ranks << ", element " << i << " of " << count;
        }
        ASSERT_EQ(data.front(), std::byte{0});
        ASSERT_EQ(data.back(), std::byte{0});
      }
    }
  }
}

TEST(ReduceReference, RoundsToNearestEven) {
  EXPECT_EQ(encode(1.0, k_f16, 16), 0x3C00u);
  EXPECT_EQ(encode(2049.0, k_f16, 16), encode(2048.0, k_f16, 16));
  EXPECT_EQ(encode(2051.0, k_f16, 16), encode(2052.0, k_f16, 16));
  EXPECT_EQ(encode(65519.0, k_f16, 16), 0x7BFFu);
  EXPECT_EQ(encode(65520.0, k_f16, 16), 0x7C00u);
  EXPECT_EQ(encode(std::ldexp(1, -25), k_f16, 16), 0u);
  EXPECT_EQ(encode(std::ldexp(3, -26), k_f16, 16), 1u);
  EXPECT_EQ(encode(1.0, k_bf16, 16), 0x3F80u);
  EXPECT_EQ(decode(0xC000, k_bf16, 16), -2.0);
}

INSTANTIATE_TEST_SUITE_P(Targets, ReduceTest, testing::ValuesIn(simd_targets_here()), simd_target_name);

}  // namespace
}  // namespace gradrail

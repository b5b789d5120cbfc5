// The arithmetic of the codecs, one value or one block's scale at a time, as functions that compile for the host and
// for CUDA devices alike. They define the wire format: the vector kernels on the host must give the same bits (tested
// on every instruction set), and so must kernels on a device. Compile with contraction of a*b+c switched off.
//
// A block's codes q stand for (q * (1/L)) * scale, where L is the largest level. L * (1/L) is 1 in float32 for every L
// used here, so that the block's largest value is kept exactly, and neither overflow nor denormals need care in
// decoding. In encoding, values are first moved near 1 by a power of two, so that the reciprocal is finite.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define GRADRAIL_DEVICE __host__ __device__
#else
#include <cmath>
#define GRADRAIL_DEVICE
#endif

namespace gradrail::arithmetic {

inline constexpr std::uint32_t k_quiet_nan = 0x7FC00000u;
inline constexpr std::uint32_t k_infinity = 0x7F800000u;

GRADRAIL_DEVICE inline std::uint32_t bits_of(float value) {
  std::uint32_t bits = 0;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
GRADRAIL_DEVICE inline float float_of(std::uint32_t bits) {
  float value = 0;
  memcpy(&value, &bits, sizeof value);
  return value;
}
GRADRAIL_DEVICE inline std::uint32_t size_bits(float value) { return bits_of(value) & 0x7FFFFFFFu; }

// A power of two that brings a finite `largest` between 2^-22 and 4. Exact to multiply by, and its inverse to divide
// by.
GRADRAIL_DEVICE inline float power_near(float largest) {
  const std::uint32_t exponent = bits_of(largest) >> 23;
  return float_of((exponent >= 253 ? 1u : 254u - exponent) << 23);
}

// How a block's values become levels: level = (value * pre) * factor.
struct Steps {
  float pre = 0;
  float factor = 0;
};
// `scale` stands for level `levels`; 0 makes all levels 0.
GRADRAIL_DEVICE inline Steps steps_of(float scale, float levels) {
  const float pre = power_near(scale);
  const float near = scale * pre;
  if (!(near > 0)) return {};
  return {pre, levels / near};
}
GRADRAIL_DEVICE inline float level_of(float value, Steps steps) { return (value * steps.pre) * steps.factor; }
GRADRAIL_DEVICE inline float value_of(float level, float inverse_levels, float scale) {
  return (level * inverse_levels) * scale;
}

// A scale as it may stand in a message: finite and not negative, or the one quiet NaN that marks a block.
GRADRAIL_DEVICE inline bool is_scale(std::uint32_t bits) { return bits < k_infinity || bits == k_quiet_nan; }

// --- Rounding.

// To nearest, ties to even; |value| below 2^22. The adder does it.
GRADRAIL_DEVICE inline std::int32_t nearest(float value) {
  return static_cast<std::int32_t>(bits_of(value + 12582912.0f)) - 0x4B400000;
}
// A uniform number in [0, 1) with 24 bits.
GRADRAIL_DEVICE inline float uniform(std::uint32_t random) {
  return static_cast<float>(static_cast<std::int32_t>(random >> 8)) * 5.9604644775390625e-8f;
}
// Up with the probability of the fraction, at most `most`; the sign of `level` is kept. On average it is `level`.
GRADRAIL_DEVICE inline std::int32_t stochastic(float level, std::uint32_t random, std::int32_t most) {
  const float size = float_of(bits_of(level) & 0x7FFFFFFFu);
  const auto whole = static_cast<std::int32_t>(size);
  const float fraction = size - static_cast<float>(whole);
  std::int32_t out = whole + (uniform(random) < fraction ? 1 : 0);
  out = out < most ? out : most;
  return (bits_of(level) >> 31) != 0 ? -out : out;
}

// --- Two's complement codes of a few bits.

GRADRAIL_DEVICE inline std::uint32_t code_of(std::int32_t q, int bits) {
  return static_cast<std::uint32_t>(q) & ((1u << bits) - 1u);
}
GRADRAIL_DEVICE inline std::int32_t q_of(std::uint32_t code, int bits) {
  return static_cast<std::int32_t>(code << (32 - bits)) >> (32 - bits);
}

// --- bf16 and f16: to nearest even; a NaN becomes the quiet one.

GRADRAIL_DEVICE inline std::uint16_t bf16_of(float value) {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7FFFFFFFu) > k_infinity) return 0x7FC0;
  return static_cast<std::uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}
GRADRAIL_DEVICE inline float of_bf16(std::uint16_t code) { return float_of(static_cast<std::uint32_t>(code) << 16); }

GRADRAIL_DEVICE inline std::uint16_t f16_of(float value) {
  const std::uint32_t bits = bits_of(value), size = bits & 0x7FFFFFFFu;
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  if (size > k_infinity) return 0x7E00;
  if (size > 0x477FFFFFu) return static_cast<std::uint16_t>(sign | 0x7C00u);
  if (size < 0x38800000u) {
    // 1/2 has its last place where the subnormals of f16 have theirs.
    return static_cast<std::uint16_t>(sign | (bits_of(float_of(size) + 0.5f) - 0x3F000000u));
  }
  return static_cast<std::uint16_t>(sign | ((size + 0xC8000FFFu + ((size >> 13) & 1u)) >> 13));
}
GRADRAIL_DEVICE inline float of_f16(std::uint16_t code) {
  const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x8000u) << 16, size = code & 0x7FFFu;
  if (size >= 0x7C00u) return float_of(sign | k_infinity | ((size & 0x3FFu) << 13));
  if (size < 0x400u) return float_of(sign | bits_of(static_cast<float>(size) * 5.9604644775390625e-8f));
  return float_of(sign | ((size << 13) + (112u << 23)));
}

// --- fp8, after Micikevicius et al., "FP8 formats for deep learning" (2022). Codes of finite numbers only.

// Mantissa bits and exponent bias: 3 and 7 for e4m3, 2 and 15 for e5m2.
template <int k_mantissa, int k_bias>
struct Fp8 {
  static constexpr int k_drop = 23 - k_mantissa;
  static constexpr std::uint32_t k_least_normal = static_cast<std::uint32_t>(128 - k_bias) << 23;
  // A float whose last place is that of the subnormals.
  static constexpr std::uint32_t k_adder = static_cast<std::uint32_t>(127 + 23 + 1 - k_bias - k_mantissa) << 23;
  static constexpr std::uint32_t k_rebias = static_cast<std::uint32_t>(127 - k_bias) << k_mantissa;
  static constexpr std::uint32_t k_half = (1u << (k_drop - 1)) - 1u;
  // 2 to the power of the subnormals' last place.
  static constexpr std::uint32_t k_subnormal = static_cast<std::uint32_t>(127 + 1 - k_bias - k_mantissa) << 23;

  GRADRAIL_DEVICE static std::uint32_t code(float value) {
    const std::uint32_t bits = bits_of(value), size = bits & 0x7FFFFFFFu;
    const std::uint32_t out = size < k_least_normal ? bits_of(float_of(size) + float_of(k_adder)) - k_adder
                                                    : ((size + k_half + ((size >> k_drop) & 1u)) >> k_drop) - k_rebias;
    return out | ((bits >> 24) & 0x80u);
  }
  GRADRAIL_DEVICE static float value(std::uint32_t code) {
    const std::uint32_t size = code & 0x7Fu;
    const std::uint32_t out = size < (1u << k_mantissa)
                                  ? bits_of(static_cast<float>(static_cast<std::int32_t>(size)) * float_of(k_subnormal))
                                  : (size + k_rebias) << k_drop;
    return float_of(out | ((code & 0x80u) << 24));
  }
};
using E4m3 = Fp8<3, 7>;
using E5m2 = Fp8<2, 15>;
inline constexpr float k_e4m3_largest = 448;
inline constexpr float k_e5m2_largest = 57344;

// --- Blocks. Where the code of a value stands.
//
// Values are taken in groups of 128, seen as 8 rows of 16. Codes of one column share bytes, so that vectors of any
// width pack them without moving anything between lanes: with b bits, row r stands in the bits (r % (8/b)) * b of byte
// (r / (8/b)) * 16 + column.
inline constexpr std::uint32_t k_group = 128;
inline constexpr std::uint32_t k_columns = 16;
inline constexpr std::uint32_t k_rows = 8;

GRADRAIL_DEVICE constexpr std::uint32_t byte_in_group(std::uint32_t row, std::uint32_t column, std::uint32_t bits) {
  return row / (8 / bits) * k_columns + column;
}
GRADRAIL_DEVICE constexpr std::uint32_t bit_in_byte(std::uint32_t row, std::uint32_t bits) {
  return row % (8 / bits) * bits;
}

// Sums over a block are made in one order everywhere: 16 sums, one a column, over the rows from the first to the last;
// then the upper half is added to the lower one, four times.
GRADRAIL_DEVICE inline float total(float (&sums)[k_columns]) {
  for (std::uint32_t half = k_columns / 2; half > 0; half /= 2) {
    for (std::uint32_t i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
  }
  return sums[0];
}

GRADRAIL_DEVICE inline float square_root(float value) {
#if defined(__CUDA_ARCH__)
  return __fsqrt_rn(value);
#else
  return std::sqrt(value);
#endif
}

}  // namespace gradrail::arithmetic

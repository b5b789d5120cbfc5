// One value, and one byte of packed codes, of a block format: arithmetic.h put together for host and device. The vector
// kernels (blocks.cc) are tested against it; the CUDA kernels (blocks.cu) are made of it.
#pragma once

#include "collectives/compress/blocks.h"

namespace gradrail::arithmetic {

GRADRAIL_DEVICE inline std::uint32_t encode_value(const BlockFormat& format, float value, Steps steps,
                                                  std::uint32_t random) {
  const float level = level_of(value, steps);
  const int bits = static_cast<int>(format.bits);
  switch (format.coding) {
    case Coding::nearest: return code_of(nearest(level), bits);
    case Coding::stochastic: return code_of(stochastic(level, random, static_cast<std::int32_t>(format.levels)), bits);
    case Coding::e4m3: return E4m3::code(level);
    case Coding::e5m2: return E5m2::code(level);
    case Coding::sign: break;
  }
  return bits_of(value) >> 31;
}

GRADRAIL_DEVICE inline float decode_value(const BlockFormat& format, std::uint32_t code, float scale) {
  const float inverse = 1.0f / format.levels;
  switch (format.coding) {
    case Coding::nearest:
    case Coding::stochastic:
      return value_of(static_cast<float>(q_of(code, static_cast<int>(format.bits))), inverse, scale);
    case Coding::e4m3: return value_of(E4m3::value(code), inverse, scale);
    case Coding::e5m2: return value_of(E5m2::value(code), inverse, scale);
    case Coding::sign: break;
  }
  return value_of(code != 0 ? -1.0f : 1.0f, inverse, scale);
}

// Byte `byte` of a group's codes, of which there are 16 * bits; `x` are the group's values, `present` of them real.
GRADRAIL_DEVICE inline std::uint8_t encode_byte(const BlockFormat& format, const float* x, std::size_t present,
                                                std::uint32_t byte, Steps steps, const RandomKey& key,
                                                std::uint64_t group) {
  const std::uint32_t parts = 8 / format.bits, column = byte % k_columns, first = byte / k_columns * parts;
  std::uint32_t out = 0;
  for (std::uint32_t part = 0; part < parts; ++part) {
    const std::uint32_t row = first + part, index = row * k_columns + column;
    const float value = index < present ? x[index] : 0.0f;
    const std::uint32_t random = format.coding == Coding::stochastic ? random_word(key, group, row, column) : 0;
    out |= encode_value(format, value, steps, random) << (part * format.bits);
  }
  return static_cast<std::uint8_t>(out);
}

// The code of the group's value `index` among the group's bytes.
GRADRAIL_DEVICE inline std::uint32_t code_in_group(const BlockFormat& format, const std::uint8_t* bytes,
                                                   std::uint32_t index) {
  const std::uint32_t row = index / k_columns, column = index % k_columns;
  const std::uint32_t byte = bytes[byte_in_group(row, column, format.bits)];
  return byte >> bit_in_byte(row, format.bits) & ((1u << format.bits) - 1u);
}

// A block's scale from the largest size of its values (as bits) and, for scales that are sums, from the sums over
// columns of (value * power_near(largest)), squared or without sign. `values`: how many are real.
GRADRAIL_DEVICE inline std::uint32_t scale_from(Scaling scaling, std::uint32_t largest, float (&sums)[k_columns],
                                                std::size_t values) {
  if (largest >= k_infinity) return k_quiet_nan;
  if (scaling == Scaling::largest || scaling == Scaling::none || largest == 0) return largest;
  const float pre = power_near(float_of(largest)), sum = total(sums);
  const float scale = scaling == Scaling::norm ? square_root(sum) / pre : sum / static_cast<float>(values) / pre;
  return bits_of(scale) >= k_infinity ? k_quiet_nan : bits_of(scale);
}

}  // namespace gradrail::arithmetic

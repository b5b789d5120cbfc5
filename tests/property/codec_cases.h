// What the tests of codecs share: names of codecs of every kind, and values of every kind.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/codec.h"

namespace gradrail {

// Every kind's example, and the other forms that a kind has.
inline std::vector<std::string> codec_names() {
  std::vector<std::string> names = {"fp8:e5m2",  "qsgd:2", "qsgd:8",           "qsgd:4:max",
                                    "topk:0.5",  "topk:1", "topk:0.1:sampled", "randomk:0.3:unbiased",
                                    "powersgd:1"};
  for (const CodecKind* kind : codec_kinds()) names.emplace_back(kind->example);
  return names;
}

enum class Values { normal, wide, subnormal, zero, huge, equal, outlier, with_nan, with_infinity, any_bits };
inline constexpr Values k_finite_values[] = {Values::normal, Values::wide,  Values::subnormal, Values::zero,
                                             Values::huge,   Values::equal, Values::outlier};
inline constexpr Values k_all_values[] = {Values::normal,        Values::wide,    Values::subnormal, Values::zero,
                                          Values::huge,          Values::equal,   Values::outlier,   Values::with_nan,
                                          Values::with_infinity, Values::any_bits};

inline std::vector<float> make_values(std::size_t count, Values kind, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& value : out) {
    switch (kind) {
      case Values::wide: value = std::ldexp(normal(random), static_cast<int>(random() % 60) - 30); break;
      case Values::subnormal: value = arithmetic::float_of(random() & 0x807FFFFFu); break;
      case Values::zero: value = 0.0f; break;
      case Values::huge: value = std::ldexp(normal(random), 110); break;
      case Values::equal: value = -0.375f; break;
      case Values::any_bits: value = arithmetic::float_of(random()); break;
      default: value = normal(random); break;
    }
  }
  if (count == 0) return out;
  if (kind == Values::outlier) out[random() % count] = -1e30f;
  if (kind == Values::with_nan) out[random() % count] = std::nanf("");
  if (kind == Values::with_infinity) out[random() % count] = -INFINITY;
  return out;
}

inline std::vector<std::byte> encode_all(Codec& codec, std::span<const float> from, const Origin& origin = {}) {
  std::vector<std::byte> message(codec.max_bytes(from.size()));
  message.resize(codec.encode(from, message, origin).value().bytes);
  return message;
}

inline std::vector<float> decode_all(const Codec& codec, std::span<const std::byte> message, std::size_t count) {
  std::vector<float> out(count, -77.0f);
  EXPECT_TRUE(codec.decode(message, out));
  return out;
}

inline std::unique_ptr<Codec> codec_of(std::string_view name) { return make_codec(name).value(); }

}  // namespace gradrail

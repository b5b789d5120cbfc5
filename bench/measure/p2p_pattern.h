// The random bytes with which two ranks check what came over. Pure; a pattern is known by its seed.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace gradrail {

// splitmix64 of a counter (Steele, Lea and Flood 2014)
inline std::uint64_t random_at(std::uint64_t counter) {
  std::uint64_t z = (counter + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Calls f(place, length, word) for every eight bytes of the pattern.
template <class F>
void for_each_word(std::size_t bytes, std::uint64_t seed, F f) {
  for (std::size_t at = 0; at < bytes; at += 8) f(at, std::min<std::size_t>(8, bytes - at), random_at(seed + at));
}

inline void fill(std::span<std::byte> data, std::uint64_t seed) {
  for_each_word(data.size(), seed, [&](std::size_t at, std::size_t length, std::uint64_t word) {
    std::memcpy(data.data() + at, &word, length);
  });
}

inline std::int64_t differences(std::span<const std::byte> data, std::uint64_t seed) {
  std::int64_t wrong = 0;
  for_each_word(data.size(), seed, [&](std::size_t at, std::size_t length, std::uint64_t word) {
    std::array<std::byte, 8> expected;
    std::memcpy(expected.data(), &word, 8);
    if (std::memcmp(data.data() + at, expected.data(), length) == 0) return;
    for (std::size_t i = 0; i < length; ++i) wrong += data[at + i] != expected[i];
  });
  return wrong;
}

}  // namespace gradrail

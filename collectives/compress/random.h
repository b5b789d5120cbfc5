// Counter-based random numbers: a pure function of (origin, element), the same on every rank layout, in every order,
// on host and device. Philox4x32-7 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011, section
// 3.3), which makes four 32-bit words of a 128-bit counter and a 64-bit key.
//
// The element at offset e of a tensor, seen as in arithmetic.h in groups of 8 rows by 16 columns, takes word (row % 4)
// of the counter (2 * group + row / 4) * 16 + column.
#pragma once

#include <cstdint>

#include "collectives/compress/arithmetic.h"

namespace gradrail {

struct RandomKey {
  std::uint32_t key[2] = {};
  std::uint32_t step = 0;
  std::uint32_t tensor = 0;
  std::uint64_t first_group = 0;
};

namespace philox {
inline constexpr int k_rounds = 7;
inline constexpr std::uint32_t k_multiplier[2] = {0xD2511F53u, 0xCD9E8D57u};
inline constexpr std::uint32_t k_weyl[2] = {0x9E3779B9u, 0xBB67AE85u};

struct Words {
  std::uint32_t word[4];
};

GRADRAIL_DEVICE inline Words words(Words counter, std::uint32_t key0, std::uint32_t key1, int rounds = k_rounds) {
  auto& x = counter.word;
  for (int round = 0; round < rounds; ++round) {
    const std::uint64_t a = std::uint64_t{0xD2511F53u} * x[0], b = std::uint64_t{0xCD9E8D57u} * x[2];
    counter = {{static_cast<std::uint32_t>(b >> 32) ^ x[1] ^ key0, static_cast<std::uint32_t>(b),
                static_cast<std::uint32_t>(a >> 32) ^ x[3] ^ key1, static_cast<std::uint32_t>(a)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}
}  // namespace philox

GRADRAIL_DEVICE inline philox::Words counter_of(const RandomKey& key, std::uint64_t block) {
  return {{static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), key.step, key.tensor}};
}

// For the element at `row` and `column` of a group counted from where the key's span begins.
GRADRAIL_DEVICE inline std::uint32_t random_word(const RandomKey& key, std::uint64_t group, std::uint32_t row,
                                                 std::uint32_t column) {
  const std::uint64_t block = ((key.first_group + group) * 2 + row / 4) * arithmetic::k_columns + column;
  return philox::words(counter_of(key, block), key.key[0], key.key[1]).word[row % 4];
}

// Spreads any difference of its argument over all bits (the finalizer of splitmix64).
GRADRAIL_DEVICE inline std::uint64_t spread(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

GRADRAIL_DEVICE inline RandomKey random_key(std::uint64_t seed, std::uint64_t step, std::uint32_t tensor,
                                            std::uint32_t rank, std::uint64_t first) {
  // A span that begins within a group has numbers of its own.
  const std::uint64_t within = first % arithmetic::k_group;
  const std::uint64_t key = spread(spread(spread(seed + 1) + rank + 1) + (step >> 32) * arithmetic::k_group + within);
  return {{static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)},
          static_cast<std::uint32_t>(step),
          tensor,
          first / arithmetic::k_group};
}

}  // namespace gradrail

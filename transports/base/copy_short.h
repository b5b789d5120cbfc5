// Copies of a few bytes without a call: whole words, the last one overlapping. Up to 64 bytes.
#pragma once

#include <cstddef>
#include <cstring>

namespace gradrail {

inline void copy_short(std::byte* to, const std::byte* from, std::size_t size) {
  const auto ends = [&](auto word) {
    std::memcpy(&word, from, sizeof word);
    auto last = word;
    std::memcpy(&last, from + size - sizeof last, sizeof last);
    std::memcpy(to, &word, sizeof word);
    std::memcpy(to + size - sizeof last, &last, sizeof last);
  };
  struct Words {
    unsigned long long word[4];
  };
  struct Half {
    unsigned long long word[2];
  };
  if (size >= 32) {
    ends(Words{});
  } else if (size >= 16) {
    ends(Half{});
  } else if (size >= 8) {
    ends(0ULL);
  } else if (size >= 4) {
    ends(0U);
  } else {
    for (std::size_t i = 0; i < size; ++i) to[i] = from[i];
  }
}

}  // namespace gradrail

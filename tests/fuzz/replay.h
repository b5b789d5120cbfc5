// Replays a corpus: whatever once was interesting must not break anything again, nor any piece of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace gradrail {

// Gives every file of tests/fuzz/NAME, whole and cut anywhere, to `target`. Returns how many files there are.
inline int replay(const std::string& name, int (*target)(const std::uint8_t* data, std::size_t size)) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GRADRAIL_SOURCE_DIR "/tests/fuzz/" + name)) {
    std::ifstream file(entry.path(), std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    // A copy of just that length, so that reading past it is seen by a sanitizer.
    const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
    EXPECT_EQ(target(exact.data(), exact.size()), 0) << entry.path();
    for (std::size_t length = 0; length < exact.size(); length += 1 + exact.size() / 50) {
      const std::vector<std::uint8_t> shorter(exact.begin(), exact.begin() + static_cast<std::ptrdiff_t>(length));
      target(shorter.data(), shorter.size());
    }
    ++files;
  }
  return files;
}

}  // namespace gradrail

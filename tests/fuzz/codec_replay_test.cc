// Replays the corpus of the codecs' fuzz target: whatever once was interesting must not break anything again.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

TEST(CodecFuzz, TheCorpusBreaksNothing) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(GRADRAIL_SOURCE_DIR "/tests/fuzz/codec_corpus")) {
    std::ifstream file(entry.path(), std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    // A copy of just that length, so that reading past it is seen by a sanitizer.
    const std::vector<std::uint8_t> exact(bytes.begin(), bytes.end());
    EXPECT_EQ(LLVMFuzzerTestOneInput(exact.data(), exact.size()), 0) << entry.path();
    // Cut anywhere, too.
    for (std::size_t length = 0; length < exact.size(); length += 1 + exact.size() / 50) {
      const std::vector<std::uint8_t> shorter(exact.begin(), exact.begin() + static_cast<std::ptrdiff_t>(length));
      LLVMFuzzerTestOneInput(shorter.data(), shorter.size());
    }
    ++files;
  }
  EXPECT_GT(files, 20);
}

}  // namespace

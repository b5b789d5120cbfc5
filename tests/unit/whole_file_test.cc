// A table is written whole or not at all, and takes the place of no device, pipe or link.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>

#include "bench/measure/selectors.h"
#include "transports/base/fd.h"

namespace gradrail {
namespace {

namespace fs = std::filesystem;

class WholeFile : public ::testing::Test {
 protected:
  void SetUp() override {
    auto pattern = (fs::temp_directory_path() / "gradrail-test-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  static std::string text_of(const fs::path& path) {
    std::ifstream in(path);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  [[nodiscard]] std::ptrdiff_t files() const {
    return std::distance(fs::directory_iterator(folder_), fs::directory_iterator());
  }

  fs::path folder_;
};

TEST_F(WholeFile, ReplacesAFile) {
  const fs::path path = folder_ / "table.json";
  ASSERT_TRUE(write_whole_file(path, "first, and longer"));
  ASSERT_TRUE(write_whole_file(path, "second"));
  EXPECT_EQ(text_of(path), "second");
  EXPECT_EQ(files(), 1);
}

TEST_F(WholeFile, APipeStaysAPipe) {
  const fs::path path = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const Fd reader(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(reader);
  ASSERT_TRUE(write_whole_file(path, "through"));
  EXPECT_TRUE(fs::is_fifo(path));
  std::array<char, 16> read{};
  EXPECT_EQ(::read(reader.get(), read.data(), read.size()), 7);
  EXPECT_STREQ(read.data(), "through");
}

TEST_F(WholeFile, ALinkStaysALink) {
  const fs::path kept = folder_ / "kept.json";
  const fs::path link = folder_ / "link.json";
  std::ofstream(kept) << "first, and longer";
  fs::create_symlink(kept, link);
  ASSERT_TRUE(write_whole_file(link, "second"));
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(text_of(kept), "second");
}

TEST_F(WholeFile, WhatFailsAfterMeasuringIsNoMistakeInTyping) {
  const auto written = write_whole_file(folder_ / "gone" / "table.json", "text");
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().code, Code::system);
  EXPECT_THAT(written.error().message, ::testing::HasSubstr("No such file"));
  EXPECT_EQ(files(), 0);
}

}  // namespace
}  // namespace gradrail

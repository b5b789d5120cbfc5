#include "results/size.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace gradrail {
namespace {

using testing::HasSubstr;

TEST(Size, LettersArePowersOf1024) {
  EXPECT_EQ(parse_size("8"), 8);
  EXPECT_EQ(parse_size("4K"), 4096);
  EXPECT_EQ(parse_size("256M"), 268435456);
  EXPECT_EQ(parse_size("2G"), 2147483648);
  EXPECT_EQ(parse_size("1T"), 1099511627776);
}

TEST(Size, SpellingIsForgiving) {
  for (const char* text : {"4k", "4KB", "4kb", "4KiB", "4 KiB", " 4K ", "4096B", "4096 b", "4.0K"})
    EXPECT_EQ(parse_size(text), 4096) << text;
}

TEST(Size, FractionsMustComeToWholeBytes) {
  EXPECT_EQ(parse_size("1.5K"), 1536);
  EXPECT_EQ(parse_size("0.25M"), 262144);
  const auto refused = parse_size("1.0001K");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("not a whole number of bytes"));
}

TEST(Size, TheLargestIsTheLargestSigned64BitNumber) {
  EXPECT_EQ(parse_size("9223372036854775807"), INT64_MAX);
  for (const char* text : {"9223372036854775808", "8388608T", "99999999999999999999999999999999999999999999999999",
                           "9223372036854775807.5K"}) {
    const auto refused = parse_size(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_THAT(refused.error().message, HasSubstr("larger than any buffer")) << text;
  }
}

TEST(Size, RefusalsQuoteTheTextAndSayWhy) {
  struct Case {
    const char* text;
    const char* why;
  };
  for (const auto& [text, why] : std::vector<Case>{{"0", "at least 1 byte"},
                                                   {"0K", "at least 1 byte"},
                                                   {"-8", "negative"},
                                                   {"", "not a size"},
                                                   {"K", "not a size"},
                                                   {".5K", "not a size"},
                                                   {"1..5K", "not a size"},
                                                   {"12Q", "not a size"},
                                                   {"8Kx", "not a size"},
                                                   {"8KiBB", "not a size"},
                                                   {"8iB", "not a size"},
                                                   {"8 K B", "not a size"},
                                                   {"0x10", "not a size"},
                                                   {"1e6", "not a size"},
                                                   {"+8", "not a size"},
                                                   {"1.00000000000000000000000000001M", "more decimals"}}) {
    const auto refused = parse_size(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, Code::bad_usage);
    EXPECT_THAT(refused.error().message, HasSubstr(why)) << text;
    EXPECT_THAT(refused.error().message, HasSubstr(fmt::format("'{}'", text)));
  }
}

TEST(Size, PrintsInTheLargestUnitThatFits) {
  EXPECT_EQ(format_size(0), "0 B");
  EXPECT_EQ(format_size(1000), "1000 B");
  EXPECT_EQ(format_size(4096), "4 KiB");
  EXPECT_EQ(format_size(1536), "1.5 KiB");
  EXPECT_EQ(format_size(1 << 30), "1 GiB");
  EXPECT_EQ(format_size(1'000'000), "976.56 KiB");
}

TEST(Size, WhatPrintsExactlyParsesBack) {
  for (std::int64_t bytes = 1; bytes < (std::int64_t{1} << 44); bytes *= 2)
    EXPECT_EQ(parse_size(format_size(bytes)), bytes);
}

}  // namespace
}  // namespace gradrail

#include "transports/secret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradrail {
namespace {

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string hex_of(const Secret::Digest& digest) {
  std::string text;
  for (const auto byte : digest) {
    constexpr std::string_view k_digits = "0123456789abcdef";
    text += k_digits[std::to_integer<unsigned>(byte) >> 4];
    text += k_digits[std::to_integer<unsigned>(byte) & 15];
  }
  return text;
}

// RFC 4231, test case 2, with its key "Jefe" padded by zeros: HMAC pads short keys by zeros itself, so the digest is
// the RFC's own.
TEST(Secret, SignsAsTheStandardSays) {
  const auto key = Secret::from_hex("4a656665" + std::string(56, '0'));
  ASSERT_TRUE(key.has_value());
  EXPECT_EQ(hex_of(key->sign(bytes_of("what do ya want for nothing?"))),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

// FIPS 180-2, appendix B.2.
TEST(Secret, OfATextIsItsSha256) {
  const auto secret = Secret::from_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq");
  ASSERT_TRUE(secret.has_value());
  EXPECT_EQ(secret->hex(), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Secret, RefusesShortTexts) {
  EXPECT_TRUE(Secret::from_text("sixteen letters!").has_value());
  const auto refused = Secret::from_text("fifteen letters");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Code::bad_usage);
  EXPECT_THAT(refused.error().message, testing::HasSubstr("at least 16"));
}

TEST(Secret, TravelsAsHex) {
  const auto secret = Secret::random();
  ASSERT_TRUE(secret.has_value());
  const auto back = Secret::from_hex(secret->hex());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->hex(), secret->hex());
  EXPECT_TRUE(back->verify(bytes_of("message"), secret->sign(bytes_of("message"))));
}

TEST(Secret, RefusesWhatIsNotHexAndDoesNotRepeatIt) {
  for (const std::string& text : {std::string(), std::string(63, 'a'), std::string(65, 'a'), std::string(63, 'a') + "g",
                                  " " + std::string(63, 'a')}) {
    const auto refused = Secret::from_hex(text);
    ASSERT_FALSE(refused.has_value()) << text;
    EXPECT_EQ(refused.error().code, Code::malformed);
    EXPECT_THAT(refused.error().message, testing::Not(testing::HasSubstr("aaaa")));
  }
}

TEST(Secret, VerifiesOnlyItsOwnDigestsOfTheSameMessage) {
  const auto ours = Secret::random();
  const auto other = Secret::random();
  ASSERT_TRUE(ours && other);
  EXPECT_NE(ours->hex(), other->hex());
  auto digest = ours->sign(bytes_of("message"));
  EXPECT_TRUE(ours->verify(bytes_of("message"), digest));
  EXPECT_FALSE(ours->verify(bytes_of("massage"), digest));
  EXPECT_FALSE(other->verify(bytes_of("message"), digest));
  digest.back() ^= std::byte{1};
  EXPECT_FALSE(ours->verify(bytes_of("message"), digest));
}

TEST(Secret, NoncesDiffer) {
  const auto one = Secret::nonce();
  const auto two = Secret::nonce();
  ASSERT_TRUE(one && two);
  EXPECT_NE(*one, *two);
}

}  // namespace
}  // namespace gradrail

#include "transports/secret.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "transports/base/check.h"

namespace gradrail {
namespace {

constexpr std::size_t k_shortest_text = 16;

Result<void> fill_random(std::span<std::byte> bytes) {
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(bytes.size())) != 1)
    return fail(Code::unavailable, "the system's random source gave no bytes");
  return {};
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

Result<Secret> Secret::random() {
  Secret secret;
  GRADRAIL_TRY(fill_random(secret.key_));
  return secret;
}

Result<Secret> Secret::from_text(std::string_view text) {
  if (text.size() < k_shortest_text)
    return fail(Code::bad_usage,
                fmt::format("the job's secret has {} characters; it needs at least {}", text.size(), k_shortest_text));
  Secret secret;
  unsigned int size = 0;
  const int ok = EVP_Digest(text.data(), text.size(), reinterpret_cast<unsigned char*>(secret.key_.data()), &size,
                            EVP_sha256(), nullptr);
  GRADRAIL_CHECK(ok == 1 && size == k_bytes);
  return secret;
}

Result<Secret::Nonce> Secret::nonce() {
  Nonce nonce;
  GRADRAIL_TRY(fill_random(nonce));
  return nonce;
}

std::string Secret::hex() const {
  std::string text;
  for (const auto byte : key_) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text;
}

Result<Secret> Secret::from_hex(std::string_view hex) {
  // The text itself is never repeated in the message: it may be nearly the secret.
  if (hex.size() != 2 * k_bytes)
    return fail(Code::malformed, fmt::format("a secret in hex has {} digits, not {}", 2 * k_bytes, hex.size()));
  Secret secret;
  for (std::size_t i = 0; i < k_bytes; ++i) {
    const int high = hex_value(hex[2 * i]);
    const int low = hex_value(hex[2 * i + 1]);
    if (high < 0 || low < 0) return fail(Code::malformed, "a secret in hex has only the digits 0-9 and a-f");
    secret.key_[i] = static_cast<std::byte>(high << 4 | low);
  }
  return secret;
}

Secret::Digest Secret::sign(std::span<const std::byte> message) const {
  Digest digest;
  unsigned int size = 0;
  const auto* done = HMAC(EVP_sha256(), key_.data(), static_cast<int>(key_.size()),
                          reinterpret_cast<const unsigned char*>(message.data()), message.size(),
                          reinterpret_cast<unsigned char*>(digest.data()), &size);
  GRADRAIL_CHECK(done != nullptr && size == digest.size());
  return digest;
}

bool Secret::verify(std::span<const std::byte> message, const Digest& digest) const {
  const auto expected = sign(message);
  return CRYPTO_memcmp(expected.data(), digest.data(), digest.size()) == 0;
}

}  // namespace gradrail

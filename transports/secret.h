// The job's secret. Whoever opens a connection to a rank, or to the rendezvous, proves that it knows the secret by an
// HMAC-SHA256 over a fresh challenge from each side; the secret itself never travels. Who does not prove it within a
// short time is dropped, and the listener goes on.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "transports/base/bytes.h"
#include "transports/base/result.h"

namespace gradrail {

class Secret {
 public:
  static constexpr std::size_t k_bytes = 32;
  using Digest = std::array<std::byte, 32>;
  using Nonce = std::array<std::byte, 16>;

  Secret() = default;  // all zero: fit for tests in one process only
  // 256 bits from the system's random source.
  [[nodiscard]] static Result<Secret> random();
  // Any text of at least 16 characters, hashed. Errors: bad_usage if shorter.
  [[nodiscard]] static Result<Secret> from_text(std::string_view text);
  [[nodiscard]] static Result<Nonce> nonce();

  [[nodiscard]] std::string hex() const;
  // Errors: malformed unless 64 hex digits.
  [[nodiscard]] static Result<Secret> from_hex(std::string_view hex);

  // HMAC-SHA256 over `message`.
  [[nodiscard]] Digest sign(std::span<const std::byte> message) const;
  // In constant time.
  [[nodiscard]] bool verify(std::span<const std::byte> message, const Digest& digest) const;

 private:
  std::array<std::byte, k_bytes> key_{};
};

}  // namespace gradrail

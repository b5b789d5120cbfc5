// What travels between rank 0 and the other ranks of the star (star.h): the hello that opens a connection, and frames
// of a kind, the number of the operation, and a body. Integers are little endian; what comes from outside is checked.
// Plain values, no state. All of it in `star` to keep names short.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/result.h"

namespace gradrail::star {

struct Hello {
  std::string build_id;
  int rank = 0;
  int ranks = 0;
  long pid = 0;
  std::string host;
};
[[nodiscard]] Bytes encode(const Hello& hello);
// Nothing if the bytes are no hello.
[[nodiscard]] std::optional<Hello> decode_hello(std::span<const std::byte> bytes);

enum class Kind : std::uint8_t { gather, broadcast, failed };
struct Frame {
  Kind kind = Kind::failed;
  std::uint64_t op = 0;
  Bytes bytes;
  [[nodiscard]] std::span<const std::byte> body() const { return std::span(bytes).subspan(9); }
};
[[nodiscard]] Bytes frame_of(Kind kind, std::uint64_t op, std::span<const std::byte> body);
// Errors: those of receive_frame(), and malformed.
[[nodiscard]] Result<Frame> receive(int fd, Deadline deadline);

// The body of a frame that announces a failure.
[[nodiscard]] Bytes body_of(const Error& error);
[[nodiscard]] Error error_in(std::span<const std::byte> body);

}  // namespace gradrail::star

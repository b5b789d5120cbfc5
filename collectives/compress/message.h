// The 16 bytes that every encoded message opens with, little endian:
//
//   0  'G' 'C'      magic
//   2  u8           version of the wire format, 1
//   3  u8           codec, see CodecId: what follows the header, and how long it is, is the codec's matter
//   4  u32          parameter of the codec
//   8  u64          count of float32 values that the message stands for
//
// A reader takes nothing on trust: open_message() refuses a message that is too short, of another version, codec or
// parameter than expected, or for another count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "transports/base/result.h"

namespace gradrail {

inline constexpr std::size_t k_message_header_bytes = 16;
inline constexpr std::uint8_t k_message_version = 1;

// Numbers on the wire: never given to another codec.
enum class CodecId : std::uint8_t {
  none = 0,
  fp16 = 1,
  bf16 = 2,
  int8 = 3,
  int4 = 4,
  fp8_e4m3 = 5,
  fp8_e5m2 = 6,
  qsgd = 7,
  terngrad = 8,
  signsgd = 9,
  onebit = 10,
  sparse = 11,
  randomk = 12,
  powersgd = 13,
};

// Writes the header at the front of `to`, which is large enough.
void write_message_header(std::span<std::byte> to, CodecId codec, std::uint32_t parameter, std::uint64_t count);

struct OpenMessage {
  std::uint32_t parameter = 0;
  std::span<const std::byte> body;
};
// Checks the header against what the reader expects. `name`: of the codec, for the sentence. Errors: malformed.
[[nodiscard]] Result<OpenMessage> open_message(std::span<const std::byte> message, CodecId codec, std::uint64_t count,
                                               std::string_view name);
// The body must have just this length. Errors: malformed.
[[nodiscard]] Result<void> expect_body(std::span<const std::byte> body, std::size_t bytes, std::string_view name);
// Errors: exhausted, with both sizes.
[[nodiscard]] Result<void> expect_room(std::span<const std::byte> to, std::size_t bytes, std::string_view name);

}  // namespace gradrail

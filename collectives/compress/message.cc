#include "collectives/compress/message.h"

#include <fmt/format.h>

#include <array>
#include <cstring>

#include "transports/base/bytes.h"

namespace gradrail {

void write_message_header(std::span<std::byte> to, CodecId codec, std::uint32_t parameter, std::uint64_t count) {
  const std::array<std::uint8_t, 4> front = {'G', 'C', k_message_version, static_cast<std::uint8_t>(codec)};
  std::memcpy(to.data(), front.data(), front.size());
  std::memcpy(to.data() + 4, &parameter, sizeof parameter);
  std::memcpy(to.data() + 8, &count, sizeof count);
}

Result<OpenMessage> open_message(std::span<const std::byte> message, CodecId codec, std::uint64_t count,
                                 std::string_view name) {
  ByteReader reader(message);
  const auto g = reader.get<std::uint8_t>(), c = reader.get<std::uint8_t>();
  const auto version = reader.get<std::uint8_t>(), id = reader.get<std::uint8_t>();
  const auto parameter = reader.get<std::uint32_t>();
  const auto holds = reader.get<std::uint64_t>();
  if (!reader.ok()) {
    return fail(Code::malformed,
                fmt::format("{}: a message of {} bytes is shorter than its header", name, message.size()));
  }
  if (g != 'G' || c != 'C') return fail(Code::malformed, fmt::format("{}: this is no encoded message", name));
  if (version != k_message_version) {
    return fail(Code::malformed, fmt::format("{}: the message has version {} of the format, this build reads {}", name,
                                             version, k_message_version));
  }
  if (id != static_cast<std::uint8_t>(codec)) {
    return fail(Code::malformed, fmt::format("{}: the message was encoded by another codec (number {})", name, id));
  }
  if (holds != count) {
    return fail(Code::malformed,
                fmt::format("{}: the message holds {} values where {} are expected", name, holds, count));
  }
  return OpenMessage{parameter, message.subspan(k_message_header_bytes)};
}

Result<void> expect_body(std::span<const std::byte> body, std::size_t bytes, std::string_view name) {
  if (body.size() == bytes) return {};
  return fail(Code::malformed,
              fmt::format("{}: {} bytes follow the header where {} are due", name, body.size(), bytes));
}

Result<void> expect_room(std::span<const std::byte> to, std::size_t bytes, std::string_view name) {
  if (to.size() >= bytes) return {};
  return fail(Code::exhausted, fmt::format("{}: encoding may need {} bytes, and there are {}", name, bytes, to.size()));
}

}  // namespace gradrail

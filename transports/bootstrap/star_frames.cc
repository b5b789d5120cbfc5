#include "transports/bootstrap/star_frames.h"

#include <utility>

#include "transports/socket.h"

namespace gradrail::star {

namespace {
constexpr std::size_t k_most_frame_bytes = 1u << 30;  // from a proven peer of this job
}

Bytes encode(const Hello& hello) {
  ByteWriter out;
  out.put_string(hello.build_id);
  out.put(static_cast<std::int32_t>(hello.rank));
  out.put(static_cast<std::int32_t>(hello.ranks));
  out.put(static_cast<std::int64_t>(hello.pid));
  out.put_string(hello.host);
  return std::move(out).take();
}

std::optional<Hello> decode_hello(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  Hello hello;
  hello.build_id = in.get_string();
  hello.rank = in.get<std::int32_t>();
  hello.ranks = in.get<std::int32_t>();
  hello.pid = static_cast<long>(in.get<std::int64_t>());
  hello.host = in.get_string();
  if (!in.ok() || in.left() != 0) return std::nullopt;
  return hello;
}

Bytes frame_of(Kind kind, std::uint64_t op, std::span<const std::byte> body) {
  ByteWriter out;
  out.put(static_cast<std::uint8_t>(kind));
  out.put(op);
  out.put_bytes(body);
  return std::move(out).take();
}

Bytes body_of(const Error& error) {
  ByteWriter out;
  out.put(static_cast<std::uint8_t>(error.code));
  out.put(static_cast<std::int32_t>(error.peer));
  out.put_string(error.message);
  return std::move(out).take();
}

Error error_in(std::span<const std::byte> body) {
  ByteReader in(body);
  const auto code = in.get<std::uint8_t>();
  const auto peer = in.get<std::int32_t>();
  auto message = in.get_string();
  if (!in.ok() || code > static_cast<std::uint8_t>(Code::poisoned))
    return {Code::malformed, "a failure was announced in bytes that do not parse", Error::k_no_peer, 0};
  return {static_cast<Code>(code), std::move(message), peer, 0};
}

Result<Frame> receive(int fd, Deadline deadline) {
  Frame frame;
  GRADRAIL_ASSIGN(frame.bytes, receive_frame(fd, k_most_frame_bytes, deadline));
  ByteReader in(frame.bytes);
  const auto kind = in.get<std::uint8_t>();
  frame.op = in.get<std::uint64_t>();
  if (!in.ok() || kind > static_cast<std::uint8_t>(Kind::failed))
    return fail(Code::malformed, "bytes on the control channel do not parse");
  frame.kind = static_cast<Kind>(kind);
  return frame;
}

}  // namespace gradrail::star

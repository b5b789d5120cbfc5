#include "transports/transport.h"

#include <algorithm>
#include <cstring>

#include "transports/bare.h"
#include "transports/base/check.h"
#include "transports/board.h"

namespace gradrail {

std::string_view to_string(Path path) {
  switch (path) {
    case Path::in_line: return "inline";
    case Path::one_copy: return "one-copy";
    case Path::zero_copy: return "zero-copy";
    case Path::socket: return "socket";
    case Path::library: return "library";
    case Path::attached: return "attached";
  }
  return "unknown";
}

Result<std::unique_ptr<Bare>> Transport::open_bare(const Peer&, const BareOptions&, Deadline) {
  return fail(Code::unsupported,
              "transport " + std::string(traits().name) + " has pipes only; verbs and ucx have operations");
}

Result<void> Endpoint::send_in_place(std::size_t) {
  return fail(Code::unsupported, "this transport cannot produce a message in place", peer());
}

std::span<std::byte> Endpoint::writable() { return {}; }

std::size_t Endpoint::offer(std::span<const std::byte> bytes) {
  const auto room = writable();
  const std::size_t now = std::min(room.size(), bytes.size());
  if (now == 0) return 0;
  std::memcpy(room.data(), bytes.data(), now);
  commit(now);
  return now;
}

void Endpoint::commit(std::size_t) { GRADRAIL_CHECK(!"commit without send_in_place"); }

Result<std::unique_ptr<Board>> Transport::open_board(std::span<const int>, int, Deadline) {
  return fail(Code::unsupported, "this transport has no memory that ranks share");
}

}  // namespace gradrail

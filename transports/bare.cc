#include "transports/bare.h"

#include <fmt/format.h>
#include <poll.h>

#include "transports/socket.h"

namespace gradrail {
namespace {

constexpr std::size_t k_most_said_bytes = 1024;

}  // namespace

std::string_view to_string(Operation operation) {
  switch (operation) {
    case Operation::write: return "write";
    case Operation::send: return "send";
    case Operation::read: break;
  }
  return "read";
}

Bare::Bare(const Peer& peer) : who_(fmt::format("rank {} on {}", peer.rank, peer.host)), peer_(peer.rank) {}

Result<void> Bare::poll_until(std::uint64_t received, unsigned looks) {
  for (; looks > 0 && received_ < received; --looks) GRADRAIL_TRY(poll());
  return {};
}

Result<void> Bare::poll_until_written(std::size_t, std::byte, unsigned) { return {}; }

Result<void> Bare::check_life() const {
  for (const Fd& channel : channels_) {
    pollfd end{channel.get(), POLLRDHUP, 0};  // also behind what it said before
    if (::poll(&end, 1, 0) > 0)
      return fail(Code::peer_gone, fmt::format("{} is gone: it closed the connection", who_), peer_);
  }
  return {};
}

Result<void> Bare::tell(std::span<const std::byte> bytes, Deadline deadline) {
  auto told = send_frame(channels_.front().get(), bytes, deadline);
  if (told) return {};
  told.error().peer = peer_;
  return tl::unexpected<Error>(std::move(told).error().in(who_));
}

Result<Bytes> Bare::hear(Deadline deadline) {
  auto heard = receive_frame(channels_.front().get(), k_most_said_bytes, deadline);
  if (heard) return heard;
  heard.error().peer = peer_;
  return tl::unexpected<Error>(std::move(heard).error().in(who_));
}

}  // namespace gradrail

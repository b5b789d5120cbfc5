#include "transports/meet.h"

#include <fmt/format.h>

#include <algorithm>

namespace gradrail {

Result<Listening> listen_for_peers(const Settings& settings, Acceptor::Options options) {
  GRADRAIL_ASSIGN(auto listener, listen_tcp(settings.listen_host, 0));
  GRADRAIL_ASSIGN(const int port, local_port(listener.get()));
  GRADRAIL_ASSIGN(auto acceptor, Acceptor::make(std::move(listener), settings.secret, std::move(options)));
  ByteWriter address;
  address.put_string(settings.listen_host);
  address.put(static_cast<std::uint16_t>(port));
  return Listening{std::move(acceptor), std::move(address).take()};
}

std::string name_of(const Peer& peer) {
  return fmt::format("rank {} on {} (lane {})", peer.rank, peer.host, peer.lane);
}

Result<SocketAddress> address_of(const Peer& peer) {
  ByteReader in(peer.address);
  const auto host = in.get_string();
  const auto port = in.get<std::uint16_t>();
  if (!in.ok() || in.left() > 0)
    return fail(Code::malformed, name_of(peer) + " published an address that does not parse", peer.rank);
  auto address = resolve(host, port);
  if (!address) return fail(Code::malformed, name_of(peer) + ": " + address.error().message, peer.rank);
  return address;
}

Result<void> expect_peer(const Peer& peer, const Settings& settings) {
  if (peer.rank >= 0 && peer.rank < settings.ranks && peer.rank != settings.rank && peer.lane >= 0 &&
      peer.lane < k_max_lanes)
    return {};
  return fail(Code::bad_usage,
              fmt::format("{} is not a peer of rank {} among {} ranks", name_of(peer), settings.rank, settings.ranks));
}

tl::unexpected<Error> connecting_to(const Peer& peer, Error error) {
  error.peer = peer.rank;
  return tl::unexpected<Error>(std::move(error).in("connecting to " + name_of(peer)));
}

Result<void> wait_for_peers(std::vector<pollfd>& waits, const Peer& missing, const Settings& settings, bool pausing,
                            Deadline deadline) {
  if (deadline.passed())
    return fail(Code::timed_out,
                fmt::format("{} {} in time", name_of(missing),
                            missing.rank > settings.rank ? "did not answer" : "did not connect"),
                missing.rank);
  const auto limit = Deadline::after(pausing ? Seconds(0.002) : Seconds(0.5));
  ::poll(waits.data(), waits.size(), std::min(limit.left_ms(), deadline.left_ms()));
  return {};
}

}  // namespace gradrail

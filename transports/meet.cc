#include "transports/meet.h"

#include <fmt/format.h>

#include <algorithm>

namespace gradrail {

namespace {

constexpr std::size_t k_longest_name = 32;  // of a transport

}  // namespace

Result<Listening> listen_for_peers(const Settings& settings, std::string_view transport, Acceptor::Options options) {
  GRADRAIL_ASSIGN(auto listener, listen_tcp(settings.listen_host, 0));
  GRADRAIL_ASSIGN(const int port, local_port(listener.get()));
  GRADRAIL_ASSIGN(auto acceptor, Acceptor::make(std::move(listener), settings.secret, std::move(options)));
  ByteWriter address;
  address.put_string(transport);
  address.put_string(settings.listen_host);
  address.put(static_cast<std::uint16_t>(port));
  return Listening{std::move(acceptor), std::move(address).take()};
}

std::string name_of(const Peer& peer) {
  return fmt::format("rank {} on {} (lane {})", peer.rank, peer.host, peer.lane);
}

Result<SocketAddress> address_of(const Peer& peer) {
  ByteReader in(peer.address);
  static_cast<void>(in.get_string());
  const auto host = in.get_string();
  const auto port = in.get<std::uint16_t>();
  if (!in.ok() || in.left() > 0)
    return fail(Code::malformed, name_of(peer) + " published an address that does not parse", peer.rank);
  auto address = resolve(host, port);
  if (!address) return fail(Code::malformed, name_of(peer) + ": " + address.error().message, peer.rank);
  return address;
}

Result<void> same_transport(const Peer& peer, std::string_view transport) {
  ByteReader in(peer.address);
  const auto name = in.get_string();
  if (in.ok() && name == transport) return {};
  const bool is_word = !name.empty() && name.size() <= k_longest_name &&
                       std::all_of(name.begin(), name.end(), [](char c) { return c == '_' || (c >= 'a' && c <= 'z'); });
  if (in.ok() && is_word)
    return fail(Code::bad_usage,
                fmt::format("{} uses transport {}, this rank {}; give all ranks the same options (--transport, and "
                            "--inner and --outer, of every rank that mpirun or srun starts)",
                            name_of(peer), name, transport),
                peer.rank);
  return fail(Code::malformed,
              fmt::format("the address of {} is not one of transport {}; is it another build of gradrail?",
                          name_of(peer), transport),
              peer.rank);
}

Result<void> expect_peer(const Peer& peer, const Settings& settings, std::string_view transport) {
  if (peer.rank >= 0 && peer.rank < settings.ranks && peer.rank != settings.rank && peer.lane >= 0 &&
      peer.lane < k_max_lanes)
    return same_transport(peer, transport);
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

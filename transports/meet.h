// What transports have in common whose ranks meet at listening sockets: what a rank publishes, who is a peer, and the
// wait for those that are missing. Who may connect at all is decided in handshake.h. No state; any thread.
#pragma once

#include <poll.h>

#include <string>
#include <string_view>
#include <vector>

#include "transports/handshake.h"
#include "transports/settings.h"
#include "transports/transport.h"

namespace gradrail {

struct Listening {
  Acceptor acceptor;
  Address address;  // to publish: opens with the transport's name; address_of() reads it
};
// Errors: those of listen_tcp() and Acceptor::make().
[[nodiscard]] Result<Listening> listen_for_peers(const Settings& settings, std::string_view transport,
                                                 Acceptor::Options options);

// "rank 3 on host-b (lane 0)"
[[nodiscard]] std::string name_of(const Peer& peer);
// Errors: malformed, naming the peer.
[[nodiscard]] Result<SocketAddress> address_of(const Peer& peer);
// Whether the peer's address is one of that transport: every address opens with its transport's name. Errors: bad_usage
// that names both transports.
[[nodiscard]] Result<void> same_transport(const Peer& peer, std::string_view transport);
// Errors: bad_usage where the peer cannot be one of this rank's; those of same_transport().
[[nodiscard]] Result<void> expect_peer(const Peer& peer, const Settings& settings, std::string_view transport);
// An error of connecting to the peer: says so, and names it.
[[nodiscard]] tl::unexpected<Error> connecting_to(const Peer& peer, Error error);

// Waits until one of `waits` is ready, or a while in which strangers are to be dropped; only a moment where a dial is
// `pausing` between two tries. Errors: timed_out once the deadline has passed, naming the missing peer.
[[nodiscard]] Result<void> wait_for_peers(std::vector<pollfd>& waits, const Peer& missing, const Settings& settings,
                                          bool pausing, Deadline deadline);

}  // namespace gradrail

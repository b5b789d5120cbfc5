// Stream sockets with deadlines: listen, connect, accept, and exact blocks of bytes. All sockets made here are
// non-blocking, close on exec, and never raise SIGPIPE. The functions on `int fd` work on any stream socket, blocking
// or not, and own nothing. Any thread, one at a time per socket.
//
// Errors speak of "the other side"; a caller who knows the rank puts it in front with Error::in() and sets Error::peer.
// Codes: peer_gone (closed or reset), timed_out (the deadline passed), malformed (a frame larger than allowed).
// Who may connect at all is decided in handshake.h.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "transports/base/bytes.h"
#include "transports/base/clock.h"
#include "transports/base/fd.h"
#include "transports/base/result.h"

namespace gradrail {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// `host` is a numeric address or a name, IPv4 or IPv6; `port` 0..65535. A name is looked up by the system, which may
// take its time: pass numeric addresses where a deadline matters. Errors: bad_usage.
[[nodiscard]] Result<SocketAddress> resolve(std::string_view host, int port);
// Host part of the local address of a connected or listening socket, and its port. Errors: system.
[[nodiscard]] Result<std::string> local_host(int fd);
[[nodiscard]] Result<int> local_port(int fd);

// Listens with SO_REUSEADDR; port 0 takes a free one (ask local_port). Errors: bad_usage, unavailable (a port in use,
// an address that is not this host's) naming host and port.
[[nodiscard]] Result<Fd> listen_tcp(std::string_view host, int port);
// Waits for one connection on a listener. Errors: timed_out, exhausted (no descriptors left), system.
[[nodiscard]] Result<Fd> accept_connection(int listener, Deadline deadline);

enum class OnRefused { fail, retry };  // what to do while nobody listens there
// Errors: bad_usage, refused (nobody listens and `fail` was asked), timed_out, system; each names host and port.
[[nodiscard]] Result<Fd> connect_tcp(std::string_view host, int port, Deadline deadline, OnRefused on_refused);

// The non-blocking half of connect_tcp: the socket is connecting when this returns, and writable when it is decided;
// then connect_outcome() says how: 0, or an errno. A socket that met itself (both ends one loopback port) counts as
// refused.
[[nodiscard]] Result<Fd> start_connect(const SocketAddress& address);
[[nodiscard]] int connect_outcome(int fd);
// True for what a listener that is not up yet, or overrun, answers: worth another try.
[[nodiscard]] bool worth_retrying(int connect_errno);

// True for the errno of a call on a socket that is to be tried again, as nothing is wrong.
[[nodiscard]] bool not_ready(int sys_errno);

// Small messages leave at once; an idle link whose other end vanished is noticed within about 12 s. No effect on
// sockets that are not TCP.
void set_prompt_and_watched(int fd);
// True if the socket's local address is the loopback device's: whatever it is connected to is on this host.
[[nodiscard]] bool on_loopback(int fd);
// For bulk data on_loopback(). Between hosts the kernel sizes a socket's buffers by itself, by the link's delay; here
// there is no delay to hide, and bytes that wait in a smaller buffer are still in cache when they are read.
void size_buffers_on_one_host(int fd);

// Waits until one of `events` (POLLIN, POLLOUT) or an end of the connection. Errors: timed_out.
[[nodiscard]] Result<void> wait_for(int fd, short events, Deadline deadline);
// All bytes or an error.
[[nodiscard]] Result<void> send_all(int fd, std::span<const std::byte> bytes, Deadline deadline);
[[nodiscard]] Result<void> receive_all(int fd, std::span<std::byte> bytes, Deadline deadline);

// A 32-bit length, then the bytes. A claim above `most` is refused before anything is allocated for it, and a claim
// within is believed only as its bytes arrive.
[[nodiscard]] Result<void> send_frame(int fd, std::span<const std::byte> bytes, Deadline deadline);
[[nodiscard]] Result<Bytes> receive_frame(int fd, std::size_t most, Deadline deadline);

}  // namespace gradrail

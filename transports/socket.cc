#include "transports/socket.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <thread>

namespace gradrail {
namespace {

constexpr int k_backlog = 1024;
// A frame's buffer grows by at most this much ahead of what has arrived.
constexpr std::size_t k_frame_step = 1 << 20;

bool is_end(int error) {
  return error == ECONNRESET || error == EPIPE || error == ENOTCONN || error == ECONNABORTED || error == ETIMEDOUT;
}

tl::unexpected<Error> ended(int error) {
  return fail(Code::peer_gone, "the other side closed the connection", Error::k_no_peer, error);
}

Result<SocketAddress> address_of(int fd) {
  SocketAddress address;
  address.size = sizeof address.storage;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0)
    return fail_errno("asking a socket for its own address", errno);
  return address;
}

bool met_itself(int fd) {
  sockaddr_storage local{};
  sockaddr_storage remote{};
  socklen_t local_size = sizeof local;
  socklen_t remote_size = sizeof remote;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&local), &local_size) != 0 ||
      ::getpeername(fd, reinterpret_cast<sockaddr*>(&remote), &remote_size) != 0)
    return false;
  if (local.ss_family != AF_INET && local.ss_family != AF_INET6) return false;
  return local_size == remote_size && std::memcmp(&local, &remote, local_size) == 0;
}

}  // namespace

Result<SocketAddress> resolve(std::string_view host, int port) {
  if (port < 0 || port > 65535)
    return fail(Code::bad_usage, fmt::format("{} is not a port; ports are 0 to 65535", port));
  const std::string node(host);
  const std::string service = std::to_string(port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int rc = ::getaddrinfo(node.c_str(), service.c_str(), &hints, &found); rc != 0)
    return fail(Code::bad_usage, fmt::format("'{}' is not an address of a host ({})", host, ::gai_strerror(rc)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  SocketAddress address;
  address.size = found->ai_addrlen;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  return address;
}

Result<std::string> local_host(int fd) {
  GRADRAIL_ASSIGN(const auto address, address_of(fd));
  char host[NI_MAXHOST];
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address.storage), address.size, host, sizeof host, nullptr, 0,
                    NI_NUMERICHOST) != 0)
    return fail(Code::system, "a socket's own address has no numeric form");
  return std::string(host);
}

Result<int> local_port(int fd) {
  GRADRAIL_ASSIGN(const auto address, address_of(fd));
  if (address.storage.ss_family == AF_INET)
    return ntohs(reinterpret_cast<const sockaddr_in&>(address.storage).sin_port);
  if (address.storage.ss_family == AF_INET6)
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_port);
  return fail(Code::system, "only internet sockets have ports");
}

Result<Fd> listen_tcp(std::string_view host, int port) {
  GRADRAIL_ASSIGN(const auto address, resolve(host, port));
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("making a listening socket", errno);
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      ::listen(fd.get(), k_backlog) != 0) {
    const int error = errno;
    if (error == EADDRINUSE)
      return fail(Code::unavailable,
                  fmt::format("port {} on {} is in use by another program; choose another port", port, host),
                  Error::k_no_peer, error);
    if (error == EADDRNOTAVAIL)
      return fail(Code::unavailable,
                  fmt::format("{} is not an address of this host, so nothing can listen on it", host), Error::k_no_peer,
                  error);
    return fail_errno(fmt::format("listening on port {} of {}", port, host), error);
  }
  return fd;
}

Result<Fd> accept_connection(int listener, Deadline deadline) {
  for (;;) {
    Fd fd(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) return fd;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      const int error = errno;
      return fail(Code::exhausted, "no descriptors are left to accept a connection; raise the limit of open files",
                  Error::k_no_peer, error);
    }
    if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK) return fail_errno("accepting a connection", errno);
    if (errno == EAGAIN || errno == EWOULDBLOCK) GRADRAIL_TRY(wait_for(listener, POLLIN, deadline));
    // Anything else is the end of one connection before it was accepted: the next may be fine.
    if (deadline.passed()) return fail(Code::timed_out, "nobody connected in time");
  }
}

Result<Fd> start_connect(const SocketAddress& address) {
  Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno("making a socket", errno);
  // An immediate refusal is kept by no one, so it is told here.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 &&
      errno != EINPROGRESS && errno != EINTR)
    return fail_errno("connecting", errno);
  return fd;
}

int connect_outcome(int fd) {
  int error = 0;
  socklen_t size = sizeof error;
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  if (error == 0 && met_itself(fd)) return ECONNREFUSED;
  return error;
}

bool not_ready(int sys_errno) { return sys_errno == EAGAIN || sys_errno == EWOULDBLOCK || sys_errno == EINTR; }

bool worth_retrying(int connect_errno) {
  return connect_errno == ECONNREFUSED || connect_errno == ECONNRESET || connect_errno == EAGAIN ||
         connect_errno == ETIMEDOUT || connect_errno == EADDRNOTAVAIL;
}

Result<Fd> connect_tcp(std::string_view host, int port, Deadline deadline, OnRefused on_refused) {
  GRADRAIL_ASSIGN(const auto address, resolve(host, port));
  const auto where = fmt::format("connecting to port {} of {}", port, host);
  auto pause = std::chrono::milliseconds(2);
  for (;;) {
    int error = 0;
    if (auto fd = start_connect(address); !fd) {
      error = fd.error().sys_errno;
    } else {
      if (auto waited = wait_for(fd->get(), POLLOUT, deadline); !waited)
        return fail(Code::timed_out, where + " took too long");
      error = connect_outcome(fd->get());
      if (error == 0) return std::move(*fd);
    }
    if (!worth_retrying(error)) return fail_errno(where, error);
    if (on_refused == OnRefused::fail)
      return fail(Code::refused, where + ": nobody listens there", Error::k_no_peer, error);
    if (deadline.left() <= pause)
      return fail(Code::timed_out, where + ": nobody listens there", Error::k_no_peer, error);
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(100));
  }
}

void set_prompt_and_watched(int fd) {
  const auto set = [fd](int level, int option, int value) { ::setsockopt(fd, level, option, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  // An idle link is probed after 5 s, then every 2 s; three probes without an answer end it. No TCP_USER_TIMEOUT: it
  // also ends a link whose reader is alive and merely takes its time.
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

bool on_loopback(int fd) {
  const auto host = local_host(fd);
  return host && (host->starts_with("127.") || *host == "::1");
}

void size_buffers_on_one_host(int fd) {
  constexpr int k_bytes = 1 << 20;
  ::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &k_bytes, sizeof k_bytes);
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &k_bytes, sizeof k_bytes);
}

Result<void> wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    pollfd entry{fd, events, 0};
    const int rc = ::poll(&entry, 1, deadline.left_ms());
    if (rc > 0) return {};
    if (rc < 0 && errno != EINTR) return fail_errno("waiting on a socket", errno);
    if (deadline.passed()) return fail(Code::timed_out, "the other side did not answer in time");
  }
}

Result<void> send_all(int fd, std::span<const std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const auto sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      GRADRAIL_TRY(wait_for(fd, POLLOUT, deadline));
    } else if (errno != EINTR) {
      if (is_end(errno)) return ended(errno);
      return fail_errno("sending", errno);
    }
  }
  return {};
}

Result<void> receive_all(int fd, std::span<std::byte> bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const auto got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(got));
    } else if (got == 0) {
      return ended(0);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      GRADRAIL_TRY(wait_for(fd, POLLIN, deadline));
    } else if (errno != EINTR) {
      if (is_end(errno)) return ended(errno);
      return fail_errno("receiving", errno);
    }
  }
  return {};
}

Result<void> send_frame(int fd, std::span<const std::byte> bytes, Deadline deadline) {
  if (bytes.size() > UINT32_MAX)
    return fail(Code::bad_usage, fmt::format("a frame of {} bytes is too large", bytes.size()));
  ByteWriter frame;  // one block, so that a small frame is one packet
  frame.put_block(bytes);
  return send_all(fd, std::move(frame).take(), deadline);
}

Result<Bytes> receive_frame(int fd, std::size_t most, Deadline deadline) {
  std::uint32_t size = 0;
  GRADRAIL_TRY(receive_all(fd, std::as_writable_bytes(std::span(&size, 1)), deadline));
  if (size > most)
    return fail(Code::malformed,
                fmt::format("the other side claims a frame of {} bytes; at most {} are allowed", size, most));
  Bytes bytes;
  while (bytes.size() < size) {
    const auto have = bytes.size();
    bytes.resize(have + std::min<std::size_t>(size - have, k_frame_step));
    GRADRAIL_TRY(receive_all(fd, std::span(bytes).subspan(have), deadline));
  }
  return bytes;
}

}  // namespace gradrail

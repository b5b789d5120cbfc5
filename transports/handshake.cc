#include "transports/handshake.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"

namespace gradrail {
namespace {

constexpr std::array<char, 8> k_magic = {'g', 'r', 'd', 'r', 'a', 'i', 'l', '1'};
constexpr std::size_t k_greeting_bytes = k_magic.size() + sizeof(Secret::Nonce);
// New connections taken in one poll(), so that a flood of them cannot keep handshakes from going on.
constexpr int k_most_new = 64;

// How long a wait may last before a dial between two tries must look again.
Deadline sooner(Deadline deadline, Seconds at_most) {
  return Deadline::at(std::min(deadline.when(), Deadline::after(at_most).when()));
}

}  // namespace

Proof::Proof(Role role, const Secret& secret, std::string_view purpose)
    : role_(role), secret_(secret), purpose_(purpose) {}

void Proof::queue(std::span<const std::byte> bytes) {
  GRADRAIL_CHECK(out_size_ + bytes.size() <= out_.size());
  std::memcpy(out_.data() + out_size_, bytes.data(), bytes.size());
  out_size_ += bytes.size();
}

Result<void> Proof::begin() {
  GRADRAIL_ASSIGN(mine_, Secret::nonce());
  stage_ = Stage::greeting;
  if (role_ == Role::client) {
    queue(std::as_bytes(std::span(k_magic)));
    queue(mine_);
  }
  return {};
}

Result<void> Proof::take_greeting() {
  if (std::memcmp(in_.data(), k_magic.data(), k_magic.size()) != 0)
    return fail(Code::malformed, "the other side does not speak gradrail's protocol");
  std::memcpy(theirs_.data(), in_.data() + k_magic.size(), theirs_.size());
  stage_ = Stage::digest;
  if (role_ == Role::server) {
    queue(std::as_bytes(std::span(k_magic)));
    queue(mine_);
  } else {
    queue(secret_.sign(signed_by(Role::client)));
  }
  return {};
}

Result<void> Proof::take_digest() {
  Secret::Digest digest;
  std::memcpy(digest.data(), in_.data(), digest.size());
  if (!secret_.verify(signed_by(role_ == Role::client ? Role::server : Role::client), digest))
    return fail(Code::refused, "the other side does not know this job's secret");
  stage_ = Stage::done;
  if (role_ == Role::server) queue(secret_.sign(signed_by(Role::server)));
  return {};
}

Bytes Proof::signed_by(Role role) const {
  ByteWriter message;
  message.put_string(role == Role::client ? "client" : "server");
  message.put_string(purpose_);
  message.put_bytes(role_ == Role::client ? mine_ : theirs_);
  message.put_bytes(role_ == Role::client ? theirs_ : mine_);
  return std::move(message).take();
}

tl::unexpected<Error> Proof::ended(int error) const {
  if (role_ == Role::client && stage_ == Stage::digest)
    return fail(Code::refused,
                "the other side hung up on the proof of the job's secret; it has another secret, or waited too long",
                Error::k_no_peer, error);
  return fail(Code::peer_gone, "the other side closed the connection before it proved the job's secret",
              Error::k_no_peer, error);
}

Result<bool> Proof::advance(int fd) {
  if (stage_ == Stage::start) GRADRAIL_TRY(begin());
  for (;;) {
    if (out_done_ < out_size_) {
      const auto sent = ::send(fd, out_.data() + out_done_, out_size_ - out_done_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0 && not_ready(errno)) return false;
      if (sent < 0) return ended(errno);
      out_done_ += static_cast<std::size_t>(sent);
      continue;
    }
    if (stage_ == Stage::done) return true;
    const std::size_t need = stage_ == Stage::greeting ? k_greeting_bytes : sizeof(Secret::Digest);
    const auto got = ::recv(fd, in_.data() + in_have_, need - in_have_, MSG_DONTWAIT);
    if (got < 0 && not_ready(errno)) return false;
    if (got <= 0) return ended(got < 0 ? errno : 0);
    in_have_ += static_cast<std::size_t>(got);
    if (in_have_ < need) continue;
    in_have_ = 0;
    GRADRAIL_TRY(stage_ == Stage::greeting ? take_greeting() : take_digest());
  }
}

short Proof::waits_for() const { return out_done_ < out_size_ ? POLLOUT : POLLIN; }

Result<void> prove(int fd, const Secret& secret, Role role, std::string_view purpose, Deadline deadline) {
  Proof proof(role, secret, purpose);
  for (;;) {
    GRADRAIL_ASSIGN(const bool proven, proof.advance(fd));
    if (proven) return {};
    GRADRAIL_TRY(wait_for(fd, proof.waits_for(), deadline));
  }
}

Acceptor::Acceptor(Fd listener, Fd epoll, const Secret& secret, Options options)
    : listener_(std::move(listener)), epoll_(std::move(epoll)), secret_(secret), options_(std::move(options)) {}

Result<Acceptor> Acceptor::make(Fd listener, const Secret& secret, Options options) {
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN;
  if (!epoll || ::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, listener.get(), &event) != 0)
    return fail_errno("watching a listening socket", errno);
  return Acceptor(std::move(listener), std::move(epoll), secret, std::move(options));
}

Result<bool> Acceptor::advance(Pending& one) const {
  if (!one.proven) {
    GRADRAIL_ASSIGN(one.proven, one.proof.advance(one.fd.get()));
    if (!one.proven) return false;
  }
  for (;;) {
    const std::size_t prefix = one.length.size();
    const bool in_length = one.have < prefix;
    if (!in_length && one.have == prefix + one.hello.size()) return true;
    std::byte* const to = in_length ? one.length.data() + one.have : one.hello.data() + (one.have - prefix);
    const std::size_t room = in_length ? prefix - one.have : prefix + one.hello.size() - one.have;
    const auto got = ::recv(one.fd.get(), to, room, MSG_DONTWAIT);
    if (got < 0 && not_ready(errno)) return false;
    if (got <= 0) return fail(Code::peer_gone, "the other side closed the connection before its hello");
    one.have += static_cast<std::size_t>(got);
    if (in_length && one.have == prefix) {
      const auto size = ByteReader(one.length).get<std::uint32_t>();
      if (size > options_.most_hello_bytes)
        return fail(Code::malformed, fmt::format("the other side claims a hello of {} bytes", size));
      one.hello.resize(size);
    }
  }
}

void Acceptor::drop_oldest() {
  const auto silent = std::find_if(pending_.begin(), pending_.end(), [](const Pending& one) { return !one.spoke; });
  pending_.erase(silent != pending_.end() ? silent : pending_.begin());
  ++dropped_;
}

Result<bool> Acceptor::take_new() {
  for (;;) {
    Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      const int error = errno;
      if (error == EAGAIN || error == EWOULDBLOCK) return false;
      if (error == EBADF || error == EINVAL || error == ENOTSOCK) return fail_errno("accepting a connection", error);
      if (error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM) {
        if (pending_.empty())
          return fail(Code::exhausted, "no descriptors are left to accept a connection; raise the limit of open files",
                      Error::k_no_peer, error);
        drop_oldest();
      }
      continue;  // otherwise it ended before it was accepted
    }
    if (pending_.size() >= options_.most_pending) drop_oldest();
    set_prompt_and_watched(fd.get());
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd.get(), &event) != 0)
      return fail_errno("watching a new connection", errno);
    const auto give_up = Deadline::after(options_.time_limit).when();
    pending_.emplace_back(std::move(fd), Proof(Role::server, secret_, options_.purpose), give_up);
    return true;
  }
}

Result<std::optional<Acceptor::Accepted>> Acceptor::poll() {
  for (int taken = 0; taken < k_most_new; ++taken) {
    GRADRAIL_ASSIGN(const bool more, take_new());
    if (!more) break;
  }
  const auto now = Clock::now();
  for (auto one = pending_.begin(); one != pending_.end();) {
    auto finished = advance(*one);
    if (finished && *finished) {
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, one->fd.get(), nullptr);
      Accepted accepted{std::move(one->fd), std::move(one->hello)};
      pending_.erase(one);
      return accepted;
    }
    one->spoke = one->spoke || one->proof.greeted();
    if (!finished || now >= one->give_up) {
      one = pending_.erase(one);
      ++dropped_;
    } else {
      ++one;
    }
  }
  return std::nullopt;
}

Result<Acceptor::Accepted> Acceptor::accept(Deadline deadline) {
  for (;;) {
    GRADRAIL_ASSIGN(auto accepted, poll());
    if (accepted) return std::move(*accepted);
    if (deadline.passed()) return fail(Code::timed_out, "nobody who knows the job's secret connected in time");
    auto until = deadline;
    for (const auto& one : pending_) until = Deadline::at(std::min(until.when(), one.give_up));
    // Its time running out is no error here: then somebody is to be dropped, or the deadline has passed.
    if (auto waited = wait_for(fd(), POLLIN, until); !waited && waited.error().code != Code::timed_out)
      return tl::unexpected<Error>(std::move(waited).error());
  }
}

Dial::Dial(const SocketAddress& to, const Secret& secret, std::string_view purpose, Bytes hello)
    : to_(to), secret_(secret), purpose_(purpose), proof_(Role::client, secret, purpose) {
  ByteWriter framed;
  framed.put_block(hello);
  hello_ = std::move(framed).take();
}

void Dial::try_again() {
  fd_.reset();
  stage_ = Stage::apart;
  not_before_ = Clock::now() + pause_;
  pause_ = std::min(pause_ * 2, std::chrono::milliseconds(64));
}

Result<bool> Dial::advance() {
  for (;;) {
    switch (stage_) {
      case Stage::apart: {
        if (Clock::now() < not_before_) return false;
        auto fd = start_connect(to_);
        if (!fd && !worth_retrying(fd.error().sys_errno)) return tl::unexpected<Error>(std::move(fd).error());
        if (!fd) {
          try_again();
          return false;
        }
        fd_ = std::move(*fd);
        proof_ = Proof(Role::client, secret_, purpose_);
        stage_ = Stage::connecting;
        [[fallthrough]];
      }
      case Stage::connecting: {
        pollfd entry{fd_.get(), POLLOUT, 0};
        if (::poll(&entry, 1, 0) <= 0) return false;
        if (const int error = connect_outcome(fd_.get()); error != 0) {
          if (!worth_retrying(error)) return fail_errno("connecting", error);
          try_again();
          return false;
        }
        set_prompt_and_watched(fd_.get());
        stage_ = Stage::proving;
        break;
      }
      case Stage::proving: {
        const auto proven = proof_.advance(fd_.get());
        if (!proven && proven.error().code == Code::peer_gone) {
          try_again();
          return false;
        }
        if (!proven) return tl::unexpected<Error>(proven.error());
        if (!*proven) return false;
        stage_ = Stage::greeting;
        break;
      }
      case Stage::greeting: {
        const auto rest = std::span(hello_).subspan(sent_);
        if (rest.empty()) {
          stage_ = Stage::done;
          return true;
        }
        const auto sent = ::send(fd_.get(), rest.data(), rest.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && not_ready(errno)) return false;
        if (sent < 0)
          return fail(Code::peer_gone, "the other side closed the connection after the proof", Error::k_no_peer, errno);
        sent_ += static_cast<std::size_t>(sent);
        break;
      }
      case Stage::done: return true;
    }
  }
}

short Dial::waits_for() const {
  if (stage_ == Stage::connecting || stage_ == Stage::greeting) return POLLOUT;
  return proof_.waits_for();
}

Result<Fd> dial(std::string_view host, int port, const Secret& secret, std::string_view purpose,
                std::span<const std::byte> hello, Deadline deadline) {
  GRADRAIL_ASSIGN(const auto address, resolve(host, port));
  const auto where = fmt::format("connecting to port {} of {}", port, host);
  Dial one(address, secret, purpose, Bytes(hello.begin(), hello.end()));
  for (;;) {
    auto done = one.advance();
    if (!done) return tl::unexpected<Error>(std::move(done).error().in(where));
    if (*done) return one.take();
    if (deadline.passed())
      return fail(Code::timed_out, where + (one.fd() < 0 ? ": nobody listens there" : ": no answer in time"));
    // Between two tries there is nothing to wait on but time.
    const auto until = one.fd() < 0 ? sooner(deadline, std::chrono::milliseconds(2)) : deadline;
    pollfd entry{one.fd(), one.waits_for(), 0};
    ::poll(&entry, one.fd() < 0 ? 0 : 1, until.left_ms());
  }
}

}  // namespace gradrail

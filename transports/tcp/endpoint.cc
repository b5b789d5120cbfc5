#include "transports/tcp/endpoint.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>

#include "transports/base/check.h"
#include "transports/tcp/transport.h"

namespace gradrail {
namespace {

constexpr std::size_t k_header = sizeof(TcpHeader);
constexpr std::size_t k_grain = 64;  // parts of a message read in place are multiples of it
constexpr std::size_t k_landing_alignment = 4096;
// Small messages leave when they are posted; larger ones wait for progress(), so that posting stays short.
constexpr std::size_t k_eager_bytes = 16 << 10;
constexpr std::size_t k_most_pieces = 16;
// Up to so many bytes, pieces are gathered and scattered here and not by the kernel.
constexpr std::size_t k_flat_bytes = 2 << 10;

std::size_t segment_of(int socket) {
  int bytes = 0;
  socklen_t size = sizeof bytes;
  if (::getsockopt(socket, IPPROTO_TCP, TCP_MAXSEG, &bytes, &size) != 0 || bytes <= 0) return k_long_turn_bytes;
  return std::min(static_cast<std::size_t>(bytes), k_long_turn_bytes);
}

// A few pieces of memory for one system call.
struct Pieces {
  std::array<iovec, k_most_pieces> list;
  std::size_t count = 0;
  std::size_t bytes = 0;
  std::size_t turn = 0;  // payload that may still be added

  // Room for a header and the first of its payload.
  [[nodiscard]] bool full() const { return count + 2 > list.size() || turn == 0; }
  void add_header(void* data, std::size_t size) {
    list[count++] = {data, size};
    bytes += size;
  }
  void add(void* data, std::size_t size) {
    add_header(data, size);
    turn -= size;
  }

  [[nodiscard]] ssize_t send_to(int socket) {
    std::array<std::byte, k_flat_bytes> flat;
    if (count == 1) return ::send(socket, list[0].iov_base, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (bytes > flat.size()) {
      msghdr call{};
      call.msg_iov = list.data();
      call.msg_iovlen = count;
      return ::sendmsg(socket, &call, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    std::byte* to = flat.data();
    for (std::size_t i = 0; i < count; to += list[i++].iov_len)
      if (list[i].iov_len > 0) std::memcpy(to, list[i].iov_base, list[i].iov_len);
    return ::send(socket, flat.data(), bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  [[nodiscard]] ssize_t receive_from(int socket) {
    std::array<std::byte, k_flat_bytes> flat;
    if (count == 1) return ::recv(socket, list[0].iov_base, bytes, MSG_DONTWAIT);
    if (bytes > flat.size()) {
      msghdr call{};
      call.msg_iov = list.data();
      call.msg_iovlen = count;
      return ::recvmsg(socket, &call, MSG_DONTWAIT);
    }
    const auto got = ::recv(socket, flat.data(), bytes, MSG_DONTWAIT);
    std::size_t left = got > 0 ? static_cast<std::size_t>(got) : 0;
    const std::byte* from = flat.data();
    for (std::size_t i = 0; left > 0; ++i) {
      const std::size_t size = std::min(left, list[i].iov_len);
      std::memcpy(list[i].iov_base, from, size);
      from += size;
      left -= size;
    }
    return got;
  }
};

}  // namespace

void TcpEndpoint::Free::operator()(std::byte* memory) const {
  ::operator delete(memory, std::align_val_t(k_landing_alignment));
}

TcpEndpoint::TcpEndpoint(TcpTransport& transport, const Peer& peer, std::vector<Fd> sockets, bool keeps_step)
    : Endpoint(peer.rank, peer.lane),
      transport_(transport),
      who_(fmt::format("rank {} on {}", peer.rank, peer.host)),
      keeps_step_(keeps_step) {
  for (auto& socket : sockets) {
    auto stream = std::make_unique<TcpStream>();
    stream->fd = std::move(socket);
    stream->endpoint = this;
    const bool upwards = transport.rank() < peer.rank;
    stream->out = Stripe::of(sockets.size() / 2, streams_.size(), upwards);
    stream->in = Stripe::of(sockets.size() / 2, streams_.size(), !upwards);
    stream->segment = segment_of(stream->fd.get());
    streams_.push_back(std::move(stream));
  }
  transport_.enter(*this);
}

TcpEndpoint::~TcpEndpoint() { transport_.leave(*this); }

void TcpEndpoint::end(Code code, std::string_view how, int sys_errno) {
  if (failure_) return;
  failure_ = Error{code, fmt::format("{} {}", who_, how), peer(), sys_errno};
  // So that the peer hears of it too, after what was sent before.
  for (const auto& stream : streams_) ::shutdown(stream->fd.get(), SHUT_RDWR);
}

void TcpEndpoint::ended(int sys_errno) {
  switch (sys_errno) {
    case 0: end(Code::peer_gone, "is gone: it closed the connection"); break;
    case ECONNRESET:
    case EPIPE: end(Code::peer_gone, "is gone: it reset the connection", sys_errno); break;
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN: end(Code::peer_gone, "is gone: its host no longer answers", sys_errno); break;
    default:
      end(Code::system, fmt::format("cannot be reached: {}", std::system_category().message(sys_errno)), sys_errno);
  }
}

Result<void> TcpEndpoint::send(Slice source) {
  if (failure_) return tl::unexpected<Error>(*failure_);
  if (!source.within(transport_))
    return fail(Code::bad_usage, "a send from memory that is not registered with this transport", peer());
  if (sends_posted_ - sends_done_ == k_tcp_depth)
    return fail(Code::exhausted, fmt::format("{} sends to {} are outstanding already", k_tcp_depth, who_), peer());
  const bool alone = sends_done_ == sends_posted_;
  if (alone && source.size >= Pace::k_least_bytes) {
    // By how much this rank was ahead or behind when the last messages ended says nothing about those that begin.
    pace_.reset();
    transport_.pace().reset();
  }
  outgoing(sends_posted_) = {{source.size, sends_posted_}, source.data()};
  ++sends_posted_;
  if (alone && source.size <= k_eager_bytes && streams_[0]->may_write) send_some(*streams_[0]);
  return {};
}

Result<void> TcpEndpoint::post_recv(Incoming one) {
  if (failure_) return tl::unexpected<Error>(*failure_);
  if (recvs_posted_ - recvs_done_ == k_tcp_depth)
    return fail(Code::exhausted, fmt::format("{} receives from {} are outstanding already", k_tcp_depth, who_), peer());
  incoming(recvs_posted_) = one;
  ++recvs_posted_;
  return {};
}

Result<void> TcpEndpoint::recv(Slice destination) {
  if (!destination.within(transport_))
    return fail(Code::bad_usage, "a receive into memory that is not registered with this transport", peer());
  return post_recv({destination.size, destination.data(), false});
}

Result<void> TcpEndpoint::recv_in_place(std::size_t bytes) {
  if (!landing_)
    landing_.reset(static_cast<std::byte*>(::operator new(k_long_turn_bytes, std::align_val_t(k_landing_alignment))));
  return post_recv({bytes, nullptr, true});
}

void TcpEndpoint::skip_sends(TcpStream& stream) const {
  while (stream.sending < sends_posted_ && !stream.out.takes_part(outgoing(stream.sending).header.size))
    ++stream.sending;
}

void TcpEndpoint::skip_recvs(TcpStream& stream) const {
  while (stream.receiving < recvs_posted_ && !stream.in.takes_part(incoming(stream.receiving).size)) ++stream.receiving;
}

std::size_t TcpEndpoint::send_turn(const TcpStream& stream) const {
  const std::size_t size = outgoing(stream.sending).header.size;
  if (!keeps_step_ || size < Pace::k_least_bytes) return turn_of(size);
  const std::size_t header = k_header - std::min(stream.sent, k_header);
  return whole_segments_of(k_header + stream.out.share(size) - stream.sent, stream.segment) - header;
}

bool TcpEndpoint::send_some(TcpStream& stream) {
  skip_sends(stream);
  const bool is_long =
      keeps_step_ && stream.sending < sends_posted_ && outgoing(stream.sending).header.size >= Pace::k_least_bytes;
  if (is_long && !in_step()) return false;
  // As many messages as one call takes, header and payload in turn.
  Pieces pieces;
  if (stream.sending < sends_posted_) pieces.turn = send_turn(stream);
  std::size_t at = stream.sent;
  for (auto number = stream.sending; number < sends_posted_ && !pieces.full(); ++number, at = 0) {
    auto& message = outgoing(number);
    if (!stream.out.takes_part(message.header.size)) continue;
    if (at < k_header) {
      pieces.add_header(reinterpret_cast<std::byte*>(&message.header) + at, k_header - at);
      at = k_header;
    }
    const std::size_t share = stream.out.share(message.header.size);
    for (std::size_t done = at - k_header; done < share && !pieces.full();) {
      const std::size_t run = std::min(stream.out.run(done, share), pieces.turn);
      pieces.add(message.data + stream.out.position(done), run);
      done += run;
    }
  }
  if (pieces.count == 0) return false;
  const auto sent = pieces.send_to(stream.fd.get());
  if (sent < 0) {
    if (not_ready(errno)) {
      stream.may_write = errno == EINTR;
    } else {
      ended(errno);
    }
    return false;
  }
  if (static_cast<std::size_t>(sent) < pieces.bytes) stream.may_write = false;
  if (is_long)
    for (Pace* pace : {&pace_, &transport_.pace()}) pace->sent(static_cast<std::size_t>(sent));
  sent_bytes(stream, static_cast<std::size_t>(sent));
  finish_sends();
  return true;
}

void TcpEndpoint::sent_bytes(TcpStream& stream, std::size_t count) {
  while (count > 0) {
    const std::size_t size = outgoing(stream.sending).header.size;
    const std::size_t total = k_header + stream.out.share(size);
    const std::size_t taken = std::min(count, total - stream.sent);
    stream.sent += taken;
    count -= taken;
    if (stream.sent == total) {
      ++stream.sending;
      stream.sent = 0;
      skip_sends(stream);
    }
  }
}

void TcpEndpoint::finish_sends() {
  auto done = sends_posted_;
  for (const auto& stream : streams_) {
    skip_sends(*stream);
    done = std::min(done, stream->sending);
  }
  for (; sends_done_ < done; ++sends_done_)
    traffic_[static_cast<std::size_t>(Path::socket)] += outgoing(sends_done_).header.size;
}

bool TcpEndpoint::has_room(const TcpStream& stream) const {
  const auto& message = incoming(stream.receiving);
  if (!message.in_place) return true;
  if (stream.receiving != recvs_done_) return false;
  if (stream.received < k_header || message.size == 0) return true;
  return stream.in.position(stream.received - k_header) < consumed_ + turn_of(message.size);
}

bool TcpEndpoint::recv_some(TcpStream& stream) {
  skip_recvs(stream);
  if (stream.receiving == recvs_posted_ || !has_room(stream)) return false;
  const auto& message = incoming(stream.receiving);
  const std::size_t share = stream.in.share(message.size);
  const std::size_t ring = turn_of(message.size);
  Pieces pieces;
  pieces.turn = ring;
  if (stream.received < k_header)
    pieces.add_header(reinterpret_cast<std::byte*>(&stream.header) + stream.received, k_header - stream.received);
  for (std::size_t at = std::max(stream.received, k_header) - k_header; at < share && !pieces.full();) {
    const std::size_t position = stream.in.position(at);
    std::size_t run = std::min(stream.in.run(at, share), pieces.turn);
    if (message.in_place) {
      const std::size_t window_end = consumed_ + ring;
      if (position >= window_end) break;
      const std::size_t slot = position % ring;
      run = std::min({run, window_end - position, ring - slot});
      pieces.add(landing_.get() + slot, run);
    } else {
      pieces.add(message.data + position, run);
    }
    at += run;
  }
  const auto got = pieces.receive_from(stream.fd.get());
  if (got <= 0) {
    if (got < 0 && not_ready(errno)) {
      stream.may_read = errno == EINTR;
    } else if (holds_whole_message() || older_is_unread(stream)) {
      stream.hung_up = true;  // the end counts once that is taken
    } else {
      ended(got < 0 ? errno : 0);
    }
    return false;
  }
  // A short read means empty, until epoll says otherwise; but of an end it speaks only once.
  if (static_cast<std::size_t>(got) < pieces.bytes && !stream.hung_up) stream.may_read = false;
  if (keeps_step_ && message.size >= Pace::k_least_bytes)
    for (Pace* pace : {&pace_, &transport_.pace()}) pace->received(static_cast<std::size_t>(got));
  const bool had_header = stream.received >= k_header;
  stream.received += static_cast<std::size_t>(got);
  if (!had_header && stream.received >= k_header && !header_fits(stream, message)) return true;
  if (stream.received == k_header + share) {
    ++stream.receiving;
    stream.received = 0;
    finish_recvs();
    notice_ends();
  }
  return true;
}

bool TcpEndpoint::has_unread(const TcpStream& stream) {
  std::byte next;
  return ::recv(stream.fd.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

bool TcpEndpoint::older_is_unread(const TcpStream& than) const {
  return std::any_of(streams_.begin(), streams_.end(),
                     [&](const auto& stream) { return stream->receiving < than.receiving && has_unread(*stream); });
}

bool TcpEndpoint::holds_whole_message() const {
  return expects() && incoming(recvs_done_).in_place &&
         std::all_of(streams_.begin(), streams_.end(),
                     [this](const auto& stream) { return stream->receiving > recvs_done_; });
}

bool TcpEndpoint::header_fits(const TcpStream& stream, const Incoming& expected) {
  if (stream.header.number != stream.receiving) {
    end(Code::malformed, fmt::format("sent message {} where message {} was due; the pipe is out of step",
                                     stream.header.number, stream.receiving));
  } else if (stream.header.size != expected.size) {
    wrong_size(stream.header, expected.size);
  }
  return !failure_;
}

void TcpEndpoint::wrong_size(const TcpHeader& header, std::size_t expected) {
  end(Code::malformed,
      fmt::format("sent {} bytes as message {} where {} were to be received; both sides must name the same size",
                  header.size, header.number, expected));
}

void TcpEndpoint::finish_recvs() {
  auto done = recvs_posted_;
  for (const auto& stream : streams_) {
    skip_recvs(*stream);
    done = std::min(done, stream->receiving);
  }
  while (recvs_done_ < done) {
    const auto& message = incoming(recvs_done_);
    if (message.in_place && consumed_ < message.size) return;
    consumed_ = 0;
    ++recvs_done_;
  }
}

std::span<const std::byte> TcpEndpoint::readable() {
  if (recvs_done_ == recvs_posted_ || failure_) return {};
  const auto& message = incoming(recvs_done_);
  if (!message.in_place) return {};
  // What has arrived without a gap: up to the first byte that some socket still owes.
  std::size_t arrived = message.size;
  for (const auto& stream : streams_) {
    skip_recvs(*stream);
    if (stream->receiving != recvs_done_) continue;  // has given its whole share
    if (stream->received < k_header) {
      arrived = std::min(arrived, stream->in.position(0));
    } else {
      arrived = std::min(arrived, stream->in.position(stream->received - k_header));
    }
  }
  if (arrived < message.size) arrived -= arrived % k_grain;
  const std::size_t ring = turn_of(message.size);
  const std::size_t slot = consumed_ % ring;
  return {landing_.get() + slot, std::min(arrived - consumed_, ring - slot)};
}

void TcpEndpoint::consume(std::size_t bytes) {
  if (bytes == 0) return;
  const auto& message = incoming(recvs_done_);
  GRADRAIL_CHECK(bytes <= readable().size());
  consumed_ += bytes;
  GRADRAIL_CHECK(bytes % k_grain == 0 || consumed_ == message.size);
  if (consumed_ < message.size) return;
  finish_recvs();
  notice_ends();
}

std::size_t TcpEndpoint::departed(std::uint64_t send, std::size_t bytes) const {
  std::size_t gone = bytes;
  for (const auto& stream : streams_) {
    skip_sends(*stream);
    if (stream->sending >= send) continue;  // its whole share
    const std::size_t share = stream->sending + 1 < send || stream->sent < k_header ? 0 : stream->sent - k_header;
    gone = std::min(gone, stream->out.position(share));
  }
  return gone;
}

bool TcpEndpoint::takes_long() const {
  if (!keeps_step_) return false;
  for (const auto& stream : streams_) {
    skip_recvs(*stream);
    // Whether there is room for more now or only when what is there was read: a turn may take two calls to receive.
    if (stream->receiving < recvs_posted_ && incoming(stream->receiving).size >= Pace::k_least_bytes) return true;
  }
  return false;
}

bool TcpEndpoint::in_step() {
  // A pipe that carries long messages both ways keeps its own pace; else what the rank receives from others sets it.
  if (takes_long()) return pace_.may_send();
  pace_.reset();
  if (transport_.takes_long()) return transport_.pace().may_send();
  transport_.pace().reset();
  return true;
}

bool TcpEndpoint::progress(bool look) {
  bool moved = false;
  for (auto& stream : streams_) {
    if (failure_) return moved;
    if (sends_done_ < sends_posted_ && (look || stream->may_write)) moved |= send_some(*stream);
    if (expects() && !failure_ && (look || stream->may_read)) moved |= recv_some(*stream);
  }
  return moved;
}

bool TcpEndpoint::could_move() const {
  if (failure_) return false;
  for (const auto& stream : streams_) {
    skip_sends(*stream);
    skip_recvs(*stream);
    if (stream->may_write && stream->sending < sends_posted_) return true;
    if (stream->may_read && stream->receiving < recvs_posted_ && has_room(*stream)) return true;
  }
  return false;
}

void TcpEndpoint::notice_end(TcpStream& stream) {
  // What was sent before the end is still good: in the sockets, where receives take it and find the end behind it, and
  // in the landing ring.
  if (failure_ || !stream.hung_up || holds_whole_message()) return;
  std::byte next;
  const auto got = ::recv(stream.fd.get(), &next, 1, MSG_PEEK | MSG_DONTWAIT);
  if (got > 0 || (got < 0 && not_ready(errno))) return;
  const int error = got < 0 ? errno : 0;
  if (std::any_of(streams_.begin(), streams_.end(), [](const auto& one) { return has_unread(*one); })) return;
  ended(error);
}

void TcpEndpoint::notice_ends() {
  for (const auto& stream : streams_) {
    if (!stream->hung_up) continue;
    skip_recvs(*stream);
    if (stream->receiving == recvs_posted_) notice_end(*stream);
  }
}

void TcpEndpoint::notice_silence() {
  // A peer that is merely slow still has a kernel that answers; TCP_USER_TIMEOUT would not know the difference: it also
  // ends a link whose reader takes a long time. So the kernel is asked what came back.
  constexpr unsigned k_silent_ms = 11000;
  constexpr unsigned k_unanswered = 3;
  for (const auto& stream : streams_) {
    tcp_info info{};
    socklen_t size = sizeof info;
    if (failure_ || ::getsockopt(stream->fd.get(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return;
    if (info.tcpi_last_ack_recv >= k_silent_ms && std::max(info.tcpi_retransmits, info.tcpi_probes) >= k_unanswered)
      ended(ETIMEDOUT);
  }
}

void TcpEndpoint::notice_stray() {
  for (const auto& stream : streams_) {
    if (failure_ || stream->received > 0) continue;
    TcpHeader header;
    const auto got = ::recv(stream->fd.get(), &header, k_header, MSG_PEEK | MSG_DONTWAIT);
    if (got != static_cast<ssize_t>(k_header) || header.number < recvs_done_ || header.number >= recvs_posted_)
      continue;
    if (const std::size_t expected = incoming(header.number).size; header.size != expected)
      wrong_size(header, expected);
  }
}

}  // namespace gradrail

#include "transports/tcp/transport.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"
#include "transports/base/epoll.h"
#include "transports/base/pages.h"
#include "transports/meet.h"

namespace gradrail {
namespace {

constexpr std::string_view k_purpose = "tcp transport";
constexpr int k_most_connections = 16;
constexpr std::size_t k_most_early = 4096;
// Up to so many busy endpoints are tried one by one; above, epoll says which of them to try.
constexpr std::size_t k_few = 4;
// While only trying, epoll is asked every so many calls: it knows of ends on quiet sockets.
constexpr unsigned k_ask_every = 256;
constexpr Seconds k_look_around_every{1};
constexpr int k_events = 64;
constexpr Traits k_traits{.name = "tcp", .copies_out = true, .depth = k_tcp_depth};

class PlainRegion final : public Region {
 public:
  // `pages`: the memory, if it is the region's own.
  PlainRegion(const Transport& owner, Buffer buffer, Pages pages = {})
      : Region(owner, buffer, false), pages_(std::move(pages)) {}

 private:
  Pages pages_;
};

struct Hello {
  std::int32_t rank, lane, index, connections;

  [[nodiscard]] Bytes pack() const {
    ByteWriter out;
    for (const auto field : {rank, lane, index, connections}) out.put(field);
    return std::move(out).take();
  }
  [[nodiscard]] static std::optional<Hello> parse(std::span<const std::byte> bytes, int ranks) {
    ByteReader in(bytes);
    Hello hello{};
    for (auto* field : {&hello.rank, &hello.lane, &hello.index, &hello.connections}) *field = in.get<std::int32_t>();
    const auto within = [](int value, int end) { return value >= 0 && value < end; };
    if (!in.ok() || in.left() > 0 || !within(hello.rank, ranks) || !within(hello.lane, k_max_lanes) ||
        hello.connections > k_most_connections || !within(hello.index, 2 * hello.connections))
      return std::nullopt;
    return hello;
  }
};

}  // namespace

Result<std::unique_ptr<Transport>> TcpTransport::make(const Settings& settings) {
  if (settings.connections < 1 || settings.connections > k_most_connections)
    return fail(Code::bad_usage, fmt::format("{} connections a pipe are not possible with tcp; choose 1 to {}",
                                             settings.connections, k_most_connections));
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("making an epoll set", errno);
  return std::unique_ptr<Transport>(new TcpTransport(settings, std::move(epoll)));
}

TcpTransport::~TcpTransport() { GRADRAIL_CHECK(endpoints_.empty()); }

const Traits& TcpTransport::traits() const { return k_traits; }

Result<Address> TcpTransport::listen() {
  GRADRAIL_CHECK(!acceptor_);
  // Every other rank may be in the middle of its handshake at once; beyond that come strangers.
  Acceptor::Options options;
  options.purpose = k_purpose;
  options.most_hello_bytes = sizeof(Hello);
  options.most_pending +=
      8 * static_cast<std::size_t>(settings_.ranks) * static_cast<std::size_t>(settings_.connections);
  GRADRAIL_ASSIGN(auto listening, listen_for_peers(settings_, k_traits.name, std::move(options)));
  acceptor_ = std::move(listening.acceptor);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, acceptor_->fd(), &event) != 0)
    return fail_errno("watching the listening socket", errno);
  return std::move(listening.address);
}

Result<void> TcpTransport::take_early() {
  for (;;) {
    GRADRAIL_ASSIGN(auto accepted, acceptor_->poll());
    if (!accepted) return {};
    const auto hello = Hello::parse(accepted->hello, settings_.ranks);
    if (!hello) continue;
    // A peer that comes again has given up its first attempt.
    std::erase_if(early_, [&](const Early& one) {
      return one.rank == hello->rank && one.lane == hello->lane && one.index == hello->index;
    });
    if (early_.size() == k_most_early) early_.erase(early_.begin());
    early_.push_back({hello->rank, hello->lane, hello->index, hello->connections, std::move(accepted->fd)});
  }
}

Result<std::optional<Fd>> TcpTransport::claim(const Peer& peer, int index) {
  const auto found = std::find_if(early_.begin(), early_.end(), [&](const Early& one) {
    return one.rank == peer.rank && one.lane == peer.lane && one.index == index;
  });
  if (found == early_.end()) return std::nullopt;
  if (found->connections != settings_.connections)
    return fail(Code::bad_usage,
                fmt::format("{} opens {} connections a pipe, this rank {}; give all ranks the same number",
                            name_of(peer), found->connections, settings_.connections),
                peer.rank);
  Fd fd = std::move(found->fd);
  early_.erase(found);
  return fd;
}

Result<std::vector<std::unique_ptr<Endpoint>>> TcpTransport::connect(std::span<const Peer> peers, Deadline deadline) {
  GRADRAIL_CHECK(acceptor_.has_value());
  struct Wanted {
    const Peer* peer;
    int index;
    std::optional<Dial> dial;  // none: the peer dials
    Fd fd;
  };
  const int sockets_a_pipe = 2 * settings_.connections;  // stripe.h
  std::vector<Wanted> wanted;
  for (const auto& peer : peers) {
    GRADRAIL_TRY(expect_peer(peer, settings_, k_traits.name));
    for (int index = 0; index < sockets_a_pipe; ++index) {
      wanted.push_back({&peer, index, std::nullopt, Fd()});
      if (peer.rank < settings_.rank) continue;
      GRADRAIL_ASSIGN(const auto address, address_of(peer));
      const Hello hello{settings_.rank, peer.lane, index, settings_.connections};
      wanted.back().dial.emplace(address, settings_.secret, k_purpose, hello.pack());
    }
  }

  std::vector<pollfd> waits;
  for (;;) {
    GRADRAIL_TRY(take_early());
    const Peer* missing = nullptr;
    bool pausing = false;
    waits.assign(1, {acceptor_->fd(), POLLIN, 0});
    for (auto& one : wanted) {
      if (one.fd) continue;
      if (one.dial) {
        auto done = one.dial->advance();
        if (!done) return connecting_to(*one.peer, std::move(done).error());
        if (*done) one.fd = one.dial->take();
      } else {
        GRADRAIL_ASSIGN(auto claimed, claim(*one.peer, one.index));
        if (claimed) one.fd = std::move(*claimed);
      }
      if (one.fd) continue;
      if (missing == nullptr) missing = one.peer;
      if (one.dial && one.dial->fd() >= 0) waits.push_back({one.dial->fd(), one.dial->waits_for(), 0});
      pausing |= one.dial && one.dial->fd() < 0;
    }
    if (missing == nullptr) break;
    GRADRAIL_TRY(wait_for_peers(waits, *missing, settings_, pausing, deadline));
  }

  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (std::size_t at = 0; at < wanted.size(); at += static_cast<std::size_t>(sockets_a_pipe)) {
    std::vector<Fd> sockets;
    bool on_one_host = true;
    for (int index = 0; index < sockets_a_pipe; ++index) {
      auto& socket = wanted[at + static_cast<std::size_t>(index)].fd;
      const bool here = on_loopback(socket.get());
      if (here) size_buffers_on_one_host(socket.get());
      on_one_host &= here;
      sockets.push_back(std::move(socket));
    }
    endpoints.push_back(std::make_unique<TcpEndpoint>(*this, *wanted[at].peer, std::move(sockets), on_one_host));
  }
  return endpoints;
}

Result<std::unique_ptr<Region>> TcpTransport::register_memory(Buffer buffer) {
  if (buffer.space != Space::host)
    return fail(Code::unsupported, "tcp moves host memory only; copy device memory to the host first");
  return std::make_unique<PlainRegion>(*this, buffer);
}

Result<std::unique_ptr<Region>> TcpTransport::allocate(std::size_t bytes) {
  GRADRAIL_ASSIGN(auto pages, Pages::map(bytes));
  const Buffer buffer{pages.data(), bytes};
  return std::make_unique<PlainRegion>(*this, buffer, std::move(pages));
}

void TcpTransport::enter(TcpEndpoint& endpoint) {
  for (auto& stream : endpoint.streams()) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = stream.get();
    GRADRAIL_CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, stream->fd.get(), &event) == 0);
  }
  endpoints_.push_back(&endpoint);
}

void TcpTransport::leave(TcpEndpoint& endpoint) { std::erase(endpoints_, &endpoint); }

bool TcpTransport::progress() {
  std::size_t busy = 0;
  for (const auto* endpoint : endpoints_) busy += endpoint->busy() ? 1 : 0;
  const bool look = busy <= k_few;
  const bool rare = ++calls_ % k_ask_every == 0;
  if (!look || rare) ask(Seconds(0));
  if (rare) look_around();
  bool moved = false;
  for (auto* endpoint : endpoints_)
    if (endpoint->busy()) moved |= endpoint->progress(look);
  return moved;
}

bool TcpTransport::takes_long() const {
  return std::any_of(endpoints_.begin(), endpoints_.end(), [](const TcpEndpoint* one) { return one->takes_long(); });
}

bool TcpTransport::ask(Seconds at_most) {
  std::array<epoll_event, k_events> events;
  const int count = wait_for_events(epoll_.get(), events, at_most);
  for (int i = 0; i < count; ++i) {
    auto* stream = static_cast<TcpStream*>(events[static_cast<std::size_t>(i)].data.ptr);
    const auto what = events[static_cast<std::size_t>(i)].events;
    if (stream == nullptr) {
      // Somebody knocks while traffic flows. What fails here fails again, and is told, in connect().
      if (auto taken = take_early(); !taken) continue;
      continue;
    }
    if ((what & EPOLLIN) != 0) stream->may_read = true;
    if ((what & EPOLLOUT) != 0) stream->may_write = true;
    if ((what & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
      stream->hung_up = true;
      stream->may_read = true;
      stream->endpoint->notice_end(*stream);
    }
  }
  return count > 0;
}

void TcpTransport::look_around() {
  if (Clock::now() - looked_around_ < k_look_around_every) return;
  looked_around_ = Clock::now();
  for (auto* endpoint : endpoints_) {
    if (!endpoint->busy()) continue;
    endpoint->notice_silence();
    if (endpoint->expects()) endpoint->notice_stray();
  }
  if (acceptor_ && acceptor_->pending() > 0)
    if (auto taken = take_early(); !taken) return;
}

void TcpTransport::wait(Seconds at_most) {
  const auto something = [this] {
    return std::any_of(endpoints_.begin(), endpoints_.end(), [](const TcpEndpoint* one) { return one->could_move(); });
  };
  if (at_most.count() <= 0) {
    ::sched_yield();
    return;
  }
  look_around();
  const auto until = Deadline::after(at_most);
  const auto failures = [this] {
    return std::count_if(endpoints_.begin(), endpoints_.end(), [](const TcpEndpoint* one) { return one->failure(); });
  };
  // Events nobody asked for (room to write, bytes no receive is posted for) do not end the wait.
  const auto failed = failures();
  while (!something() && failures() == failed && !until.passed()) ask(until.left());
}

extern const TransportKind k_tcp_transport{"tcp",
                                           "sockets, between any hosts: several connections a pipe with --connections",
                                           []() -> Result<void> { return {}; }, &TcpTransport::make};

}  // namespace gradrail

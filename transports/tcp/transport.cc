#include "transports/tcp/transport.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"

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
constexpr std::size_t k_huge_page = 2 << 20;
constexpr Traits k_traits{.name = "tcp", .depth = k_tcp_depth};

class PlainRegion final : public Region {
 public:
  PlainRegion(const Transport& owner, Buffer buffer, std::size_t mapped = 0)
      : Region(owner, buffer, false), mapped_(mapped) {}
  ~PlainRegion() override {
    if (mapped_ > 0) ::munmap(buffer().data, mapped_);
  }

 private:
  std::size_t mapped_;  // bytes to unmap, 0 if the memory is the caller's
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

tl::unexpected<Error> about(const Peer& peer, Error error) {
  error.peer = peer.rank;
  return tl::unexpected<Error>(std::move(error).in("connecting to " + name_of(peer)));
}

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
  GRADRAIL_ASSIGN(auto listener, listen_tcp(settings_.listen_host, 0));
  GRADRAIL_ASSIGN(const int port, local_port(listener.get()));
  // Every other rank may be in the middle of its handshake at once; beyond that come strangers.
  Acceptor::Options options;
  options.purpose = k_purpose;
  options.most_hello_bytes = sizeof(Hello);
  options.most_pending +=
      8 * static_cast<std::size_t>(settings_.ranks) * static_cast<std::size_t>(settings_.connections);
  GRADRAIL_ASSIGN(acceptor_, Acceptor::make(std::move(listener), settings_.secret, std::move(options)));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, acceptor_->fd(), &event) != 0)
    return fail_errno("watching the listening socket", errno);
  ByteWriter address;
  address.put_string(settings_.listen_host);
  address.put(static_cast<std::uint16_t>(port));
  return std::move(address).take();
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
    if (peer.rank < 0 || peer.rank >= settings_.ranks || peer.rank == settings_.rank || peer.lane < 0 ||
        peer.lane >= k_max_lanes)
      return fail(Code::bad_usage, fmt::format("{} is not a peer of rank {} among {} ranks", name_of(peer),
                                               settings_.rank, settings_.ranks));
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
        if (!done) return about(*one.peer, std::move(done).error());
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
    if (deadline.passed())
      return fail(Code::timed_out,
                  fmt::format("{} {} in time", name_of(*missing),
                              missing->rank > settings_.rank ? "did not answer" : "did not connect"),
                  missing->rank);
    // Silent strangers are to be dropped while we wait, and dials between two tries have nothing to wait on but time.
    const auto limit = Deadline::after(pausing ? Seconds(0.002) : Seconds(0.5));
    ::poll(waits.data(), waits.size(), std::min(limit.left_ms(), deadline.left_ms()));
  }

  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (std::size_t at = 0; at < wanted.size(); at += static_cast<std::size_t>(sockets_a_pipe)) {
    std::vector<Fd> sockets;
    for (int index = 0; index < sockets_a_pipe; ++index) {
      auto& socket = wanted[at + static_cast<std::size_t>(index)].fd;
      size_buffers_on_one_host(socket.get());
      sockets.push_back(std::move(socket));
    }
    endpoints.push_back(std::make_unique<TcpEndpoint>(*this, *wanted[at].peer, std::move(sockets)));
  }
  return endpoints;
}

Result<std::unique_ptr<Region>> TcpTransport::register_memory(Buffer buffer) {
  if (buffer.space != Space::host)
    return fail(Code::unsupported, "tcp moves host memory only; copy device memory to the host first");
  return std::make_unique<PlainRegion>(*this, buffer);
}

Result<std::unique_ptr<Region>> TcpTransport::allocate(std::size_t bytes) {
  const std::size_t mapped = std::max<std::size_t>(bytes, 1);
  void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return fail(Code::exhausted, fmt::format("{} bytes of memory are not to be had", bytes), Error::k_no_peer, errno);
  if (bytes >= k_huge_page) ::madvise(memory, mapped, MADV_HUGEPAGE);  // a wish; nothing depends on it
  return std::make_unique<PlainRegion>(*this, Buffer{static_cast<std::byte*>(memory), bytes}, mapped);
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

bool TcpTransport::ask(Seconds at_most) {
  std::array<epoll_event, k_events> events;
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(at_most).count();
  const timespec limit{nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
  int count = ::epoll_pwait2(epoll_.get(), events.data(), k_events, &limit, nullptr);
  if (count < 0 && errno == ENOSYS) {  // before Linux 5.11 only whole milliseconds
    const auto milliseconds = std::chrono::ceil<std::chrono::milliseconds>(at_most).count();
    count = ::epoll_wait(epoll_.get(), events.data(), k_events, static_cast<int>(milliseconds));
  }
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

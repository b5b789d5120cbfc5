#include "transports/ucx/transport.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <deque>

#include "transports/base/check.h"
#include "transports/base/epoll.h"

namespace gradrail::ucx {
namespace {

// Sockets are asked every so many calls, also if they did something: UCX may try for ever what a peer's death has made
// impossible.
constexpr unsigned k_ask_every = 1024;
constexpr Seconds k_look_around_every{1};
// How long what was sent may take to leave, where peers do not help.
constexpr Seconds k_flush{1};
constexpr int k_events = 64;
constexpr Traits k_traits{.name = "ucx", .depth = k_depth};

Result<void> watch(int epoll, int fd, void* who, std::uint32_t what) {
  epoll_event event{};
  event.events = what;
  event.data.ptr = who;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("watching a descriptor", errno);
  return {};
}

}  // namespace

UcxTransport::UcxTransport(const Settings& settings, std::unique_ptr<Worker> worker, Fd epoll)
    : settings_(settings), worker_(std::move(worker)), epoll_(std::move(epoll)) {}

Result<std::unique_ptr<Transport>> UcxTransport::make(const Settings& settings) {
  GRADRAIL_ASSIGN(auto worker, Worker::make());
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("making an epoll set", errno);
  GRADRAIL_TRY(watch(epoll.get(), worker->event_fd(), worker.get(), EPOLLIN | EPOLLET));
  return std::unique_ptr<Transport>(new UcxTransport(settings, std::move(worker), std::move(epoll)));
}

UcxTransport::~UcxTransport() {
  GRADRAIL_CHECK(endpoints_.empty());
  for (const auto& [rank, links] : links_)
    if (!links.empty()) links.back()->begin_flush();
  const auto flushed = [this] {
    return std::all_of(links_.begin(), links_.end(),
                       [](const auto& of) { return of.second.empty() || of.second.back()->flushed(); });
  };
  const auto until = Deadline::after(k_flush);
  while (!flushed() && !until.passed())
    if (!worker_->progress()) ::sched_yield();
  links_.clear();
}

const Traits& UcxTransport::traits() const { return k_traits; }

std::string UcxTransport::describe() const {
  auto text = fmt::format("UCX {}, {}", version(), worker_->settings());
  std::string over;
  for (const auto& [rank, links] : links_)
    if (!links.empty() && over.empty()) over = fmt::format(", rank {} over {}", rank, links.back()->lanes());
  return text + (over.empty() ? fmt::format(", may use {}", worker_->resources()) : over);
}

// A hello each way, so that what cannot work is told here.
struct UcxTransport::Opening final : Conversation {
  Opening(UcxTransport& transport, const Peer& to) : owner(transport), peer(to) {}
  ~Opening() override { drop(); }

  Result<Bytes> introduce() override {
    drop();
    if (owner.next_pipe_ == k_most_pipes)
      return fail(Code::exhausted, fmt::format("{} pipes have been opened; no more can be", k_most_pipes));
    own = {};
    own.pipe = owner.next_pipe_++;
    own.shares_memory = owner.worker_->shares_memory();
    own.host = host_identity();
    own.resources = owner.worker_->resources();
    own.library = version();
    own.address = owner.worker_->address();
    auto bytes = own.pack();
    if (bytes.size() > Introduction::k_most_bytes)
      return fail(Code::exhausted, fmt::format("UCX's address takes {} bytes; let it use fewer devices "
                                               "(UCX_NET_DEVICES)",
                                               own.address.size()));
    return bytes;
  }
  Result<void> agree(std::span<const std::byte> introduction) override {
    const auto said = Introduction::parse(introduction);
    if (!said) return fail(Code::refused, "it is another build of gradrail");
    if (said->fragment_bytes != k_fragment_bytes)
      return fail(Code::refused, fmt::format("its fragments are of {} bytes, this rank's of {}; it is another build",
                                             said->fragment_bytes, k_fragment_bytes));
    other = said->pipe;
    auto made = owner.link_to(peer.rank, own, *said);
    if (!made) {
      auto error = std::move(made).error();
      if (said->library != own.library)
        error.message += fmt::format("; its UCX is {}, this rank's {}", said->library, own.library);
      return tl::unexpected<Error>(std::move(error));
    }
    link = *made;
    flights = std::make_unique<Flights>();
    ucp_request_param_t receiving{};
    flights->begin_recv(flights->hello_recv, receiving);
    flights->began(flights->hello_recv,
                   ucp_tag_recv_nbx(owner.worker_->id(), nullptr, 0, hello_tag(own.pipe), k_match, &receiving));
    ucp_request_param_t sending{};
    flights->begin_send(flights->hello_send, sending);
    flights->began(flights->hello_send, ucp_tag_send_nbx(link->id(), nullptr, 0, hello_tag(other), &sending));
    return {};
  }
  Result<bool> reached() override {
    owner.worker_->progress();
    const auto& sent = flights->hello_send;
    const auto& got = flights->hello_recv;
    if (sent.done && got.done && sent.status == UCS_OK && got.status == UCS_OK) return true;
    for (const auto* one : {&sent, &got})
      if (one->done && one->status != UCS_OK) link->fail_with(one->status);
    if (link->failed())
      return fail(Code::unavailable,
                  fmt::format("UCX did not get through: {}{}{}; look at UCX_TLS and UCX_NET_DEVICES on both sides",
                              text_of(link->failure()), complaint().empty() ? "" : ": ", complaint()));
    static_cast<void>(owner.worker_->arm());
    return false;
  }
  void drop() {
    if (link && flights) link->give_up();
    if (flights) {
      flights->cancel_recvs(owner.worker_->id());
      owner.keep(std::move(flights));
    }
    link = nullptr;
  }

  UcxTransport& owner;
  const Peer& peer;
  Introduction own;
  std::uint64_t other = 0;
  Link* link = nullptr;
  std::unique_ptr<Flights> flights;
};

Result<Link*> UcxTransport::link_to(int rank, const Introduction& own, const Introduction& peer) {
  auto& known = links_[rank];
  if (known.empty() || known.back()->failed() || !known.back()->leads_to(peer)) {
    GRADRAIL_ASSIGN(auto made, Link::open(*worker_, own, peer));
    known.push_back(std::move(made));
  }
  known.back()->take_up();
  return known.back().get();
}

Result<Address> UcxTransport::listen() {
  GRADRAIL_ASSIGN(auto address, introductions_.listen(settings_));
  GRADRAIL_TRY(watch(epoll_.get(), introductions_.fd(), this, EPOLLIN | EPOLLET));
  return address;
}

Result<std::vector<std::unique_ptr<Endpoint>>> UcxTransport::connect(std::span<const Peer> peers, Deadline deadline) {
  std::deque<Opening> openings;
  std::vector<Conversation*> conversations;
  for (const auto& peer : peers) conversations.push_back(&openings.emplace_back(*this, peer));
  GRADRAIL_ASSIGN(auto channels, introductions_.meet(settings_, peers, conversations, deadline, worker_->event_fd()));
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (std::size_t i = 0; i < peers.size(); ++i) {
    auto& one = openings[i];
    endpoints.push_back(std::make_unique<UcxEndpoint>(*this, peers[i], *one.link, std::move(one.flights), one.own.pipe,
                                                      one.other, std::move(channels[i])));
  }
  return endpoints;
}

Result<std::unique_ptr<Region>> UcxTransport::register_memory(Buffer buffer) {
  ucp_mem_h handle = nullptr;
  if (buffer.size > 0) {
    GRADRAIL_ASSIGN(handle, worker_->map(buffer));
  }
  return std::make_unique<UcxRegion>(*this, *worker_, buffer, handle);
}

Result<std::unique_ptr<Region>> UcxTransport::allocate(std::size_t bytes) {
  GRADRAIL_ASSIGN(auto pages, Pages::map(bytes));
  const Buffer buffer{pages.data(), bytes};
  ucp_mem_h handle = nullptr;
  if (bytes > 0) {
    GRADRAIL_ASSIGN(handle, worker_->map(buffer));
  }
  return std::make_unique<UcxRegion>(*this, *worker_, buffer, handle, std::move(pages));
}

void UcxTransport::enter(UcxEndpoint& endpoint) {
  GRADRAIL_CHECK(watch(epoll_.get(), endpoint.lifeline(), &endpoint, EPOLLIN | EPOLLRDHUP | EPOLLET).has_value());
  endpoints_.push_back(&endpoint);
}

void UcxTransport::leave(UcxEndpoint& endpoint) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, endpoint.lifeline(), nullptr);
  std::erase(endpoints_, &endpoint);
}

void UcxTransport::keep(std::unique_ptr<Flights> flights) {
  std::erase_if(kept_, [](const auto& one) { return one->under_way == 0; });
  if (flights->under_way > 0) kept_.push_back(std::move(flights));
}

bool UcxTransport::progress() {
  bool moved = worker_->progress();
  for (auto* endpoint : endpoints_)
    if (endpoint->busy()) moved |= endpoint->progress();
  if (++calls_ % k_ask_every == 0) ask(Seconds(0));
  return moved;
}

void UcxTransport::wait(Seconds at_most) {
  if (at_most.count() <= 0) {
    ::sched_yield();
    return;
  }
  if (worker_->arm()) ask(at_most);
}

void UcxTransport::ask(Seconds at_most) {
  std::array<epoll_event, k_events> events;
  const int count = wait_for_events(epoll_.get(), events, at_most);
  for (int i = 0; i < count; ++i) {
    void* const who = events[static_cast<std::size_t>(i)].data.ptr;
    if (who == worker_.get()) continue;  // progress() follows
    if (who == this) {
      // Somebody knocks while traffic flows. What fails here fails again, and is told, in connect().
      if (auto taken = introductions_.take_early(); !taken) continue;
    } else {
      static_cast<UcxEndpoint*>(who)->check_life();
    }
  }
  look_around();
}

void UcxTransport::look_around() {
  if (Clock::now() - looked_around_ < k_look_around_every) return;
  looked_around_ = Clock::now();
  for (auto* endpoint : endpoints_) endpoint->check_life();
  if (introductions_.listening() && introductions_.pending() > 0)
    if (auto taken = introductions_.take_early(); !taken) return;
}

}  // namespace gradrail::ucx

namespace gradrail {

extern const TransportKind k_ucx_transport{"ucx", "UCX: whatever it finds between two ranks (libucp)",
                                           []() -> Result<void> { return {}; },
                                           [](const Settings& settings) { return ucx::UcxTransport::make(settings); }};

}  // namespace gradrail

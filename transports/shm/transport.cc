#include "transports/shm/transport.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "transports/base/check.h"
#include "transports/board.h"
#include "transports/meet.h"
#include "transports/shm/attach.h"
#include "transports/shm/host.h"

namespace gradrail::shm {
namespace {

constexpr std::string_view k_purpose = "shm pipe";
constexpr std::uint32_t k_protocol = 3;
// Life lines are looked at only when nothing has moved: at every this many idle calls, if it is time.
constexpr std::uint32_t k_idle_calls = 32;
constexpr auto k_look_every = std::chrono::milliseconds(1);
// Long sends from one region for which one look at its pages serves: they change, but seldom.
constexpr std::uint32_t k_look_at_pages_every = 256;

struct Contact {
  std::string host_id;
  std::string socket;
};

Result<Contact> parse_address(const Peer& peer) {
  GRADRAIL_TRY(same_transport(peer, "shm"));
  ByteReader reader(peer.address);
  static_cast<void>(reader.get_string());
  Contact contact{reader.get_string(), reader.get_string()};
  if (!reader.ok())
    return fail(Code::malformed, fmt::format("the address of rank {} is not one of the shm transport", peer.rank),
                peer.rank);
  return contact;
}

// Abstract: no file, gone with its socket.
Result<SocketAddress> abstract_address(std::string_view name) {
  SocketAddress address;
  auto* unix_address = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (name.empty() || name.size() > sizeof unix_address->sun_path - 1)
    return fail(Code::malformed, "an shm address holds an impossible socket name");
  unix_address->sun_family = AF_UNIX;
  std::memcpy(unix_address->sun_path + 1, name.data(), name.size());
  address.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  return address;
}

Error about(const Peer& peer, Error error) {
  error = std::move(error).in(fmt::format("connecting to rank {} on {}", peer.rank, peer.host));
  error.peer = peer.rank;
  return error;
}

}  // namespace

// One endpoint on its way.
struct ShmTransport::Opening {
  const Peer* peer = nullptr;
  std::optional<Dial> dial;  // the lower rank's, until it is through
  Fd fd;
  Mapping pipe;
  PipeLayout layout;
  bool answered = false;  // the higher rank has taken the pipe and said `ready`
  Identity identity;
};

ShmTransport::ShmTransport(const Settings& settings)
    : rank_(settings.rank),
      ranks_(settings.ranks),
      secret_(settings.secret),
      layout_(PipeLayout::of(settings.ring_bytes, settings.ranks)),
      attach_(settings.attach) {}

ShmTransport::~ShmTransport() { GRADRAIL_CHECK(endpoints_.empty()); }

Result<void> ShmTransport::available() {
  if (const Fd fd(::memfd_create("gradrail probe", MFD_CLOEXEC | MFD_ALLOW_SEALING)); !fd)
    return fail(
        Code::unavailable,
        "the shm transport needs memfd_create, which this system refuses (an old kernel, or a sandbox's filter)",
        Error::k_no_peer, errno);
  if (const Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)); !fd)
    return fail(Code::unavailable, "the shm transport needs unix sockets, which this system refuses", Error::k_no_peer,
                errno);
  GRADRAIL_TRY(host_id());
  return {};
}

const Traits& ShmTransport::traits() const {
  static constexpr Traits traits{.name = "shm",
                                 .same_host_only = true,
                                 .writes_in_place = true,
                                 .allocates_direct = true,
                                 .copies_out = true,
                                 .board_members = Board::k_most_members,
                                 .depth = k_depth};
  return traits;
}

Result<Address> ShmTransport::listen() {
  GRADRAIL_CHECK(!acceptor_);
  GRADRAIL_ASSIGN(const auto host, host_id());
  GRADRAIL_ASSIGN(const auto nonce, Secret::nonce());
  std::memcpy(&token_, nonce.data(), sizeof token_);
  std::string name = "gradrail-";
  for (const auto byte : nonce) name += fmt::format("{:02x}", static_cast<unsigned>(byte));
  GRADRAIL_ASSIGN(const auto address, abstract_address(name));
  Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!listener || ::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0 ||
      ::listen(listener.get(), SOMAXCONN) != 0)
    return fail_errno("listening on a unix socket", errno);
  Acceptor::Options options;
  options.purpose = k_purpose;
  GRADRAIL_ASSIGN(acceptor_, Acceptor::make(std::move(listener), secret_, std::move(options)));
  ByteWriter writer;
  writer.put_string("shm");
  writer.put_string(host);
  writer.put_string(name);
  return std::move(writer).take();
}

// A hello is believed as far as its sender has proven the secret; what does not fit this rank is dropped.
void ShmTransport::take_arrivals_in(Bytes hello, Fd fd) {
  ByteReader reader(hello);
  const auto protocol = reader.get<std::uint32_t>();
  Arrival arrival{std::move(fd), {}};
  arrival.identity.rank = reader.get<std::int32_t>();
  const auto target = reader.get<std::int32_t>();
  const auto ranks = reader.get<std::int32_t>();
  arrival.identity.lane = reader.get<std::int32_t>();
  if (!reader.ok() || protocol != k_protocol || target != rank_ || ranks != ranks_ || arrival.identity.rank >= rank_)
    return;
  arrivals_.push_back(std::move(arrival));
}

Result<void> ShmTransport::take_arrivals() {
  for (;;) {
    GRADRAIL_ASSIGN(auto accepted, acceptor_->poll());
    if (!accepted) return {};
    take_arrivals_in(std::move(accepted->hello), std::move(accepted->fd));
  }
}

Result<ShmTransport::Opening> ShmTransport::start(const Peer& peer) const {
  GRADRAIL_ASSIGN(const auto contact, parse_address(peer));
  GRADRAIL_ASSIGN(const auto host, host_id());
  if (peer.rank == rank_ || peer.rank < 0 || peer.rank >= ranks_ || peer.lane < 0 || peer.lane >= k_max_lanes)
    return fail(Code::bad_usage,
                fmt::format("rank {} cannot connect to rank {} on lane {}", rank_, peer.rank, peer.lane), peer.rank);
  if (contact.host_id != host)
    return fail(
        Code::unsupported,
        fmt::format("rank {} is on another host ({}), or in another network name space, and shm joins ranks that "
                    "share memory only; choose tcp for it",
                    peer.rank, peer.host),
        peer.rank);
  Opening opening;
  opening.peer = &peer;
  opening.identity = {peer.rank, peer.lane, peer.host, 0, 0};
  if (rank_ < peer.rank) {
    GRADRAIL_ASSIGN(const auto address, abstract_address(contact.socket));
    ByteWriter hello;
    hello.put(k_protocol);
    for (const int value : {rank_, peer.rank, ranks_, peer.lane}) hello.put(static_cast<std::int32_t>(value));
    opening.dial.emplace(address, secret_, k_purpose, std::move(hello).take());
  }
  return opening;
}

std::unique_ptr<ShmEndpoint> ShmTransport::open(Opening& opening, int side) {
  auto endpoint = std::make_unique<ShmEndpoint>(*this, std::move(opening.identity), side, opening.layout,
                                                std::move(opening.pipe), std::move(opening.fd));
  endpoints_.push_back(endpoint.get());
  working_.reserve(endpoints_.size());
  return endpoint;
}

Note ShmTransport::introduction(NoteKind kind) const {
  Note note;
  note.kind = kind;
  note.token = token_;
  note.pid = ::getpid();
  note.probe = attach_ != Attach::never ? reinterpret_cast<std::uintptr_t>(&token_) : 0;
  return note;
}

void ShmTransport::get_to_know(Opening& opening, const Note& note) const {
  opening.identity.pid = note.pid;
  opening.identity.token = note.token;
  const auto process = process_behind(opening.fd.get());
  opening.identity.reads_as = attach_ != Attach::never && can_read(process, note.probe, note.token) ? process : 0;
}

// The lower rank: dials, makes the pipe and passes it, waits for `ready`, says what it can read.
Result<std::unique_ptr<ShmEndpoint>> ShmTransport::advance_lower(Opening& opening) {
  if (opening.dial) {
    GRADRAIL_ASSIGN(const bool through, opening.dial->advance());
    if (!through) return nullptr;
    opening.fd = opening.dial->take();
    opening.dial.reset();
    GRADRAIL_ASSIGN(opening.pipe, Mapping::create("gradrail pipe", layout_.total_bytes()));
    const PipeHeader header{PipeHeader::k_magic, layout_.slot_bytes, layout_.slots};
    std::memcpy(opening.pipe.data(), &header, sizeof header);
    Note note = introduction(NoteKind::pipe);
    note.bytes = opening.pipe.size();
    GRADRAIL_ASSIGN(const bool sent, send_note(opening.fd.get(), note, opening.pipe.fd()));
    if (!sent) return fail(Code::exhausted, "too many descriptors are in flight; raise the limit of open files");
  }
  GRADRAIL_ASSIGN(const auto received, receive_note(opening.fd.get()));
  if (!received) return nullptr;
  if (received->note.kind != NoteKind::ready) return fail(Code::malformed, "it answered with something unexpected");
  get_to_know(opening, received->note);
  opening.identity.reads_us = received->note.region == 1;
  opening.layout = layout_;
  Note attach;
  attach.kind = NoteKind::attach;
  attach.region = opening.identity.reads_as != 0 ? 1 : 0;
  GRADRAIL_TRY(send_note(opening.fd.get(), attach));  // the third small note: there is room
  return open(opening, 0);
}

// The higher rank: claims an arrival, takes its pipe, says `ready` and what it can read, waits to hear the same.
Result<std::unique_ptr<ShmEndpoint>> ShmTransport::advance_higher(Opening& opening) {
  if (!opening.fd) {
    const auto found = std::find_if(arrivals_.begin(), arrivals_.end(), [&](const Arrival& one) {
      return one.identity.rank == opening.peer->rank && one.identity.lane == opening.peer->lane;
    });
    if (found == arrivals_.end()) return nullptr;
    opening.fd = std::move(found->fd);
    opening.answered = false;
    arrivals_.erase(found);
  }
  const auto received = receive_note(opening.fd.get());
  if (!received && received.error().code == Code::peer_gone) {
    opening.fd.reset();  // it gave up; it may come again
    return nullptr;
  }
  if (!received) return tl::unexpected(received.error());
  if (!*received) return nullptr;
  const Note& note = (*received)->note;
  if (opening.answered) {
    if (note.kind != NoteKind::attach) return fail(Code::malformed, "it answered with something unexpected");
    opening.identity.reads_us = note.region == 1;
    return open(opening, 1);
  }
  if (note.kind != NoteKind::pipe) return fail(Code::malformed, "it began with something unexpected");
  GRADRAIL_ASSIGN(opening.pipe, Mapping::open((*received)->fd, sizeof(PipeHeader)));
  PipeHeader header;
  std::memcpy(&header, opening.pipe.data(), sizeof header);
  PipeLayout& layout = opening.layout;
  layout.slot_bytes = header.slot_bytes;
  layout.slots = header.slots;
  if (header.magic != PipeHeader::k_magic || !layout.check() || layout.total_bytes() > opening.pipe.size())
    return fail(Code::malformed, "its pipe has an impossible layout");
  get_to_know(opening, note);
  Note ready = introduction(NoteKind::ready);
  ready.region = opening.identity.reads_as != 0 ? 1 : 0;
  if (const auto sent = send_note(opening.fd.get(), ready); !sent || !*sent) {
    opening.fd.reset();
    return nullptr;
  }
  opening.answered = true;
  return nullptr;
}

Result<std::unique_ptr<ShmEndpoint>> ShmTransport::advance(Opening& opening) {
  auto made = rank_ < opening.peer->rank ? advance_lower(opening) : advance_higher(opening);
  if (!made) return tl::unexpected(about(*opening.peer, std::move(made).error()));
  return made;
}

Result<std::vector<std::unique_ptr<Endpoint>>> ShmTransport::connect(std::span<const Peer> peers, Deadline deadline) {
  if (!acceptor_) return fail(Code::bad_usage, "connect() before listen()");
  std::vector<Opening> openings;
  for (const auto& peer : peers) {
    GRADRAIL_ASSIGN(auto opening, start(peer));
    openings.push_back(std::move(opening));
  }
  std::vector<std::unique_ptr<Endpoint>> made(peers.size());
  std::vector<pollfd> waits;
  for (;;) {
    GRADRAIL_TRY(take_arrivals());
    waits.assign(1, {acceptor_->fd(), POLLIN, 0});
    const Peer* missing = nullptr;
    bool pausing = false;
    for (std::size_t i = 0; i < peers.size(); ++i) {
      if (made[i]) continue;
      auto& opening = openings[i];
      GRADRAIL_ASSIGN(made[i], advance(opening));
      if (made[i]) continue;
      if (missing == nullptr) missing = opening.peer;
      if (opening.dial && opening.dial->fd() >= 0) {
        waits.push_back({opening.dial->fd(), opening.dial->waits_for(), 0});
      } else if (opening.dial) {
        pausing = true;
      } else if (opening.fd) {
        waits.push_back({opening.fd.get(), POLLIN, 0});
      }
    }
    if (missing == nullptr) return made;
    if (deadline.passed())
      return fail(Code::timed_out,
                  fmt::format("rank {} on {} did not come to connect over shm in time", missing->rank, missing->host),
                  missing->rank);
    // Strangers that are to be dropped, and tries that pause, need no more than a look now and then.
    ::poll(waits.data(), waits.size(), std::min(deadline.left_ms(), pausing ? 2 : 100));
  }
}

Result<std::unique_ptr<Region>> ShmTransport::register_memory(Buffer buffer) {
  if (buffer.space != Space::host)
    return fail(Code::unsupported, "the shm transport moves host memory only; copy device memory to the host first");
  return std::make_unique<PlainRegion>(*this, buffer);
}

bool ShmTransport::attaches(const PlainRegion& region, std::span<const std::byte> message) {
  if (attach_ == Attach::always) return true;
  if (region.looks++ % k_look_at_pages_every == 0) {
    if (!std::exchange(pages_tried_, true)) pages_ = open_page_map();
    region.huge_pages = pages_ && mostly_huge_pages(pages_, message);
  }
  return region.huge_pages;
}

Result<std::unique_ptr<Region>> ShmTransport::allocate(std::size_t bytes) {
  GRADRAIL_ASSIGN(auto mapping, Mapping::create("gradrail memory", bytes));
  return std::make_unique<ShmRegion>(*this, std::move(mapping), bytes, ++regions_made_);
}

namespace {

class MappedBoard final : public Board {
 public:
  MappedBoard(Mapping mapping, std::size_t members, std::size_t me)
      : Board(mapping.data(), members, me), mapping_(std::move(mapping)) {
    mapping_.close_fd();
  }

 private:
  Mapping mapping_;
};

}  // namespace

// The first member makes it and tells the others.
Result<std::unique_ptr<Board>> ShmTransport::open_board(std::span<const int> members, int lane, Deadline deadline) {
  const auto me = std::find(members.begin(), members.end(), rank_) - members.begin();
  std::vector<ShmEndpoint*> others;
  for (const int member : members)
    for (auto* endpoint : endpoints_)
      if (endpoint->peer() == member && endpoint->lane() == lane) others.push_back(endpoint);
  if (others.size() + 1 != members.size() || members.size() < 2 || members.size() > Board::k_most_members)
    return fail(Code::bad_usage, fmt::format("a board is for 2 to {} ranks, with endpoints open to each on lane {}",
                                             Board::k_most_members, lane));
  const std::size_t bytes = Board::bytes_for(members.size());
  Mapping mapping;
  if (me == 0) {
    GRADRAIL_ASSIGN(mapping, Mapping::create("gradrail board", bytes));
    for (auto* other : others)
      for (;;) {
        GRADRAIL_ASSIGN(const bool told, other->offer_board(mapping));
        if (told) break;
        if (deadline.passed())
          return fail(Code::timed_out, fmt::format("rank {} did not take up what it was sent in time", other->peer()),
                      other->peer());
        pollfd room{other->lifeline(), POLLOUT, 0};
        ::poll(&room, 1, std::min(deadline.left_ms(), 2));
      }
  } else {
    ShmEndpoint& first = *others.front();
    for (;;) {
      GRADRAIL_ASSIGN(auto taken, first.take_board(bytes));
      if (taken) {
        mapping = std::move(*taken);
        break;
      }
      if (deadline.passed())
        return fail(Code::timed_out, fmt::format("rank {} did not open its board in time", first.peer()), first.peer());
      pollfd note{first.lifeline(), POLLIN, 0};
      ::poll(&note, 1, std::min(deadline.left_ms(), 100));
    }
  }
  return std::make_unique<MappedBoard>(std::move(mapping), members.size(), static_cast<std::size_t>(me));
}

bool ShmTransport::progress() {
  bool moved = false;
  for (std::size_t i = 0; i < working_.size();) {
    ShmEndpoint* endpoint = working_[i];
    moved |= endpoint->progress();
    if (endpoint->has_work()) {
      ++i;
    } else {
      endpoint->listed = false;
      working_[i] = working_.back();
      working_.pop_back();
    }
  }
  if (moved) {
    idle_ = 0;
    return true;
  }
  return ++idle_ % k_idle_calls == 0 && look_at_lifelines();
}

bool ShmTransport::look_at_lifelines() {
  const auto now = Clock::now();
  if (now < next_look_) return false;
  next_look_ = now + k_look_every;
  bool moved = false;
  for (auto* endpoint : endpoints_) moved |= endpoint->check_life();
  return moved;
}

void ShmTransport::wait(Seconds at_most) {
  idle_ += k_idle_calls - idle_ % k_idle_calls - 1;  // the next idle progress() may look at the life lines
  if (at_most.count() <= 0) {
    ::sched_yield();
    return;
  }
  // Nothing wakes this: bytes come without a system call. So it sleeps as short as the system's timers allow (some 50
  // us), whatever the limit.
  const timespec nap{0, 1000};
  ::nanosleep(&nap, nullptr);
}

void ShmTransport::remove(ShmEndpoint* endpoint) {
  std::erase(endpoints_, endpoint);
  std::erase(working_, endpoint);
}

void ShmTransport::forget(std::uint32_t region) {
  for (auto* endpoint : endpoints_) endpoint->forget(region);
}

Result<std::shared_ptr<Mapping>> ShmTransport::share(std::uint64_t token, std::uint32_t region, const Fd& fd,
                                                     std::size_t bytes) {
  std::erase_if(shared_, [](const auto& one) { return one.second.expired(); });
  auto& known = shared_[{token, region}];
  if (auto mapping = known.lock()) return mapping;
  GRADRAIL_ASSIGN(auto opened, Mapping::open(fd, bytes));
  auto mapping = std::make_shared<Mapping>(std::move(opened));
  known = mapping;
  return mapping;
}

namespace {

Result<std::unique_ptr<Transport>> make_shm(const Settings& settings) {
  GRADRAIL_TRY(PipeLayout::of(settings.ring_bytes, settings.ranks).check());
  return std::make_unique<ShmTransport>(settings);
}

}  // namespace
}  // namespace gradrail::shm

namespace gradrail {
extern const TransportKind k_shm_transport;
const TransportKind k_shm_transport{"shm", "shared memory, between processes of one host",
                                    &shm::ShmTransport::available, &shm::make_shm};
}  // namespace gradrail

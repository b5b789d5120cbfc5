// How two ranks meet and connect their queue pairs; see transport.h.
#include "transports/meet.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

constexpr std::string_view k_purpose = "verbs transport";
constexpr std::size_t k_most_early = 4096;
constexpr std::size_t k_most_answer_bytes = 4096;
constexpr std::byte k_ready{0x52};
// Answers are short, and go to sockets on which nothing was sent before.
constexpr Seconds k_answer_limit{1};

enum class Answer : std::uint8_t { here, refused };  // then an Introduction, or a sentence

// One frame (a 32-bit length, then the bytes), as it comes.
class Frame {
 public:
  // True once it is whole. Errors: peer_gone, malformed.
  [[nodiscard]] Result<bool> advance(int fd) {
    for (;;) {
      std::size_t need = sizeof(std::uint32_t);
      if (have_ >= need) {
        const auto length = ByteReader(bytes_).get<std::uint32_t>();
        if (length > k_most_answer_bytes) return fail(Code::malformed, "its answer is not one of gradrail's");
        need += length;
        if (have_ == need) return true;
      }
      bytes_.resize(need);
      const auto got = ::recv(fd, bytes_.data() + have_, need - have_, MSG_DONTWAIT);
      if (got < 0 && not_ready(errno)) return false;
      if (got <= 0) return fail(Code::peer_gone, "it closed the connection before it answered");
      have_ += static_cast<std::size_t>(got);
    }
  }
  [[nodiscard]] std::span<const std::byte> content() const { return std::span(bytes_).subspan(sizeof(std::uint32_t)); }

 private:
  Bytes bytes_;
  std::size_t have_ = 0;
};

}  // namespace

struct VerbsTransport::Opening {
  const Peer* peer = nullptr;
  std::unique_ptr<QueuePair> pair;
  Introduction own, other;
  std::optional<Dial> dial;  // the lower rank's
  Frame answer;
  Fd fd;
  bool open = false;
};

Result<Address> VerbsTransport::listen() {
  GRADRAIL_CHECK(!acceptor_);
  Acceptor::Options options;
  options.purpose = k_purpose;
  options.most_hello_bytes = Introduction::k_most_bytes;
  options.most_pending += 4 * static_cast<std::size_t>(settings_.ranks);
  GRADRAIL_ASSIGN(auto listening, listen_for_peers(settings_, std::move(options)));
  acceptor_ = std::move(listening.acceptor);
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = this;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, acceptor_->fd(), &event) != 0)
    return fail_errno("watching the listening socket", errno);
  return std::move(listening.address);
}

Result<void> VerbsTransport::take_early() {
  for (;;) {
    GRADRAIL_ASSIGN(auto accepted, acceptor_->poll());
    if (!accepted) return {};
    const auto hello = Introduction::parse(accepted->hello);
    if (!hello) continue;
    // A peer that comes again has given up its first attempt.
    std::erase_if(early_, [&](const Early& one) {
      return one.introduction.rank == hello->rank && one.introduction.lane == hello->lane;
    });
    if (early_.size() == k_most_early) early_.erase(early_.begin());
    early_.push_back({*hello, std::move(accepted->fd)});
  }
}

Result<void> VerbsTransport::start(Opening& opening) {
  GRADRAIL_ASSIGN(opening.pair, QueuePair::make(*device_, ring_bytes_));
  opening.own = {};
  opening.own.rank = settings_.rank;
  opening.own.lane = opening.peer->lane;
  opening.own.eager_bytes = eager_bytes_;
  opening.own.part_bytes = settings_.slot_bytes;
  opening.pair->introduce(opening.own);
  return {};
}

// Takes what the peer says of itself, and connects to it.
Result<void> VerbsTransport::agree(Opening& opening, std::span<const std::byte> introduction) const {
  const auto other = Introduction::parse(introduction);
  if (!other || other->version != Introduction::k_version)
    return fail(Code::refused, "it is another build of gradrail");
  const auto& own = opening.own;
  if (other->ring_bytes != own.ring_bytes || other->part_bytes != own.part_bytes ||
      other->eager_bytes != own.eager_bytes)
    return fail(Code::bad_usage,
                fmt::format("its slots are {} x {} bytes, this rank's {} x {}; give all ranks the same",
                            other->ring_bytes / std::max<std::uint64_t>(other->part_bytes, 1), other->part_bytes,
                            settings_.slots, settings_.slot_bytes));
  opening.other = *other;
  return opening.pair->connect(*other);
}

Result<void> VerbsTransport::advance_lower(Opening& opening) {
  if (opening.dial) {
    GRADRAIL_ASSIGN(const bool done, opening.dial->advance());
    if (!done) return {};
    opening.fd = opening.dial->take();
    opening.dial.reset();
  }
  GRADRAIL_ASSIGN(const bool whole, opening.answer.advance(opening.fd.get()));
  if (!whole) return {};
  const auto content = opening.answer.content();
  ByteReader in(content);
  if (in.get<std::uint8_t>() == static_cast<std::uint8_t>(Answer::refused))
    return fail(Code::unavailable, "it refused: " + in.get_string());
  if (!in.ok()) return fail(Code::malformed, "its answer is empty");
  GRADRAIL_TRY(agree(opening, content.subspan(1)));
  GRADRAIL_TRY(send_all(opening.fd.get(), {&k_ready, 1}, Deadline::after(k_answer_limit)));
  opening.open = true;
  return {};
}

Result<void> VerbsTransport::advance_higher(Opening& opening) {
  if (!opening.fd) {
    const auto found = std::find_if(early_.begin(), early_.end(), [&](const Early& one) {
      return one.introduction.rank == opening.peer->rank && one.introduction.lane == opening.peer->lane;
    });
    if (found == early_.end()) return {};
    opening.fd = std::move(found->fd);
    const auto introduction = found->introduction.pack();
    early_.erase(found);
    const auto agreed = agree(opening, introduction);
    ByteWriter answer;
    answer.put(static_cast<std::uint8_t>(agreed ? Answer::here : Answer::refused));
    if (agreed) {
      answer.put_bytes(opening.own.pack());
    } else {
      answer.put_string(agreed.error().message);
    }
    const auto sent = send_frame(opening.fd.get(), std::move(answer).take(), Deadline::after(k_answer_limit));
    GRADRAIL_TRY(agreed);
    GRADRAIL_TRY(sent);
  }
  std::byte word{};
  const auto got = ::recv(opening.fd.get(), &word, 1, MSG_DONTWAIT);
  if (got < 0 && not_ready(errno)) return {};
  if (got == 1 && word == k_ready) {
    opening.open = true;
    return {};
  }
  // It gave up this attempt, and may come again; the queue pair has met somebody already.
  opening.fd.reset();
  opening.pair.reset();
  return start(opening);
}

Result<void> VerbsTransport::advance(Opening& opening) {
  auto done = opening.peer->rank > settings_.rank ? advance_lower(opening) : advance_higher(opening);
  if (!done) return connecting_to(*opening.peer, std::move(done).error());
  return {};
}

Result<std::vector<std::unique_ptr<Endpoint>>> VerbsTransport::connect(std::span<const Peer> peers, Deadline deadline) {
  GRADRAIL_CHECK(acceptor_.has_value());
  std::vector<Opening> openings;
  for (const auto& peer : peers) {
    GRADRAIL_TRY(expect_peer(peer, settings_));
    Opening& opening = openings.emplace_back();
    opening.peer = &peer;
    if (auto started = start(opening); !started) return connecting_to(*opening.peer, std::move(started).error());
    if (peer.rank < settings_.rank) continue;
    GRADRAIL_ASSIGN(const auto address, address_of(peer));
    opening.dial.emplace(address, settings_.secret, k_purpose, opening.own.pack());
  }

  std::vector<pollfd> waits;
  for (;;) {
    GRADRAIL_TRY(take_early());
    const Peer* missing = nullptr;
    bool pausing = false;
    waits.assign(1, {acceptor_->fd(), POLLIN, 0});
    for (auto& one : openings) {
      if (!one.open) GRADRAIL_TRY(advance(one));
      if (one.open) continue;
      if (missing == nullptr) missing = one.peer;
      if (one.dial && one.dial->fd() >= 0) waits.push_back({one.dial->fd(), one.dial->waits_for(), 0});
      if (one.fd) waits.push_back({one.fd.get(), POLLIN, 0});
      pausing |= one.dial && one.dial->fd() < 0;
    }
    if (missing == nullptr) break;
    GRADRAIL_TRY(wait_for_peers(waits, *missing, settings_, pausing, deadline));
  }

  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (auto& one : openings)
    endpoints.push_back(
        std::make_unique<VerbsEndpoint>(*this, *one.peer, std::move(one.pair), one.own, one.other, std::move(one.fd)));
  return endpoints;
}

}  // namespace gradrail::verbs

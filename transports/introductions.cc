#include "transports/introductions.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"
#include "transports/meet.h"

namespace gradrail {
namespace {

constexpr std::size_t k_most_early = 4096;
constexpr std::size_t k_most_sentence_bytes = 4096;
// Frames are short, and go to sockets on which little was sent before.
constexpr Seconds k_frame_limit{1};

enum class Word : std::uint8_t { here, refused };  // then an introduction, nothing, or a sentence

Result<void> say(int fd, Word word, std::span<const std::byte> rest = {}) {
  ByteWriter out;
  out.put(static_cast<std::uint8_t>(word));
  out.put_bytes(rest);
  return send_frame(fd, std::move(out).take(), Deadline::after(k_frame_limit));
}

// So that the peer need not guess. It may have gone; this side's own reason is the one to report.
void refuse(int fd, const Error& why) {
  ByteWriter sentence;
  sentence.put_string(why.message.substr(0, k_most_sentence_bytes / 2));
  if (auto said = say(fd, Word::refused, std::move(sentence).take()); !said) return;
}

}  // namespace

// One frame (a 32-bit length, then a word and its rest), as it comes.
class Introductions::Frame {
 public:
  // True once it is whole. Errors: peer_gone, malformed.
  [[nodiscard]] Result<bool> advance(int fd, std::size_t most) {
    for (;;) {
      std::size_t need = sizeof(std::uint32_t);
      if (have_ >= need) {
        const auto length = ByteReader(bytes_).get<std::uint32_t>();
        if (length == 0 || length > most) return fail(Code::malformed, "its answer is not one of gradrail's");
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
  // What follows the word. Errors: unavailable, with the peer's sentence, where it refused.
  [[nodiscard]] Result<std::span<const std::byte>> content() const {
    ByteReader in(std::span<const std::byte>(bytes_).subspan(sizeof(std::uint32_t)));
    if (in.get<std::uint8_t>() == static_cast<std::uint8_t>(Word::refused))
      return fail(Code::unavailable, "it refused: " + in.get_string());
    return in.get_bytes(in.left());
  }

 private:
  Bytes bytes_;
  std::size_t have_ = 0;
};

struct Introductions::Opening {
  const Peer* peer = nullptr;
  Conversation* conversation = nullptr;
  Bytes own;
  std::optional<Dial> dial;  // the lower rank's
  Fd fd;
  Frame frame;
  bool agreed = false, told = false, heard = false;

  [[nodiscard]] bool open() const { return told && heard; }
};

Result<Address> Introductions::listen(const Settings& settings) {
  GRADRAIL_CHECK(!acceptor_);
  Acceptor::Options options;
  options.purpose = purpose_;
  options.most_hello_bytes = most_bytes_ + 2 * sizeof(std::int32_t);
  options.most_pending += 4 * static_cast<std::size_t>(settings.ranks);
  GRADRAIL_ASSIGN(auto listening, listen_for_peers(settings, transport_, std::move(options)));
  acceptor_ = std::move(listening.acceptor);
  return std::move(listening.address);
}

Result<void> Introductions::take_early() {
  for (;;) {
    GRADRAIL_ASSIGN(auto accepted, acceptor_->poll());
    if (!accepted) return {};
    ByteReader in(accepted->hello);
    const auto rank = in.get<std::int32_t>();
    const auto lane = in.get<std::int32_t>();
    if (!in.ok()) continue;
    // A peer that comes again has given up its first attempt.
    std::erase_if(early_, [&](const Early& one) { return one.rank == rank && one.lane == lane; });
    if (early_.size() == k_most_early) early_.erase(early_.begin());
    const auto introduction = in.get_bytes(in.left());
    early_.push_back({rank, lane, {introduction.begin(), introduction.end()}, std::move(accepted->fd)});
  }
}

Result<void> Introductions::start(Opening& opening, const Settings& settings) const {
  GRADRAIL_ASSIGN(opening.own, opening.conversation->introduce());
  GRADRAIL_CHECK(opening.own.size() <= most_bytes_);
  if (opening.peer->rank < settings.rank) return {};
  GRADRAIL_ASSIGN(const auto address, address_of(*opening.peer));
  ByteWriter hello;
  hello.put(static_cast<std::int32_t>(settings.rank));
  hello.put(static_cast<std::int32_t>(opening.peer->lane));
  hello.put_bytes(opening.own);
  opening.dial.emplace(address, settings.secret, purpose_, std::move(hello).take());
  return {};
}

Result<void> Introductions::hear_higher(Opening& opening) const {
  if (opening.dial) {
    GRADRAIL_ASSIGN(const bool done, opening.dial->advance());
    if (!done) return {};
    opening.fd = opening.dial->take();
    opening.dial.reset();
  }
  GRADRAIL_ASSIGN(const bool whole, opening.frame.advance(opening.fd.get(), most_bytes_ + k_most_sentence_bytes));
  if (!whole) return {};
  GRADRAIL_ASSIGN(const auto introduction, opening.frame.content());
  if (auto agreed = opening.conversation->agree(introduction); !agreed) {
    refuse(opening.fd.get(), agreed.error());
    return agreed;
  }
  opening.frame = {};
  opening.agreed = true;
  return {};
}

Result<void> Introductions::answer_lower(Opening& opening) {
  const auto found = std::find_if(early_.begin(), early_.end(), [&](const Early& one) {
    return one.rank == opening.peer->rank && one.lane == opening.peer->lane;
  });
  if (found == early_.end()) return {};
  opening.fd = std::move(found->fd);
  const Bytes introduction = std::move(found->introduction);
  early_.erase(found);
  if (auto agreed = opening.conversation->agree(introduction); !agreed) {
    refuse(opening.fd.get(), agreed.error());
    return agreed;
  }
  GRADRAIL_TRY(say(opening.fd.get(), Word::here, opening.own));
  opening.agreed = true;
  return {};
}

Result<void> Introductions::finish(Opening& opening, const Settings& settings) const {
  // Also once it was told: the peer may not get through unless something moves here.
  const auto reached = opening.conversation->reached();
  if (!opening.told) {
    if (!reached) {
      refuse(opening.fd.get(), reached.error());
      return tl::unexpected<Error>(reached.error());
    }
    if (*reached) {
      GRADRAIL_TRY(say(opening.fd.get(), Word::here));
      opening.told = true;
    }
  }
  if (opening.heard) return {};
  const auto whole = opening.frame.advance(opening.fd.get(), k_most_sentence_bytes);
  if (whole && !*whole) return {};
  if (whole) {
    GRADRAIL_TRY(opening.frame.content());
    opening.heard = true;
    return {};
  }
  if (opening.peer->rank > settings.rank) return tl::unexpected<Error>(whole.error());
  // It gave up this attempt, and may come again; what was agreed with it leads nowhere.
  opening.fd.reset();
  opening.frame = {};
  opening.agreed = opening.told = false;
  return start(opening, settings);
}

Result<void> Introductions::advance(Opening& opening, const Settings& settings) {
  if (!opening.agreed) {
    GRADRAIL_TRY(opening.peer->rank > settings.rank ? hear_higher(opening) : answer_lower(opening));
  }
  if (!opening.agreed) return {};
  return finish(opening, settings);
}

Result<std::vector<Fd>> Introductions::meet(const Settings& settings, std::span<const Peer> peers,
                                            std::span<Conversation* const> conversations, Deadline deadline,
                                            int wakes) {
  GRADRAIL_CHECK(acceptor_.has_value() && peers.size() == conversations.size());
  std::vector<Opening> openings(peers.size());
  for (std::size_t i = 0; i < peers.size(); ++i) {
    GRADRAIL_TRY(expect_peer(peers[i], settings, transport_));
    openings[i].peer = &peers[i];
    openings[i].conversation = conversations[i];
    if (auto started = start(openings[i], settings); !started)
      return connecting_to(peers[i], std::move(started).error());
  }
  std::vector<pollfd> waits;
  for (;;) {
    GRADRAIL_TRY(take_early());
    const Peer* missing = nullptr;
    bool pausing = false;
    waits.assign(1, {acceptor_->fd(), POLLIN, 0});
    if (wakes >= 0) waits.push_back({wakes, POLLIN, 0});
    for (auto& one : openings) {
      if (one.open()) continue;
      if (auto done = advance(one, settings); !done) return connecting_to(*one.peer, std::move(done).error());
      if (one.open()) continue;
      if (missing == nullptr) missing = one.peer;
      if (one.dial && one.dial->fd() >= 0) waits.push_back({one.dial->fd(), one.dial->waits_for(), 0});
      if (one.fd) waits.push_back({one.fd.get(), POLLIN, 0});
      pausing |= one.dial ? one.dial->fd() < 0 : one.agreed && !one.told;
    }
    if (missing == nullptr) break;
    GRADRAIL_TRY(wait_for_peers(waits, *missing, settings, pausing, deadline));
  }
  std::vector<Fd> channels;
  for (auto& one : openings) channels.push_back(std::move(one.fd));
  return channels;
}

}  // namespace gradrail

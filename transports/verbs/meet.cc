// How two ranks meet and connect their queue pairs; see transport.h.
#include "transports/meet.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

#include "transports/base/check.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {

struct VerbsTransport::Opening final : Conversation, Connection {
  Opening(VerbsTransport& transport, const Peer& to, Deadline until) : owner(transport), peer(to), deadline(until) {}

  Result<Bytes> introduce() override;
  Result<void> agree(std::span<const std::byte> introduction) override;
  Result<bool> reached() override;
  [[nodiscard]] Result<void> compare() const;

  VerbsTransport& owner;
  const Peer& peer;
  Deadline deadline;
};

// Pipes begin with the rails in turn, so that their short messages do not meet on one.
Result<Bytes> VerbsTransport::Opening::introduce() {
  const std::size_t rails = owner.devices_.size();
  const std::size_t count = rails * static_cast<std::size_t>(owner.options_.pairs);
  const auto first = static_cast<std::size_t>(peer.lane);
  own = {};
  own.rank = owner.settings_.rank;
  own.lane = peer.lane;
  own.rails = static_cast<std::uint32_t>(rails);
  own.window = owner.options_.srq != 0 ? k_shared_parts : k_parts;
  own.ring_bytes = owner.ring_bytes_;
  own.eager_bytes = owner.eager_bytes_;
  own.part_bytes = owner.settings_.slot_bytes;
  GRADRAIL_ASSIGN(const auto nonce, Secret::nonce());
  std::memcpy(own.fresh.data(), nonce.data(), sizeof own.fresh);
  pairs.clear();
  links.clear();
  GRADRAIL_ASSIGN(landing, LandingArea::make(*owner.devices_[first % rails], own.ring_bytes));
  own.landing = reinterpret_cast<std::uintptr_t>(landing->data());
  own.landing_key = landing->remote_key();
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t rail = (first + i) % rails;
    const std::size_t receives = i == 0 ? first_receives(own.window) : further_receives(own.window);
    GRADRAIL_ASSIGN(auto pair, QueuePair::make(*owner.devices_[rail], rail, receives, owner.shared_receives(rail)));
    own.pairs.push_back(pair->introduce());
    if (owner.cm_ != nullptr) owner.cm_->introduce(rail, own.pairs.back());
    pairs.push_back(std::move(pair));
  }
  return own.pack();
}

Result<void> VerbsTransport::Opening::agree(std::span<const std::byte> introduction) {
  auto said = Introduction::parse(introduction);
  if (!said || said->version != Introduction::k_version) return fail(Code::refused, "it is another build of gradrail");
  other = *std::move(said);
  GRADRAIL_TRY(compare());
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    if (owner.cm_ == nullptr) {
      GRADRAIL_TRY(pairs[i]->connect(other.pairs[i]));
    } else {
      links.push_back(std::make_unique<CmLink>(*owner.cm_, *pairs[i], CmLink::Name{own.rank, peer.rank, peer.lane, i},
                                               other.pairs[i], own.fresh, other.fresh));
    }
  }
  return {};
}

Result<bool> VerbsTransport::Opening::reached() {
  if (owner.cm_ == nullptr) return true;
  owner.cm_->take_events();
  bool all = true;
  for (const auto& link : links) {
    GRADRAIL_ASSIGN(const bool one, link->reached(deadline));
    all &= one;
  }
  return all;
}

// What all ranks must have alike is alike.
Result<void> VerbsTransport::Opening::compare() const {
  if (other.ring_bytes != own.ring_bytes || other.part_bytes != own.part_bytes || other.eager_bytes != own.eager_bytes)
    return fail(Code::bad_usage,
                fmt::format("its slots are {} x {} bytes, this rank's {} x {}; give all ranks the same",
                            other.ring_bytes / std::max<std::uint64_t>(other.part_bytes, 1), other.part_bytes,
                            owner.settings_.slots, owner.settings_.slot_bytes));
  if (other.rails != own.rails || other.pairs.size() != own.pairs.size())
    return fail(Code::bad_usage,
                fmt::format("its pipes have {} queue pairs over {} rails, this rank's {} over {}; give "
                            "all ranks the same verbs settings pairs and rails",
                            other.pairs.size(), other.rails, own.pairs.size(), own.rails));
  if ((other.pairs.front().cm_port != 0) != owner.options_.by_cm)
    return fail(Code::bad_usage,
                "its queue pairs connect another way than this rank's; give all ranks the same verbs setting connect");
  const bool sound =
      other.window >= k_shared_parts && other.window <= k_parts &&
      std::all_of(other.pairs.begin(), other.pairs.end(), [this](const auto& pair) { return pair.rail < other.rails; });
  if (!sound) return fail(Code::malformed, "what it says of its queue pairs cannot be");
  return {};
}

Result<Address> VerbsTransport::listen() {
  GRADRAIL_ASSIGN(auto address, introductions_.listen(settings_));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = this;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, introductions_.fd(), &event) != 0)
    return fail_errno("watching the listening socket", errno);
  return address;
}

Result<std::vector<std::unique_ptr<Endpoint>>> VerbsTransport::connect(std::span<const Peer> peers, Deadline deadline) {
  std::deque<Opening> openings;
  std::vector<Conversation*> conversations;
  for (const auto& peer : peers) conversations.push_back(&openings.emplace_back(*this, peer, deadline));
  GRADRAIL_ASSIGN(auto channels,
                  introductions_.meet(settings_, peers, conversations, deadline, cm_ != nullptr ? cm_->fd() : -1));
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (std::size_t i = 0; i < peers.size(); ++i) {
    Connection& made = openings[i];
    endpoints.push_back(std::make_unique<VerbsEndpoint>(*this, peers[i], std::move(made), std::move(channels[i])));
  }
  return endpoints;
}

}  // namespace gradrail::verbs

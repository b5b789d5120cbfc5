// How two ranks meet and connect their queue pairs; see transport.h.
#include "transports/meet.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <deque>

#include "transports/base/check.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {

struct VerbsTransport::Opening final : Conversation {
  Opening(const VerbsTransport& transport, const Peer& to)
      : owner(transport), peer(to), rail(static_cast<std::size_t>(to.lane) % owner.devices_.size()) {}

  Result<Bytes> introduce() override {
    GRADRAIL_ASSIGN(pair, QueuePair::make(*owner.devices_[rail], owner.ring_bytes_));
    own = {};
    own.rank = owner.settings_.rank;
    own.lane = peer.lane;
    own.eager_bytes = owner.eager_bytes_;
    own.part_bytes = owner.settings_.slot_bytes;
    pair->introduce(own);
    return own.pack();
  }
  Result<void> agree(std::span<const std::byte> introduction) override {
    const auto said = Introduction::parse(introduction);
    if (!said || said->version != Introduction::k_version)
      return fail(Code::refused, "it is another build of gradrail");
    if (said->ring_bytes != own.ring_bytes || said->part_bytes != own.part_bytes ||
        said->eager_bytes != own.eager_bytes)
      return fail(Code::bad_usage,
                  fmt::format("its slots are {} x {} bytes, this rank's {} x {}; give all ranks the same",
                              said->ring_bytes / std::max<std::uint64_t>(said->part_bytes, 1), said->part_bytes,
                              owner.settings_.slots, owner.settings_.slot_bytes));
    other = *said;
    return pair->connect(other);
  }

  const VerbsTransport& owner;
  const Peer& peer;
  std::size_t rail;
  std::unique_ptr<QueuePair> pair;
  Introduction own, other;
};

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
  for (const auto& peer : peers) conversations.push_back(&openings.emplace_back(*this, peer));
  GRADRAIL_ASSIGN(auto channels, introductions_.meet(settings_, peers, conversations, deadline));
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  for (std::size_t i = 0; i < peers.size(); ++i) {
    auto& one = openings[i];
    endpoints.push_back(std::make_unique<VerbsEndpoint>(*this, peers[i], one.rail, std::move(one.pair), one.own,
                                                        one.other, std::move(channels[i])));
  }
  return endpoints;
}

}  // namespace gradrail::verbs

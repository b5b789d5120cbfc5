#include "bench/measure/p2p_pair.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "bench/measure/p2p_pattern.h"
#include "bench/measure/p2p_ticks.h"
#include "transports/memory_path.h"

namespace gradrail {

namespace {

constexpr int k_spins_alone = 300;
constexpr int k_spins_crowded = 2;
constexpr int k_looks_at_clock = 64;  // in polls that found nothing
constexpr int k_checks = 3;           // messages each way and lane
// Of a ping-pong: where such a message is to land need not be known when it comes, or be told to anybody.
constexpr std::size_t k_short_bytes = 1 << 10;

double us_between(Clock::time_point from, Clock::time_point to) { return Seconds(to - from).count() * 1e6; }

}  // namespace

std::string_view to_string(P2pTest test) {
  switch (test) {
    case P2pTest::latency: return "latency";
    case P2pTest::bandwidth: return "bandwidth";
    case P2pTest::bidirectional: return "bidirectional";
    case P2pTest::message_rate: break;
  }
  return "message-rate";
}

tl::unexpected<Error> PairEnd::overdue(const std::string& who, int peer) {
  return fail(
      Code::timed_out,
      fmt::format("{} does not answer any more; it is stopped, or far slower than before (-T waits longer)", who),
      peer);
}

Result<Pair> Pair::open(Transport& transport, const Peer& peer, bool first, const Options& options, Deadline deadline) {
  Pair out;
  out.transport_ = &transport;
  out.first_ = first;
  out.crowded_ = options.crowded;
  out.who_ = fmt::format("rank {} on {}", peer.rank, peer.host);
  const std::size_t bytes = std::max<std::size_t>(options.most_bytes, 1);
  if (options.buffers == BufferKind::registered) {
    GRADRAIL_ASSIGN(out.out_, transport.allocate(bytes));
    GRADRAIL_ASSIGN(out.in_, transport.allocate(bytes));
  } else {
    GRADRAIL_ASSIGN(out.own_out_, OwnedMemory::make(options.memory, bytes));
    GRADRAIL_ASSIGN(out.own_in_, OwnedMemory::make(options.memory, bytes));
    GRADRAIL_ASSIGN(out.out_, transport.register_memory(out.own_out_.buffer()));
    GRADRAIL_ASSIGN(out.in_, transport.register_memory(out.own_in_.buffer()));
    if (options.memory.kind == MemoryKind::cuda) out.scratch_.resize(bytes);
  }
  GRADRAIL_ASSIGN(out.note_, transport.allocate(2 * k_note_room));
  std::vector<Peer> peers;
  for (int lane = 0; lane < options.lanes; ++lane) {
    peers.push_back(peer);
    peers.back().lane = lane;
  }
  GRADRAIL_ASSIGN(auto endpoints, transport.connect(peers, deadline));
  for (auto& endpoint : endpoints) out.lanes_.push_back({std::move(endpoint)});
  return out;
}

template <class Done>
Result<void> Pair::until(Deadline deadline, const Done& done) {
  const int spins = crowded_ ? k_spins_crowded : k_spins_alone;
  for (int idle = 0; !done();) {
    if (transport_->progress()) {
      idle = 0;
      continue;
    }
    for (const Lane& lane : lanes_)
      if (const Error* failure = lane.endpoint->failure()) return tl::unexpected<Error>(*failure);
    if (++idle < spins) continue;
    if (idle % k_looks_at_clock == 0 && deadline.passed()) return overdue(who_, lanes_.front().endpoint->peer());
    transport_->wait(Seconds(0));
  }
  return {};
}

// The first sends a note and waits for the second's, which the caller sends once it has posted what it must have
// posted.
Result<void> Pair::meet(Deadline deadline) {
  Endpoint& endpoint = *lanes_.front().endpoint;
  const auto received = endpoint.recvs_done() + 1, sent = endpoint.sends_done() + 1;  // posting may complete
  GRADRAIL_TRY(endpoint.recv(heard()));
  if (first_) {
    GRADRAIL_TRY(endpoint.send(note()));
    return until(deadline, [&] { return endpoint.recvs_done() >= received && endpoint.sends_done() >= sent; });
  }
  return until(deadline, [&] { return endpoint.recvs_done() >= received; });
}

Result<std::vector<double>> Pair::ping(const Load& load, Deadline deadline) {
  Endpoint& endpoint = *lanes_.front().endpoint;
  const auto sent_all = endpoint.sends_done() + static_cast<std::uint64_t>(load.messages) + 1;  // and a note
  GRADRAIL_TRY(meet(deadline));
  auto wanted = endpoint.recvs_done();
  // The next one's place: after the answer where that goes out sooner so, before it where the peer waits for the place.
  const bool late = load.bytes <= k_short_bytes;
  std::int64_t places = 1;
  const auto place = [&]() -> Result<void> {
    return places++ < load.messages ? endpoint.recv(in(load.bytes)) : Result<void>();
  };
  GRADRAIL_TRY(endpoint.recv(in(load.bytes)));
  if (!first_) GRADRAIL_TRY(endpoint.send(note()));
  Ticks ticks(first_ ? static_cast<std::size_t>(load.messages) : 0);
  for (std::int64_t i = 0; i < load.messages; ++i) {
    if (first_) GRADRAIL_TRY(endpoint.send(out(load.bytes)));
    if (first_ && late && i > 0) GRADRAIL_TRY(place());
    ++wanted;
    GRADRAIL_TRY(until(deadline, [&] { return endpoint.recvs_done() >= wanted; }));
    if (!late) GRADRAIL_TRY(place());
    if (!first_) {
      GRADRAIL_TRY(endpoint.send(out(load.bytes)));
      if (late) GRADRAIL_TRY(place());
      continue;
    }
    ticks.mark();
  }
  auto samples = ticks.rounds_us(0.5);
  GRADRAIL_TRY(until(deadline, [&] { return endpoint.sends_done() >= sent_all; }));
  return samples;
}

Result<void> Pair::post_receives(const Messages& wanted, std::size_t bytes, std::int64_t depth) {
  for (std::size_t l = 0; l < lanes_.size(); ++l) {
    Lane& lane = lanes_[l];
    const auto done = static_cast<std::int64_t>(lane.endpoint->recvs_done() - lane.recvs_before);
    for (; lane.received < wanted[l] && lane.received - done < depth; ++lane.received)
      GRADRAIL_TRY(lane.endpoint->recv(in(bytes)));
  }
  return {};
}

Result<void> Pair::post_sends(const Messages& wanted, std::size_t bytes, std::int64_t depth) {
  for (std::size_t l = 0; l < lanes_.size(); ++l) {
    Lane& lane = lanes_[l];
    const auto done = static_cast<std::int64_t>(lane.endpoint->sends_done() - lane.sends_before);
    for (; lane.sent < wanted[l] && lane.sent - done < depth; ++lane.sent)
      GRADRAIL_TRY(lane.endpoint->send(out(bytes)));
  }
  return {};
}

Result<std::vector<double>> Pair::stream(const Load& load, bool sends, bool receives, Deadline deadline) {
  Endpoint& control = *lanes_.front().endpoint;
  Messages outgoing(lanes_.size()), incoming(lanes_.size());
  const auto lanes = static_cast<std::int64_t>(lanes_.size());
  for (std::int64_t l = 0; l < lanes; ++l) {
    const std::int64_t share = load.messages / lanes + (l < load.messages % lanes ? 1 : 0);
    outgoing[static_cast<std::size_t>(l)] = sends ? share : 0;
    incoming[static_cast<std::size_t>(l)] = receives ? share : 0;
  }
  const auto begin_counting = [&] {
    for (Lane& lane : lanes_) {
      lane.sent = lane.received = 0;
      lane.sends_before = lane.endpoint->sends_done();
      lane.recvs_before = lane.endpoint->recvs_done();
    }
  };
  GRADRAIL_TRY(meet(deadline));
  begin_counting();
  GRADRAIL_TRY(post_receives(incoming, load.bytes, load.depth));
  if (!first_) {
    ++lanes_.front().sends_before;
    GRADRAIL_TRY(control.send(note()));
  }
  const auto begin = Clock::now();
  // A sender learns from the other side's word that everything is there; that word comes behind all data.
  bool waits_for_word = false, gave_word = false;
  const auto all = [&](const Messages& wanted, bool of_sends) {
    for (std::size_t l = 0; l < lanes_.size(); ++l) {
      const Lane& lane = lanes_[l];
      const auto done =
          of_sends ? lane.endpoint->sends_done() - lane.sends_before : lane.endpoint->recvs_done() - lane.recvs_before;
      if (static_cast<std::int64_t>(done) < wanted[l]) return false;
    }
    return true;
  };
  Result<void> posted;
  const auto word_came = lanes_.front().recvs_before + static_cast<std::uint64_t>(incoming.front()) + 1;
  GRADRAIL_TRY(until(deadline, [&] {
    posted = post_receives(incoming, load.bytes, load.depth);
    if (posted && sends) posted = post_sends(outgoing, load.bytes, load.depth);
    const Lane& lane = lanes_.front();
    // The word has its place behind the last message that comes this way.
    if (posted && sends && !waits_for_word && lane.received == incoming.front() &&
        (incoming.front() == 0 || all(incoming, false))) {
      posted = control.recv(heard());
      waits_for_word = true;
    }
    if (posted && receives && !gave_word && all(incoming, false) && (!sends || lane.sent == outgoing.front()) &&
        (!sends || all(outgoing, true))) {
      posted = control.send(note());
      gave_word = true;
    }
    if (!posted) return true;
    const bool heard_all = !sends || (waits_for_word && control.recvs_done() >= word_came);
    const bool told_all = !receives || gave_word;
    return heard_all && told_all && all(outgoing, true);
  }));
  GRADRAIL_TRY(posted);
  const auto end = Clock::now();
  const auto sent_all =
      lanes_.front().sends_before + static_cast<std::uint64_t>(outgoing.front()) + (gave_word ? 1 : 0);
  GRADRAIL_TRY(until(deadline, [&] { return control.sends_done() >= sent_all; }));
  return std::vector<double>{us_between(begin, end) / static_cast<double>(load.messages)};
}

Result<std::vector<double>> Pair::run(const Load& load, Deadline deadline) {
  switch (load.test) {
    case P2pTest::latency: return ping(load, deadline);
    case P2pTest::bidirectional: return stream(load, true, true, deadline);
    case P2pTest::bandwidth:
    case P2pTest::message_rate: break;
  }
  return stream(load, first_, !first_, deadline);
}

Result<void> Pair::prepare(std::size_t bytes, std::uint64_t seed) {
  if (scratch_.empty()) {
    fill({out_->buffer().data, bytes}, seed);
    std::memset(in_->buffer().data, 0, bytes);
    return {};
  }
  const std::span all(scratch_.data(), bytes);
  std::fill(all.begin(), all.end(), std::byte{});
  GRADRAIL_TRY(own_in_.put(all));
  fill(all, seed);
  return own_out_.put(all);
}

Result<std::int64_t> Pair::count_wrong(std::size_t bytes, std::uint64_t seed) {
  if (scratch_.empty()) return differences({in_->buffer().data, bytes}, seed);
  const std::span all(scratch_.data(), bytes);
  GRADRAIL_TRY(own_in_.get(all));
  return differences(all, seed);
}

Result<std::int64_t> Pair::check(std::size_t bytes, std::uint64_t seed, Deadline deadline) {
  std::int64_t wrong = 0;
  for (std::size_t l = 0; l < lanes_.size(); ++l) {
    Endpoint& endpoint = *lanes_[l].endpoint;
    for (int i = 0; i < k_checks; ++i) {
      const std::uint64_t there = random_at(seed + l * 1000 + static_cast<std::uint64_t>(i)), back = random_at(there);
      GRADRAIL_TRY(prepare(bytes, first_ ? there : back));
      const auto received = endpoint.recvs_done() + 1, sent = endpoint.sends_done() + 1;
      GRADRAIL_TRY(endpoint.recv(in(bytes)));
      GRADRAIL_TRY(endpoint.send(out(bytes)));
      GRADRAIL_TRY(until(deadline, [&] { return endpoint.recvs_done() >= received && endpoint.sends_done() >= sent; }));
      GRADRAIL_ASSIGN(const auto here, count_wrong(bytes, first_ ? back : there));
      wrong += here;
    }
  }
  return wrong;
}

std::string Pair::memory_path() const {
  const auto* const chosen = dynamic_cast<const ChosenRegion*>(out_.get());
  return chosen == nullptr ? std::string() : chosen->how();
}

Traffic Pair::traffic() const {
  Traffic out{};
  for (const Lane& lane : lanes_)
    for (std::size_t path = 0; path < out.size(); ++path) out[path] += lane.endpoint->traffic()[path];
  return out;
}

}  // namespace gradrail

#include "bench/measure/p2p_bare.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>

#include "bench/measure/p2p_pattern.h"
#include "bench/measure/p2p_ticks.h"

namespace gradrail {

namespace {

constexpr Seconds k_landing{1};  // for what was written and settled to lie there
constexpr unsigned k_spins_crowded = 2;
// Looks that found nothing: some hundred microseconds of looking at memory. Life and clock cost several.
constexpr unsigned k_look_every = 1 << 16;
constexpr unsigned k_poll_every = 1 << 12;          // polls take longer, very long where a connection broke
constexpr unsigned k_look_every_crowded = 1 << 12;  // each second one may last until the core is given back

double us_between(Clock::time_point from, Clock::time_point to) { return Seconds(to - from).count() * 1e6; }

}  // namespace

BareEnd::BareEnd(std::unique_ptr<Bare> bare, Operation operation, const Peer& peer, bool first, bool crowded)
    : bare_(std::move(bare)),
      operation_(operation),
      who_(fmt::format("rank {} on {}", peer.rank, peer.host)),
      peer_(peer.rank),
      first_(first),
      crowded_(crowded) {}

template <class Done>
Result<void> BareEnd::until(Deadline deadline, bool polls, const Done& done) {
  const unsigned looks = crowded_ ? k_look_every_crowded : polls ? k_poll_every : k_look_every;
  for (;;) {
    for (unsigned idle = 0; idle < looks; ++idle) {
      if (done()) return {};
      if (polls) GRADRAIL_TRY(bare_->poll());
      if (crowded_ && idle % k_spins_crowded != 0) ::sched_yield();
    }
    GRADRAIL_TRY(bare_->poll());  // memory says nothing of failures
    GRADRAIL_TRY(bare_->check_life());
    if (deadline.passed()) return overdue(who_, peer_);
    ::sched_yield();
  }
}

Result<void> BareEnd::meet(Deadline deadline) {
  if (first_) GRADRAIL_TRY(bare_->tell({}, deadline));
  GRADRAIL_TRY(bare_->hear(deadline));
  if (!first_) GRADRAIL_TRY(bare_->tell({}, deadline));
  return {};
}

Result<double> BareEnd::exchange(double mine, Deadline deadline) {
  ByteWriter out;
  out.put(mine);
  GRADRAIL_TRY(bare_->tell(std::move(out).take(), deadline));
  GRADRAIL_ASSIGN(const Bytes said, bare_->hear(deadline));
  ByteReader in(said);
  const auto theirs = in.get<double>();
  if (!in.ok()) return fail(Code::malformed, fmt::format("{} is out of step", who_), peer_);
  return theirs;
}

Result<void> BareEnd::post(std::size_t pair, std::size_t bytes, bool last, Deadline deadline) {
  if (bare_->room(pair) == 0) GRADRAIL_TRY(until(deadline, true, [&] { return bare_->room(pair) > 0; }));
  GRADRAIL_TRY(bare_->post(pair, bytes, last));
  traffic_[static_cast<std::size_t>(bare_->path_of(bytes))] += bytes;
  return {};
}

bool BareEnd::all_done() const {
  for (std::size_t pair = 0; pair < bare_->pairs(); ++pair)
    if (bare_->done(pair) < bare_->posted(pair)) return false;
  return true;
}

// The last one of each queue pair asked for a completion.
Result<void> BareEnd::drain(Deadline deadline) {
  return until(deadline, true, [&] { return all_done(); });
}

Result<void> BareEnd::settle(Deadline deadline) {
  return until(deadline, true, [&] { return bare_->settled(); });
}

Result<void> BareEnd::await(std::uint64_t received, Deadline deadline) {
  if (!crowded_) GRADRAIL_TRY(bare_->poll_until(received, k_poll_every));
  return until(deadline, true, [&] { return bare_->received() >= received; });
}

Result<std::vector<double>> BareEnd::ping(const Load& load, Deadline deadline) {
  const bool looks_at_memory = operation_ == Operation::write;
  if (looks_at_memory) bare_->incoming()[load.bytes - 1] = std::byte{0};
  GRADRAIL_TRY(meet(deadline));
  auto wanted = bare_->received();
  Ticks ticks(first_ ? static_cast<std::size_t>(load.messages) : 0);
  for (std::int64_t i = 0; i < load.messages; ++i) {
    const auto number = static_cast<std::byte>(i + 1);  // another one than before
    if (looks_at_memory) bare_->outgoing()[load.bytes - 1] = number;
    if (first_) GRADRAIL_TRY(post(0, load.bytes, true, deadline));
    // What ended is taken in while the ping is on its way, so that the next one finds room at once.
    if (first_) GRADRAIL_TRY(drain(deadline));
    if (looks_at_memory) {
      if (!crowded_) GRADRAIL_TRY(bare_->poll_until_written(load.bytes, number, k_poll_every));
      GRADRAIL_TRY(until(deadline, bare_->lands_by_polling(), [&] { return bare_->landed(load.bytes) == number; }));
    } else {
      GRADRAIL_TRY(await(++wanted, deadline));
    }
    if (!first_) {
      GRADRAIL_TRY(post(0, load.bytes, true, deadline));
      GRADRAIL_TRY(drain(deadline));
      continue;
    }
    ticks.mark();
  }
  return ticks.rounds_us(0.5);
}

Result<std::vector<double>> BareEnd::reads(const Load& load, Deadline deadline) {
  GRADRAIL_TRY(meet(deadline));
  std::vector<double> samples;
  if (first_) {
    samples.reserve(static_cast<std::size_t>(load.messages));
    for (std::int64_t i = 0; i < load.messages; ++i) {
      const auto begin = Clock::now();
      GRADRAIL_TRY(post(0, load.bytes, true, deadline));
      GRADRAIL_TRY(drain(deadline));
      samples.push_back(us_between(begin, Clock::now()));
    }
  }
  GRADRAIL_TRY(exchange(0, deadline));
  return samples;
}

Result<std::vector<double>> BareEnd::stream(const Load& load, bool sends, bool receives, Deadline deadline) {
  const std::size_t pairs = bare_->pairs();
  const auto messages = static_cast<std::uint64_t>(load.messages);
  const auto depth = static_cast<std::uint64_t>(load.depth);
  // Only the receiver of sends has something to do; other operations need nobody there.
  const auto to_receive = bare_->received() + (receives && operation_ == Operation::send ? messages : 0);
  GRADRAIL_TRY(meet(deadline));
  std::uint64_t sent = 0;
  double us = 0;
  const auto begin = Clock::now();
  Result<void> posted;
  if (sends) {
    GRADRAIL_TRY(until(deadline, true, [&] {
      while (posted && sent < messages) {
        const auto pair = static_cast<std::size_t>(sent % pairs);
        if (bare_->posted(pair) - bare_->done(pair) >= depth) break;
        posted = post(pair, load.bytes, sent + pairs >= messages, deadline);
        ++sent;
      }
      return !posted || (sent == messages && all_done());
    }));
    if (posted) GRADRAIL_TRY(settle(deadline));
    us = us_between(begin, Clock::now());
  }
  GRADRAIL_TRY(posted);
  GRADRAIL_TRY(until(deadline, true, [&] { return bare_->received() >= to_receive; }));
  GRADRAIL_ASSIGN(const double theirs, exchange(us, deadline));
  return std::vector<double>{std::max(us, theirs) / static_cast<double>(load.messages)};
}

Result<std::vector<double>> BareEnd::run(const Load& load, Deadline deadline) {
  switch (load.test) {
    case P2pTest::latency: return operation_ == Operation::read ? reads(load, deadline) : ping(load, deadline);
    case P2pTest::bidirectional: return stream(load, true, true, deadline);
    case P2pTest::bandwidth:
    case P2pTest::message_rate: break;
  }
  return stream(load, first_, !first_, deadline);
}

// `from_here`: this side posts. What it wrote or sent is looked at there, what it read, here.
Result<std::int64_t> BareEnd::check_one(std::size_t pair, std::size_t bytes, std::uint64_t seed, bool from_here,
                                        Deadline deadline) {
  const bool reads = operation_ == Operation::read;
  const bool gives = from_here != reads;
  const auto landing = bare_->incoming().first(bytes);
  if (gives) {
    fill(bare_->outgoing().first(bytes), seed);
  } else {
    std::fill(landing.begin(), landing.end(), std::byte{0});
  }
  const auto wanted = bare_->received() + (from_here || operation_ != Operation::send ? 0 : 1);
  GRADRAIL_TRY(meet(deadline));
  if (from_here) {
    GRADRAIL_TRY(post(pair, bytes, true, deadline));
    GRADRAIL_TRY(drain(deadline));
    GRADRAIL_TRY(settle(deadline));
  } else {
    GRADRAIL_TRY(await(wanted, deadline));
  }
  GRADRAIL_TRY(meet(deadline));
  if (gives) return 0;
  // UCX 1.13 calls writes over sockets settled before they lie there: they come with this side's next looks.
  if (operation_ == Operation::write && bare_->lands_by_polling())
    for (const auto late = Deadline::after(k_landing); differences(landing, seed) > 0 && !late.passed();)
      GRADRAIL_TRY(bare_->poll());
  return differences(landing, seed);
}

Result<std::int64_t> BareEnd::check(std::size_t bytes, std::uint64_t seed, Deadline deadline) {
  std::int64_t wrong = 0;
  for (std::size_t pair = 0; pair < bare_->pairs(); ++pair) {
    for (const bool there : {true, false}) {
      GRADRAIL_ASSIGN(const auto found,
                      check_one(pair, bytes, random_at(seed + 2 * pair + (there ? 0 : 1)), there == first_, deadline));
      wrong += found;
    }
  }
  return wrong;
}

Traffic BareEnd::traffic() const { return traffic_; }

}  // namespace gradrail

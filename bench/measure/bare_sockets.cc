#include "bench/measure/bare_sockets.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <limits>

#include "bench/measure/statistics.h"
#include "transports/base/cores.h"
#include "transports/handshake.h"

namespace gradrail {

namespace {

constexpr std::string_view k_purpose = "bare sockets";
constexpr int k_least_samples = 4;
constexpr int k_most_samples = 200;
constexpr int k_polls_before_yield = 300;
constexpr int k_polls_before_clock = 4096;

// Bytes a system call: what bare loops are fastest with.
std::size_t turn_of(std::uint64_t bytes) { return bytes <= (4u << 20) ? 256u << 10 : 1u << 20; }

std::int64_t since_start_ns(Clock::time_point when) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(when.time_since_epoch()).count();
}

}  // namespace

int BareSockets::Pairing::partner_of(int rank, int ranks) const {
  if (!between_hosts) return ranks % 2 == 0 ? rank ^ 1 : -1;
  const int host = rank / ranks_per_host;
  return hosts % 2 == 0 ? (host ^ 1) * ranks_per_host + rank % ranks_per_host : -1;
}

std::uint64_t BareSockets::Pairing::share(std::uint64_t bytes, int ranks) const {
  const auto [members, over] = between_hosts ? std::pair(hosts, ranks_per_host) : std::pair(ranks, 1);
  return 2 * static_cast<std::uint64_t>(members - 1) * bytes / static_cast<std::uint64_t>(members * over);
}

std::optional<BareSockets::Pairing> BareSockets::pairing_of(const Communicator& group) {
  Pairing pairing;
  pairing.hosts = group.hosts();
  pairing.ranks_per_host = group.ranks_per_host();
  const std::string& name = group.transport_name();
  if (name.ends_with("+tcp")) {
    if (pairing.hosts * pairing.ranks_per_host != group.ranks()) return std::nullopt;
    pairing.between_hosts = true;
  } else if (name != "tcp") {
    return std::nullopt;
  }
  if (group.ranks() < 2 || pairing.partner_of(0, group.ranks()) < 0) return std::nullopt;
  return pairing;
}

Result<BareSockets> BareSockets::make(Bootstrap& bootstrap, const Pairing& pairing, Deadline deadline) {
  BareSockets self;
  const int rank = bootstrap.rank();
  const auto members = bootstrap.members();
  self.partner_ = pairing.partner_of(rank, bootstrap.ranks());
  self.upwards_ = rank < self.partner_;
  const Member& partner = members[static_cast<std::size_t>(self.partner_)];
  self.who_ = fmt::format("rank {} (pid {} on {})", self.partner_, partner.pid, partner.host);
  const Member& me = members[static_cast<std::size_t>(rank)];
  const auto here = std::count_if(members.begin(), members.end(), [&](const Member& m) { return m.host == me.host; });
  self.crowded_ = here > static_cast<long>(usable_cores().size());

  GRADRAIL_ASSIGN(auto listener, listen_tcp(me.listen_host, 0));
  GRADRAIL_ASSIGN(const int port, local_port(listener.get()));
  GRADRAIL_ASSIGN(auto acceptor, Acceptor::make(std::move(listener), bootstrap.secret(), {std::string(k_purpose)}));
  GRADRAIL_ASSIGN(const auto ports, bootstrap.all_gather(std::as_bytes(std::span(&port, 1)), deadline));
  const Bytes& theirs = ports[static_cast<std::size_t>(self.partner_)];
  int their_port = 0;
  if (theirs.size() != sizeof their_port) return fail(Code::malformed, "a rank's port is damaged", self.partner_);
  std::memcpy(&their_port, theirs.data(), sizeof their_port);

  for (std::size_t i = 0; i < self.sockets_.size(); ++i) {
    if (self.upwards_) {
      const auto index = static_cast<std::uint8_t>(i);
      GRADRAIL_ASSIGN(self.sockets_[i], dial(partner.listen_host, their_port, bootstrap.secret(), k_purpose,
                                             std::as_bytes(std::span(&index, 1)), deadline));
    } else {
      GRADRAIL_ASSIGN(auto accepted, acceptor.accept(deadline));
      const auto index = accepted.hello.size() == 1 ? static_cast<std::size_t>(accepted.hello[0]) : 2;
      if (index >= self.sockets_.size() || self.sockets_[index])
        return fail(Code::malformed, "a rank's greeting is damaged", self.partner_);
      self.sockets_[index] = std::move(accepted.fd);
    }
  }
  for (const Fd& socket : self.sockets_)
    if (on_loopback(socket.get())) size_buffers_on_one_host(socket.get());
  return self;
}

Result<void> BareSockets::exchange(bool one_way_each, const Load& load, Deadline deadline) {
  const int to = sockets_[one_way_each && !upwards_ ? 1 : 0].get();
  const int from = sockets_[one_way_each && upwards_ ? 1 : 0].get();
  const std::size_t turn = turn_of(load.bytes);
  const auto run = [&](std::size_t done, std::size_t around) {
    return std::min({turn, static_cast<std::size_t>(load.bytes) - done, around - done % around});
  };
  const auto ended = [&](int error) {
    return fail(Code::peer_gone, who_ + " closed its bare socket", partner_, error);
  };
  std::size_t sent = 0;
  std::size_t received = 0;
  for (int idle = 0; sent < load.bytes || received < load.bytes; ++idle) {
    if (sent < load.bytes) {
      const auto n = ::send(to, load.from.data() + sent % load.from.size(), run(sent, load.from.size()),
                            MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && !not_ready(errno)) return ended(errno);
      if (n > 0) sent += static_cast<std::size_t>(n);
      if (n > 0) idle = 0;
    }
    if (received < load.bytes) {
      const auto n =
          ::recv(from, load.to.data() + received % load.to.size(), run(received, load.to.size()), MSG_DONTWAIT);
      if (n == 0 || (n < 0 && !not_ready(errno))) return ended(n < 0 ? errno : 0);
      if (n > 0) received += static_cast<std::size_t>(n);
      if (n > 0) idle = 0;
    }
    if (idle > (crowded_ ? 1 : k_polls_before_yield)) ::sched_yield();
    if (idle % k_polls_before_clock == k_polls_before_clock - 1 && deadline.passed())
      return fail(Code::timed_out, who_ + " did not exchange bytes over bare sockets in time", partner_);
  }
  return {};
}

Result<void> BareSockets::measure(Bootstrap& bootstrap, Communicator& group, const Load& load, const Rules& rules) {
  std::array<std::int32_t, 2> plan{k_least_samples, 1};  // samples; exchanges a sample
  auto& [samples, batch] = plan;
  // The first two rounds warm up and tell how many more there is time for.
  for (int i = -2; i < samples; ++i) {
    double round_us = 0;
    for (const bool one_way_each : {false, true}) {
      GRADRAIL_TRY(group.barrier(Deadline::after(rules.timeout)));
      const auto begin = Clock::now();
      for (int one = 0; one < batch; ++one) GRADRAIL_TRY(exchange(one_way_each, load, Deadline::after(rules.timeout)));
      const auto end = Clock::now();
      round_us += std::chrono::duration<double, std::micro>(end - begin).count();
      if (i >= 0) samples_[one_way_each ? 1 : 0].push_back({since_start_ns(begin), since_start_ns(end), batch});
    }
    if (i != -1) continue;
    const double one_us = std::max(round_us / 2, 1.0);
    batch = static_cast<int>(
        std::clamp(std::ceil(rules.shortest_sample.count() * 1e6 / one_us), 1.0, double{k_most_samples}));
    const double fit = rules.budget.count() * 1e6 / (2 * one_us * batch);
    samples = static_cast<int>(std::clamp(fit, double{k_least_samples}, double{k_most_samples}));
    GRADRAIL_ASSIGN(const Bytes same,
                    bootstrap.broadcast(std::as_bytes(std::span(plan)), Deadline::after(rules.timeout)));
    if (same.size() != sizeof plan) return fail(Code::malformed, "rank 0's number of samples is damaged", 0);
    std::memcpy(plan.data(), same.data(), sizeof plan);
  }
  return {};
}

std::vector<double> BareSockets::times_us(std::span<const std::vector<Sample>> by_rank,
                                          std::span<const std::string> hosts) {
  std::size_t count = std::numeric_limits<std::size_t>::max();
  for (const auto& samples : by_rank) count = std::min(count, samples.size());
  std::vector<double> times(by_rank.empty() ? 0 : count);
  for (std::size_t first = 0; first < by_rank.size(); ++first) {
    if (std::find(hosts.begin(), hosts.begin() + static_cast<long>(first), hosts[first]) !=
        hosts.begin() + static_cast<long>(first))
      continue;  // a host that was looked at
    for (std::size_t i = 0; i < count; ++i) {
      Sample whole = by_rank[first][i];
      for (std::size_t rank = first + 1; rank < by_rank.size(); ++rank) {
        if (hosts[rank] != hosts[first]) continue;
        whole.begin_ns = std::min(whole.begin_ns, by_rank[rank][i].begin_ns);
        whole.end_ns = std::max(whole.end_ns, by_rank[rank][i].end_ns);
      }
      times[i] = std::max(
          times[i], static_cast<double>(whole.end_ns - whole.begin_ns) / 1e3 / static_cast<double>(whole.exchanges));
    }
  }
  return times;
}

Result<double> BareSockets::take_us(Bootstrap& bootstrap, Deadline deadline) {
  std::vector<std::string> hosts;
  for (const Member& member : bootstrap.members()) hosts.push_back(member.host);
  double best = 0;
  for (auto& kind : samples_) {
    GRADRAIL_ASSIGN(const auto all, bootstrap.all_gather(std::as_bytes(std::span(kind)), deadline));
    std::vector<std::vector<Sample>> by_rank;
    for (const Bytes& bytes : all) {
      std::vector<Sample> samples(bytes.size() / sizeof(Sample));
      if (!samples.empty()) std::memcpy(samples.data(), bytes.data(), samples.size() * sizeof(Sample));
      by_rank.push_back(std::move(samples));
    }
    kind.clear();
    const auto times = times_us(by_rank, hosts);
    if (times.empty()) continue;
    const double us = median(times);
    best = best == 0 ? us : std::min(best, us);
  }
  return best;
}

}  // namespace gradrail

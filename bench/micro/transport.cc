// The shm transport against what the machine can do, in the same run: one-way latency of 8 and 56 bytes against a bare
// ping-pong of one cache line, and bandwidth by path against memcpy. Two processes; batches of the cases to compare are
// interleaved, because cores' distance and load move under a run; batches are short, so that on a busy machine some of
// them run undisturbed. Counters:
//   *_ns     one-way latency, median over batches; *_ns_least the smallest
//   *_gbs    payload bytes a second, median over batches; *_gbs_most the largest
#include <benchmark/benchmark.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "bench/measure/statistics.h"
#include "transports/base/check.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

constexpr int k_spins = 2000;  // polls before the core is given away

struct alignas(128) RawLine {
  std::atomic<std::uint64_t> turn;
  std::byte payload[56];
};

struct Shared {
  RawLine lines[2];
};

// What both processes have: a rank, its endpoint to the other, and the bare lines.
struct Side {
  int rank;
  Transport& transport;
  Endpoint& endpoint;
  Shared& shared;

  void until(const auto& done) const {
    for (int spins = 0; !done(); ++spins) {
      if (transport.progress() || spins < k_spins) continue;
      GRADRAIL_CHECK(endpoint.failure() == nullptr);
      transport.wait(Seconds(0));
    }
  }
};

// Runs `child` as rank 1 in a forked process, for ever, and `parent` as rank 0 here.
void in_two_processes(const std::function<void(const Side&)>& parent, const std::function<void(const Side&)>& child) {
  auto* shared =
      static_cast<Shared*>(::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  GRADRAIL_CHECK(shared != MAP_FAILED);
  int sockets[2];
  GRADRAIL_CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0);
  const pid_t pid = ::fork();
  GRADRAIL_CHECK(pid >= 0);
  const int rank = pid == 0 ? 1 : 0;
  {
    Settings settings;
    settings.rank = rank;
    settings.ranks = 2;
    auto transport = make_transport("shm", settings).value();
    const auto mine = transport->listen().value();
    GRADRAIL_CHECK(::write(sockets[rank], mine.data(), mine.size()) == static_cast<ssize_t>(mine.size()));
    Peer peer{.rank = 1 - rank, .lane = 0, .host = "here", .address = Address(512)};
    const auto got = ::read(sockets[rank], peer.address.data(), peer.address.size());
    GRADRAIL_CHECK(got > 0);
    peer.address.resize(static_cast<std::size_t>(got));
    auto endpoints = transport->connect({&peer, 1}, Deadline::after(Seconds(10))).value();
    const Side side{rank, *transport, *endpoints.front(), *shared};
    if (rank == 1) {
      for (;;) child(side);
    }
    parent(side);
  }
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  ::close(sockets[0]);
  ::close(sockets[1]);
  ::munmap(shared, sizeof(Shared));
}

double seconds_since(Clock::time_point start) { return Seconds(Clock::now() - start).count(); }

// `count` round trips over the bare lines; the payload is written before the flag and read after it, as in a message.
double raw_batch(const Side& side, int count, std::size_t bytes, std::uint64_t& turn) {
  auto& out = side.shared.lines[side.rank];
  auto& in = side.shared.lines[1 - side.rank];
  std::array<std::byte, 56> local{};
  const auto start = Clock::now();
  for (int i = 0; i < count; ++i) {
    ++turn;
    const auto say = [&] {
      if (bytes > 8) std::memcpy(out.payload, local.data(), 56);
      out.turn.store(turn, std::memory_order_release);
    };
    if (side.rank == 0) say();
    for (int spins = 0; in.turn.load(std::memory_order_acquire) != turn; ++spins) {
      if (spins > k_spins) ::sched_yield();
    }
    if (bytes > 8) std::memcpy(local.data(), in.payload, 56);
    benchmark::DoNotOptimize(local);
    if (side.rank == 1) say();
  }
  return seconds_since(start) / count / 2;
}

double message_batch(const Side& side, int count, Slice out, Slice in) {
  auto& endpoint = side.endpoint;
  const auto start = Clock::now();
  for (int i = 0; i < count; ++i) {
    const auto before = endpoint.recvs_done();
    GRADRAIL_CHECK(endpoint.recv(in));
    if (side.rank == 0) GRADRAIL_CHECK(endpoint.send(out));
    side.until([&] { return endpoint.recvs_done() > before; });
    if (side.rank == 1) GRADRAIL_CHECK(endpoint.send(out));
  }
  side.until([&] { return endpoint.sends_done() == endpoint.recvs_done(); });  // as many each way
  return seconds_since(start) / count / 2;
}

void one_way_latency(benchmark::State& state) {
  constexpr int k_batch = 50;
  struct Figures {
    std::vector<double> raw8, raw56, shm8, shm56, shm1k, shm4k;
  } figures;
  std::uint64_t turn = 0;
  const auto round = [&](const Side& side, Region& region, Figures& to) {
    const auto message = [&](std::size_t bytes) {
      return 1e9 * message_batch(side, k_batch, {&region, 0, bytes}, {&region, 8192, bytes});
    };
    to.raw8.push_back(1e9 * raw_batch(side, k_batch, 8, turn));
    to.shm8.push_back(message(8));
    to.raw56.push_back(1e9 * raw_batch(side, k_batch, 56, turn));
    to.shm56.push_back(message(56));
    to.shm1k.push_back(message(1024));
    to.shm4k.push_back(message(4096));
  };
  std::vector<std::byte> memory(16384);
  const auto both = [&](const Side& side, auto&& rounds) {
    const auto region = side.transport.register_memory({memory.data(), memory.size()}).value();
    rounds(*region);
  };
  in_two_processes(
      [&](const Side& side) {
        both(side, [&](Region& region) {
          for (auto _ : state) round(side, region, figures);
        });
      },
      [&](const Side& side) {
        both(side, [&](Region& region) {
          for (;;) {
            Figures unused;
            round(side, region, unused);
          }
        });
      });
  const auto report = [&](const std::string& name, const std::vector<double>& values) {
    state.counters[name + "_ns"] = median(values);
    state.counters[name + "_ns_least"] = *std::min_element(values.begin(), values.end());
  };
  report("raw_8", figures.raw8);
  report("raw_56", figures.raw56);
  report("shm_8", figures.shm8);
  report("shm_56", figures.shm56);
  report("shm_1k", figures.shm1k);
  report("shm_4k", figures.shm4k);
}
BENCHMARK(one_way_latency)->Iterations(200)->Unit(benchmark::kMicrosecond);

// `count` messages one way, four outstanding, and a short answer at the end.
double stream(const Side& side, int count, Slice out, Slice in, bool read_in_place, Slice answer) {
  auto& endpoint = side.endpoint;
  constexpr std::uint64_t k_window = 4;
  const auto start = Clock::now();
  const auto sends = endpoint.sends_done();
  const auto recvs = endpoint.recvs_done();
  std::uint64_t posted = 0;
  const auto all = static_cast<std::uint64_t>(count);
  if (side.rank == 0) {
    GRADRAIL_CHECK(endpoint.recv(answer));
    side.until([&] {
      while (posted < all && posted - (endpoint.sends_done() - sends) < k_window) {
        GRADRAIL_CHECK(endpoint.send(out));
        ++posted;
      }
      return endpoint.recvs_done() > recvs && endpoint.sends_done() - sends == all;
    });
  } else {
    side.until([&] {
      while (posted < all && posted - (endpoint.recvs_done() - recvs) < k_window) {
        GRADRAIL_CHECK(read_in_place ? endpoint.recv_in_place(in.size) : endpoint.recv(in));
        ++posted;
      }
      for (auto part = endpoint.readable(); !part.empty(); part = endpoint.readable()) {
        // Reads every cache line, as a reduction would.
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i + 8 <= part.size(); i += 8) {
          std::uint64_t word = 0;
          std::memcpy(&word, part.data() + i, 8);
          sum += word;
        }
        benchmark::DoNotOptimize(sum);
        endpoint.consume(part.size());
      }
      return endpoint.recvs_done() - recvs == all;
    });
    GRADRAIL_CHECK(endpoint.send(answer));
    side.until([&] { return endpoint.sends_done() > sends; });
  }
  return static_cast<double>(out.size) * count / seconds_since(start) / 1e9;
}

void bandwidth(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  const int count = static_cast<int>(std::clamp<std::size_t>((4 << 20) / bytes, 2, 32));
  struct Case {
    const char* name;
    bool direct_source, direct_destination, in_place;
  };
  static constexpr std::array<Case, 6> k_cases{{{"plain_to_plain_gbs", false, false, false},
                                                {"plain_to_direct_gbs", false, true, false},
                                                {"plain_read_in_place_gbs", false, false, true},
                                                {"direct_to_plain_gbs", true, false, false},
                                                {"direct_to_direct_gbs", true, true, false},
                                                {"direct_read_in_place_gbs", true, false, true}}};
  std::array<std::vector<double>, k_cases.size()> figures;
  std::vector<double> copies;
  Traffic traffic{};
  const auto run = [&](const Side& side, bool measured) {
    std::vector<std::byte> own(2 * bytes + 64, std::byte{1});
    const auto plain = side.transport.register_memory({own.data(), own.size()}).value();
    const auto direct = side.transport.allocate(2 * bytes + 64).value();
    const auto round = [&](bool keep) {
      for (std::size_t i = 0; i < k_cases.size(); ++i) {
        const auto& one = k_cases[i];
        const Slice out{one.direct_source ? direct.get() : plain.get(), 0, bytes};
        const Slice in{one.direct_destination ? direct.get() : plain.get(), bytes, bytes};
        const double gbs = stream(side, count, out, in, one.in_place, {plain.get(), 2 * bytes, 8});
        if (keep) figures[i].push_back(gbs);
      }
      if (!keep) return;
      const auto start = Clock::now();
      for (int i = 0; i < count; ++i) {
        std::memcpy(own.data() + bytes, own.data(), bytes);
        benchmark::ClobberMemory();
      }
      copies.push_back(static_cast<double>(bytes) * count / seconds_since(start) / 1e9);
    };
    round(false);
    if (measured) {
      for (auto _ : state) round(true);
      traffic = side.endpoint.traffic();
    } else {
      for (;;) round(false);
    }
  };
  in_two_processes([&](const Side& side) { run(side, true); }, [&](const Side& side) { run(side, false); });
  const auto report = [&](const std::string& name, const std::vector<double>& values) {
    state.counters[name] = median(values);
    state.counters[name + "_most"] = *std::max_element(values.begin(), values.end());
  };
  for (std::size_t i = 0; i < k_cases.size(); ++i) report(k_cases[i].name, figures[i]);
  report("memcpy_gbs", copies);
  for (const auto path : {Path::one_copy, Path::zero_copy})
    state.counters[std::string(to_string(path))] = static_cast<double>(traffic[static_cast<std::size_t>(path)]);
}
BENCHMARK(bandwidth)->Arg(64 << 10)->Arg(1 << 20)->Iterations(20)->Unit(benchmark::kMillisecond);
BENCHMARK(bandwidth)->Arg(64 << 20)->Iterations(3)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace gradrail

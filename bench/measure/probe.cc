#include "bench/measure/probe.h"

#include <fmt/format.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <latch>
#include <numeric>
#include <thread>

#include "collectives/exec/kernels/reduce.h"
#include "transports/base/check.h"
#include "transports/base/cores.h"

namespace gradrail {
namespace {

double median(std::vector<double>& values) {
  GRADRAIL_CHECK(!values.empty());
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool pin_this_thread(int cpu) {
  // Sized for the CPU, not for CPU_SETSIZE: large machines have more than 1024.
  cpu_set_t* const set = CPU_ALLOC(static_cast<std::size_t>(cpu) + 1);
  if (set == nullptr) return false;
  const auto bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(cpu) + 1);
  CPU_ZERO_S(bytes, set);
  CPU_SET_S(static_cast<std::size_t>(cpu), bytes, set);
  const bool pinned = ::pthread_setaffinity_np(::pthread_self(), bytes, set) == 0;
  CPU_FREE(set);
  return pinned;
}

// Waits for the value with plain loads, which see it soonest; gives way now and then, in case the other side waits for
// this CPU. False if the deadline passed.
bool await(const std::atomic<std::uint32_t>& line, std::uint32_t value, Deadline deadline) {
  for (;;) {
    for (int spin = 0; spin < 2000; ++spin) {
      if (line.load(std::memory_order_acquire) == value) return true;
    }
    if (deadline.passed()) return false;
    ::sched_yield();
  }
}

// Two cache lines, each with its neighbour, because some CPUs fetch lines in pairs.
struct PingPong {
  alignas(128) std::atomic<std::uint32_t> ping{0};
  alignas(128) std::atomic<std::uint32_t> pong{0};
  alignas(128) std::atomic<bool> unpinned{false};
};

std::vector<double> ping(PingPong& lines, Seconds budget, Deadline deadline) {
  constexpr std::uint32_t k_batch = 100;
  std::vector<double> one_way_ns;
  const auto end = Deadline::after(budget);
  std::uint32_t value = 0;
  while (!end.passed() || one_way_ns.size() < 5) {
    const auto start = Clock::now();
    std::uint32_t done = 0;
    for (; done < k_batch; ++done) {
      lines.ping.store(++value, std::memory_order_release);
      if (!await(lines.pong, value, deadline)) break;
    }
    if (done > 0) one_way_ns.push_back(Seconds(Clock::now() - start).count() * 1e9 / (2.0 * done));
    if (done < k_batch) break;
  }
  return one_way_ns;
}

// Copies or adds; `a` is written.
enum class Loop { copy, add };
void run(Loop loop, std::byte* a, const std::byte* b, std::size_t bytes) {
  static const ReduceFn add = reduce_function(Type::f64, ReduceOp::sum);
  if (loop == Loop::copy) {
    std::memcpy(a, b, bytes);
  } else {
    add(a, a, b, bytes / sizeof(double));
  }
}
double traffic(Loop loop) { return loop == Loop::copy ? 2 : 3; }

// Anonymous pages, huge where the system gives them: the probe measures memory, not the translation of addresses.
struct Pages {
  std::byte* data = nullptr;
  std::size_t bytes = 0;

  explicit Pages(std::size_t size) {
    void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return;
    ::madvise(at, size, MADV_HUGEPAGE);
    data = static_cast<std::byte*>(at);
    bytes = size;
    std::memset(data, 0, size);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() {
    if (data != nullptr) ::munmap(data, bytes);
  }
};

std::size_t default_buffer_bytes() {
  const long last_cache = ::sysconf(_SC_LEVEL3_CACHE_SIZE);
  const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGE_SIZE);
  std::size_t bytes = std::max<std::size_t>(64 << 20, last_cache > 0 ? static_cast<std::size_t>(last_cache) : 0);
  if (pages > 0 && page > 0) {
    bytes = std::min(bytes, static_cast<std::size_t>(pages) * static_cast<std::size_t>(page) / 16);
  }
  return bytes;
}

constexpr std::size_t k_piece = 1 << 20;  // timed at once: long against the clock, short against an interruption

}  // namespace

Result<double> core_to_core_ns(int cpu, int other, Seconds budget) {
  if (cpu == other) {
    return fail(Code::unavailable, fmt::format("latency between cores needs two CPUs, but only CPU {} was given", cpu));
  }
  if (cpu < 0 || other < 0) return fail(Code::unavailable, "CPUs are numbered from 0");
  PingPong lines;
  constexpr std::uint32_t k_end = 0xFFFFFFFF;
  // Time to spare: with other work on the CPUs, a round trip may take two of the scheduler's slices.
  const auto deadline = Deadline::after(10 * budget + Seconds(0.2));
  std::latch ready(2);
  std::vector<double> one_way_ns;
  std::thread replier([&] {
    if (!pin_this_thread(other)) lines.unpinned = true;
    ready.arrive_and_wait();
    std::uint32_t seen = 0;
    while (!lines.unpinned) {
      for (int spin = 0; spin < 2000; ++spin) {
        const auto now = lines.ping.load(std::memory_order_acquire);
        if (now == k_end) return;
        if (now != seen) lines.pong.store(seen = now, std::memory_order_release);
      }
      ::sched_yield();
    }
  });
  std::thread sender([&] {
    if (!pin_this_thread(cpu)) lines.unpinned = true;
    ready.arrive_and_wait();
    if (!lines.unpinned) one_way_ns = ping(lines, budget, deadline);
    lines.ping.store(k_end, std::memory_order_release);
  });
  sender.join();
  replier.join();
  if (lines.unpinned) {
    return fail(Code::unavailable, fmt::format("this process may not run on both CPU {} and CPU {}", cpu, other));
  }
  if (one_way_ns.empty()) {
    return fail(Code::unavailable,
                fmt::format("CPU {} and CPU {} are too busy with other work to measure", cpu, other));
  }
  return median(one_way_ns);
}

CacheBandwidth cache_bandwidth(std::size_t bytes, Seconds budget) {
  const std::size_t half = std::max<std::size_t>(64, bytes / 2 / 64 * 64);
  const Pages a(half), b(half);
  CacheBandwidth out{2 * half, 0, 0};
  if (a.data == nullptr || b.data == nullptr) return out;
  const std::size_t repeats = std::max<std::size_t>(1, (256 << 10) / half);
  const auto rate = [&](Loop loop) {
    std::vector<double> rates;
    run(loop, a.data, b.data, half);
    const auto end = Deadline::after(budget / 2);
    while (!end.passed() || rates.size() < 3) {
      const auto start = Clock::now();
      for (std::size_t i = 0; i < repeats; ++i) run(loop, a.data, b.data, half);
      const double ns = Seconds(Clock::now() - start).count() * 1e9;
      rates.push_back(traffic(loop) * static_cast<double>(half * repeats) / ns);
    }
    return median(rates);
  };
  out.copy_gbs = rate(Loop::copy);
  out.add_gbs = rate(Loop::add);
  return out;
}

bool same_phase(const Phase& a, const Phase& b) {
  const auto alike = [](double x, double y, double tolerance) {
    if (x <= 0 || y <= 0) return x <= 0 && y <= 0;
    return std::max(x, y) <= tolerance * std::min(x, y);
  };
  return alike(a.core_to_core_ns, b.core_to_core_ns, k_latency_tolerance) &&
         alike(a.memory_gbs, b.memory_gbs, k_bandwidth_tolerance);
}

std::string PhaseNames::name(const Phase& phase) {
  for (const Known& known : known_) {
    if (same_phase(known.first, phase)) return known.name;
  }
  const auto rounded = [](double value) { return std::exp2(std::round(std::log2(value))); };
  std::string name;
  if (phase.core_to_core_ns > 0) name = fmt::format("{}ns", rounded(phase.core_to_core_ns));
  if (phase.memory_gbs > 0) name += fmt::format("{}{}GB/s", name.empty() ? "" : "-", rounded(phase.memory_gbs));
  if (name.empty()) name = "unknown";
  const auto taken = [&](const std::string& wanted) {
    return std::any_of(known_.begin(), known_.end(), [&](const Known& known) { return known.name == wanted; });
  };
  std::string free = name;
  for (int i = 2; taken(free); ++i) free = fmt::format("{}#{}", name, i);
  known_.push_back({phase, free});
  return free;
}

struct Probe::State {
  ProbeOptions options;
  Pages a, b;
  std::size_t next_piece = 0;  // the next call goes on where the last one ended, so that it finds nothing in a cache

  explicit State(ProbeOptions from) : options(std::move(from)), a(options.buffer_bytes), b(options.buffer_bytes) {}

  double gbs(Loop loop, int threads, Seconds budget);
};

double Probe::State::gbs(Loop loop, int threads, Seconds budget) {
  GRADRAIL_CHECK(threads >= 1);
  // More threads than CPUs would take turns, and each turn would look like the whole machine's rate.
  const auto count = std::min(static_cast<std::size_t>(threads), options.cpus.size());
  const std::size_t slice = options.buffer_bytes / k_piece / count;  // pieces of one thread
  std::vector<double> rates(count);
  std::vector<std::size_t> done(count);
  std::latch ready(static_cast<std::ptrdiff_t>(count));
  const auto work = [&](std::size_t thread) {
    // Where it may not be pinned it measures all the same; the placement is then the system's.
    pin_this_thread(options.cpus[thread]);
    std::vector<double> samples;
    samples.reserve(4096);
    ready.arrive_and_wait();
    const auto end = Deadline::after(budget);
    std::size_t piece = next_piece;
    for (; !end.passed() || samples.size() < 3; ++piece) {
      const std::size_t offset = (thread * slice + piece % slice) * k_piece;
      const auto start = Clock::now();
      run(loop, a.data + offset, b.data + offset, k_piece);
      const double ns = Seconds(Clock::now() - start).count() * 1e9;
      samples.push_back(traffic(loop) * static_cast<double>(k_piece) / ns);
    }
    done[thread] = piece;
    rates[thread] = median(samples);
  };
  std::vector<std::thread> running;
  for (std::size_t thread = 0; thread < count; ++thread) running.emplace_back(work, thread);
  for (std::thread& thread : running) thread.join();
  next_piece = *std::max_element(done.begin(), done.end());
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

Probe::Probe(std::unique_ptr<State> state) : state_(std::move(state)) {}
Probe::Probe(Probe&&) noexcept = default;
Probe& Probe::operator=(Probe&&) noexcept = default;
Probe::~Probe() = default;

Result<Probe> Probe::create(ProbeOptions options) {
  if (options.cpus.empty()) options.cpus = usable_cores();
  if (options.buffer_bytes == 0) options.buffer_bytes = default_buffer_bytes();
  // At least one piece for each thread, or two would write the same.
  const std::size_t pieces = std::max((options.buffer_bytes + k_piece - 1) / k_piece, options.cpus.size());
  options.buffer_bytes = pieces * k_piece;
  auto state = std::make_unique<State>(std::move(options));
  if (state->a.data == nullptr || state->b.data == nullptr) {
    return fail(Code::exhausted, fmt::format("no memory for the probe of memory bandwidth (twice {} MiB)", pieces));
  }
  return Probe(std::move(state));
}

Phase Probe::phase() {
  const ProbeOptions& options = state_->options;
  Phase out;
  if (options.cpus.size() > 1) {
    out.core_to_core_ns =
        core_to_core_ns(options.cpus.front(), options.cpus.back(), options.latency_budget).value_or(0);
  }
  out.memory_gbs = add_gbs(static_cast<int>(options.cpus.size()), options.bandwidth_budget);
  return out;
}

double Probe::copy_gbs(int threads, Seconds budget) { return state_->gbs(Loop::copy, threads, budget); }
double Probe::add_gbs(int threads, Seconds budget) { return state_->gbs(Loop::add, threads, budget); }

}  // namespace gradrail

// What the machine can do at this moment: memory bandwidth, bandwidth inside the caches, and the latency of a cache
// line between two cores. Virtual machines move between placements ("phases") that change these figures several times
// over while nothing in the system's own tools shows it; so a block of measurements is probed before and after, and
// only blocks of one phase are compared.
//
// A Probe owns its buffers (touched once, at creation) and starts its own pinned threads for each call; the caller's
// thread keeps its affinity. Call it from one thread, in one process of a host, while the job's other ranks wait: their
// waiting may spin, as long as it yields.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/clock.h"
#include "transports/base/result.h"

namespace gradrail {

// One way, from a store on one CPU to its arrival on the other: half a round trip of a ping-pong on two cache lines,
// the median over batches. Takes about `budget`, several times that where other work has the CPUs. Errors: unavailable
// if the CPUs are the same or a thread cannot run on one.
[[nodiscard]] Result<double> core_to_core_ns(int cpu, int other, Seconds budget);

// Bandwidth of one thread on a working set, bytes read and written.
struct CacheBandwidth {
  std::size_t bytes = 0;  // of all buffers of the loop together
  double copy_gbs = 0;    // to = from
  double add_gbs = 0;     // a = a + b
};
[[nodiscard]] CacheBandwidth cache_bandwidth(std::size_t bytes, Seconds budget);

struct Phase {
  double core_to_core_ns = 0;  // first to last usable CPU; 0: not measured, there is only one
  double memory_gbs = 0;       // a = a + b far beyond the caches, bytes read and written, all usable CPUs
  friend bool operator==(const Phase&, const Phase&) = default;
};

// Within a factor of k_latency_tolerance and of k_bandwidth_tolerance. Repeats within a phase stay inside the first (57
// to 107 ns, 250 to 420 ns) and mostly inside the other (bandwidth moves by up to 1.6, seldom by 2, when neighbours are
// busy); phases lie a factor of 4 apart in latency and 2 in bandwidth. A figure that only one of the two has makes them
// differ.
inline constexpr double k_latency_tolerance = 2;
inline constexpr double k_bandwidth_tolerance = 1.7;
[[nodiscard]] bool same_phase(const Phase& a, const Phase& b);

// Names phases by their figures, each rounded to a power of two: "64ns-64GB/s", "256ns-128GB/s"; "64GB/s" on one CPU. A
// phase like one seen before gets its name, so that figures near a rounding border do not flutter; one that is unlike
// it but rounds alike gets the name with "#2" behind it.
class PhaseNames {
 public:
  [[nodiscard]] std::string name(const Phase& phase);

 private:
  struct Known {
    Phase first;
    std::string name;
  };
  std::vector<Known> known_;
};

struct ProbeOptions {
  std::vector<int> cpus;         // empty: usable_cores()
  std::size_t buffer_bytes = 0;  // of each of two buffers; 0: the last cache's size, at least 64 MiB
  Seconds latency_budget{0.02};
  Seconds bandwidth_budget{0.025};
};

class Probe {
 public:
  // Errors: exhausted if there is no memory for the buffers.
  [[nodiscard]] static Result<Probe> create(ProbeOptions options = {});
  Probe(Probe&&) noexcept;
  Probe& operator=(Probe&&) noexcept;
  ~Probe();

  [[nodiscard]] Phase phase();  // about 50 ms
  // `threads` (at least 1; at most one a CPU are used) on the first CPUs of the options, sharing the buffers. Each
  // thread's rate is that of its median piece; the sum over threads is returned.
  [[nodiscard]] double copy_gbs(int threads, Seconds budget);
  [[nodiscard]] double add_gbs(int threads, Seconds budget);

 private:
  struct State;
  explicit Probe(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace gradrail

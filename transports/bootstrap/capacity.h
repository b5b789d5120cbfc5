// How many ranks this machine can bear, so that `-n 100000` is a sentence and not an outage.
#pragma once

#include <cstdint>

#include "transports/base/result.h"

namespace gradrail {

struct Capacity {
  int cores = 1;                                    // this process may run on
  int ranks_per_core = 64;                          // more are refused; GRADRAIL_RANKS_PER_CORE overrides
  std::uint64_t free_memory_bytes = 0;              // available to new processes, 0 if unknown
  std::uint64_t memory_per_rank_bytes = 12u << 20;  // a rank that has allocated nothing of its own yet
  std::uint64_t processes = 0;                      // that may still be started, 0 if unknown
  std::uint64_t descriptors = 0;                    // that rank 0 may have open, one a rank, 0 if unknown
};

// Reads affinity, MemAvailable, the cgroup's limits and resource limits. Errors: bad_usage for a malformed override.
[[nodiscard]] Result<Capacity> read_capacity();
// Errors: bad_usage for ranks < 1; exhausted naming the limit and the largest number that is bearable.
[[nodiscard]] Result<void> bearable(int ranks, const Capacity& capacity);

}  // namespace gradrail

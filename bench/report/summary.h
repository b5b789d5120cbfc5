// The closing text of a run: which algorithm is best for which sizes, by what margin and how surely, and then how close
// that comes to what the machine can do. Made as text, each line starting with '#'.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "results/record.h"

namespace gradrail {

// The least time that one case can take, whatever the algorithm. Computed by the caller, who knows how bytes travel.
struct Bound {
  Point of;  // the case; its algorithm and figures do not matter
  double least_us = 0;
  std::string because;    // "all 4 ranks' buffers are read once and written once, 2.15 GB"
  bool in_cache = false;  // caches may hold it all: it can be beaten, and is a measure rather than a limit
};

// An n-rank allreduce of S bytes in one host's memory reads n inputs and writes n outputs: 2nS bytes at the measured
// bandwidth. None for other collectives and transports, and below 64 KiB. Where 2nS fits into `cache_bytes` (all caches
// together) it is in_cache.
[[nodiscard]] std::optional<Bound> shared_memory_bound(const Point& point, const Limits& limits,
                                                       std::int64_t cache_bytes);

// Choices may be of several cases. `limits` with zeros, and no bounds, leave out the part about the machine.
[[nodiscard]] std::string summary(std::span<const Choice> choices, std::span<const Point> points, const Limits& limits,
                                  std::span<const Bound> bounds);

}  // namespace gradrail

// What a measured bandwidth may be held against: what its path carries at best. Computed, for RDMA from what the
// devices in use say of themselves (bench/doctor/expected.h), in one host's memory from its measured bandwidth; left
// out where either is not known, or caches may hold the data. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "bench/doctor/expected.h"
#include "results/record.h"

namespace gradrail {

// All caches of a machine together.
[[nodiscard]] std::int64_t cache_bytes(const Machine& machine);

// Of what a transport chose ("mlx5_0 port 1, GID 3 ..."): the devices named in it, and what they carry together. None
// unless each is known.
struct PathInUse {
  std::string name;  // "mlx5_0 port 1 + mlx5_1 port 1"
  double gbs = 0;
  std::string limit;  // of the first
};
[[nodiscard]] std::optional<PathInUse> path_in_use(std::string_view via, std::span<const doctor::Expected> paths);

// Sets expected_gbs and expected_share: of the bus bandwidth, which is what each rank's link has to carry. Known for
// RDMA where every rank has its host's devices to itself, and for the allreduce in memory (shared_memory_bound()).
void expect(Point& point, const Limits& limits, std::int64_t caches, const std::optional<PathInUse>& rdma);

// The same for two ranks on one host, or where `rdma` serves both: bidirectional moves twice what a port carries each
// way; in memory every byte is read once and written once.
void expect(P2pPoint& point, double memory_gbs, std::int64_t caches, const std::optional<PathInUse>& rdma);

}  // namespace gradrail

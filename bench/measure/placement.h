// Which CPU a rank runs on. Ranks that the launcher started are bound to one each where there are enough: left to the
// system, two waiting ranks may share a core for seconds while another idles, and small messages then take a time slice
// instead of a microsecond. Where ranks are more than CPUs and are to be bound, they take them in turn: small messages
// gain, as who knows that the rank it waits for has another core need not give its own away, and large ones lose. Every
// rank has a physical core before two share one, and ranks fill a NUMA node before the next, as `mpirun --bind-to core
// --map-by core` has it. mpirun and srun bind ranks themselves and are not interfered with.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "transports/bootstrap.h"

namespace gradrail {

enum class Bind : std::uint8_t { core, none };
[[nodiscard]] std::string_view to_string(Bind bind);

struct Placement {
  std::vector<int> cores;  // CPUs that this process could use before it was bound
  Bind bind = Bind::none;  // what is in force, whoever saw to it
  std::vector<int> cpus;   // by rank, where place_rank() gave each of this job's ranks one of its own
};

// The usable CPUs in the order in which ranks take them: the first thread of each core, by NUMA node, package and
// number; then the second threads in the same order. Read from sys/devices/system under `root`; a CPU of which nothing
// is known there is a core of its own, so without it the order is that of the numbers.
[[nodiscard]] std::vector<int> in_order_of_use(const std::filesystem::path& root, const std::vector<int>& usable);

// Binds the calling rank. `wanted`: nothing for core where there is a CPU for every rank and the system lets ranks be
// bound, else none. Errors: bad_usage where core is wanted and ranks are not the launcher's; the system's, if it
// refuses what was wanted.
[[nodiscard]] Result<Placement> place_rank(const Bootstrap& bootstrap, std::optional<Bind> wanted);

}  // namespace gradrail

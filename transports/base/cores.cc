#include "transports/base/cores.h"

#include <fmt/format.h>
#include <sched.h>

#include <cerrno>
#include <cstddef>
#include <fstream>
#include <string>

namespace gradrail {

std::vector<int> usable_cores() {
  // The kernel refuses sets smaller than its own; how large that is, only trying tells.
  for (std::size_t count = 1024; count <= (1u << 20); count *= 4) {
    cpu_set_t* const set = CPU_ALLOC(count);
    if (set == nullptr) break;
    const auto bytes = CPU_ALLOC_SIZE(count);
    CPU_ZERO_S(bytes, set);
    std::vector<int> cores;
    if (::sched_getaffinity(0, bytes, set) == 0) {
      for (std::size_t core = 0; core < count; ++core) {
        if (CPU_ISSET_S(core, bytes, set)) cores.push_back(static_cast<int>(core));
      }
    }
    CPU_FREE(set);
    if (!cores.empty()) return cores;
  }
  return {0};
}

Result<void> bind_to_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  if (::sched_setaffinity(0, sizeof set, &set) != 0)
    return fail_errno(fmt::format("this process cannot be bound to core {}", core), errno);
  return {};
}

void move_to_core(int core) {
  const auto cores = usable_cores();
  const auto bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(cores.back()) + 1);
  cpu_set_t* const all = CPU_ALLOC(static_cast<std::size_t>(cores.back()) + 1);
  if (all == nullptr) return;
  CPU_ZERO_S(bytes, all);
  for (const int one : cores) CPU_SET_S(static_cast<std::size_t>(one), bytes, all);
  if (bind_to_core(core)) (void)::sched_setaffinity(0, bytes, all);
  CPU_FREE(all);
}

std::uint64_t last_cache_bytes() {
  // Not sysconf(): it counts all caches of the processor, of which a virtual machine may have but one.
  std::uint64_t last = 0;
  for (int index = 0; index < 8; ++index) {
    std::ifstream file(fmt::format("/sys/devices/system/cpu/cpu{}/cache/index{}/size", usable_cores().front(), index));
    std::uint64_t size = 0;
    char unit = ' ';
    if (!(file >> size)) break;
    file >> unit;
    last = size << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
  }
  return last;
}

}  // namespace gradrail

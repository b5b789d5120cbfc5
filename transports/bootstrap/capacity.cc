#include "transports/bootstrap/capacity.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>

namespace gradrail {
namespace {

std::optional<std::uint64_t> read_number(const char* path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::uint64_t read_mem_available() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  std::uint64_t kib = 0;
  while (file >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    file.ignore(256, '\n');
  }
  return 0;
}

// The smaller of two limits where 0 means unknown.
std::uint64_t tighter(std::uint64_t a, std::uint64_t b) { return a == 0 ? b : b == 0 ? a : std::min(a, b); }

std::uint64_t left(std::optional<std::uint64_t> limit, std::optional<std::uint64_t> used) {
  if (!limit || !used) return 0;
  return std::max<std::uint64_t>(*limit > *used ? *limit - *used : 0, 1);
}

}  // namespace

Result<Capacity> read_capacity() {
  Capacity capacity;
  cpu_set_t cpus;
  capacity.cores = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus)
                                                                 : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  capacity.cores = std::max(capacity.cores, 1);
  if (const char* text = std::getenv("GRADRAIL_RANKS_PER_CORE"); text != nullptr) {
    const std::string_view view(text);
    const auto [end, failed] = std::from_chars(view.data(), view.data() + view.size(), capacity.ranks_per_core);
    if (failed != std::errc() || end != view.data() + view.size() || capacity.ranks_per_core < 1) {
      return fail(Code::bad_usage,
                  fmt::format("GRADRAIL_RANKS_PER_CORE is '{}', and must be a whole number above 0", view));
    }
  }
  // Files of a cgroup v2 as a container sees its own; absent elsewhere.
  capacity.free_memory_bytes = tighter(read_mem_available(), left(read_number("/sys/fs/cgroup/memory.max"),
                                                                  read_number("/sys/fs/cgroup/memory.current")));
  capacity.processes = left(read_number("/sys/fs/cgroup/pids.max"), read_number("/sys/fs/cgroup/pids.current"));
  // RLIMIT_NPROC counts all processes of the user, which only fork(2) knows cheaply; it is an upper bound all the same,
  // and does not bind the superuser.
  rlimit limit{};
  if (geteuid() != 0 && getrlimit(RLIMIT_NPROC, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
    capacity.processes = tighter(capacity.processes, limit.rlim_cur);
  }
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) capacity.descriptors = limit.rlim_cur;
  return capacity;
}

Result<void> bearable(int ranks, const Capacity& capacity) {
  if (ranks < 1)
    return fail(Code::bad_usage, fmt::format("{} ranks were asked for, and a job has at least one", ranks));
  const auto count = static_cast<std::uint64_t>(ranks);
  const auto refuse = [&](std::string_view why, std::uint64_t most) {
    return fail(Code::exhausted, fmt::format("{} ranks are more than this machine can bear: {}; ask for at most {}, or "
                                             "spread the job over hosts with mpirun or srun",
                                             ranks, why, most));
  };
  const auto by_cores =
      static_cast<std::uint64_t>(capacity.cores) * static_cast<std::uint64_t>(capacity.ranks_per_core);
  if (count > by_cores) {
    return refuse(fmt::format("it has {} core{} for {} ranks each (GRADRAIL_RANKS_PER_CORE changes that)",
                              capacity.cores, capacity.cores == 1 ? "" : "s", capacity.ranks_per_core),
                  by_cores);
  }
  if (capacity.free_memory_bytes > 0 && count > capacity.free_memory_bytes / capacity.memory_per_rank_bytes) {
    return refuse(fmt::format("{} MiB of memory are available, and a rank needs {} before it holds any data",
                              capacity.free_memory_bytes >> 20, capacity.memory_per_rank_bytes >> 20),
                  capacity.free_memory_bytes / capacity.memory_per_rank_bytes);
  }
  if (capacity.processes > 0 && count > capacity.processes) {
    return refuse("the limit of processes (ulimit -u, or the container's) is in the way", capacity.processes);
  }
  constexpr std::uint64_t k_spare_descriptors = 64;
  if (capacity.descriptors > 0 && count + k_spare_descriptors > capacity.descriptors) {
    return refuse("rank 0 needs one file descriptor for each (ulimit -n)",
                  capacity.descriptors > k_spare_descriptors ? capacity.descriptors - k_spare_descriptors : 0);
  }
  return {};
}

}  // namespace gradrail

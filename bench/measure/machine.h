// Describes this host for a results file, from an allow-list of what the system says about itself in /proc and /sys,
// and from hwloc for what those leave open. No environment, no addresses, no names of users. What cannot be read stays
// empty or 0: a container or an odd kernel must not stop a benchmark.
#pragma once

#include <filesystem>
#include <vector>

#include "bench/measure/files.h"
#include "results/record.h"

namespace gradrail {

// `cores` is what this process can use at once: its CPUs, or less if its control group's quota is smaller.
// `memory_bytes` likewise respects the control group's limit.
[[nodiscard]] Machine describe_machine();

// The same from the files below `root`, for a process that may run on `cpus`; asks neither hwloc nor the CPU.
[[nodiscard]] Machine describe_machine(const std::filesystem::path& root, const std::vector<int>& cpus);
[[nodiscard]] Machine describe_machine(const Files& files, const std::vector<int>& cpus);

}  // namespace gradrail

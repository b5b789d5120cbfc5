// One reader a subject (and one file a reader): files below a root in, plain facts out. They ask nothing else, never
// fail, and take whatever stands in the files for possible: what does not parse, or cannot be, is not known.
#pragma once

#include <string_view>

#include "bench/doctor/facts.h"
#include "bench/measure/files.h"

namespace gradrail::doctor {

[[nodiscard]] CpuFacts read_cpu(const Files& files);
[[nodiscard]] MemoryFacts read_memory(const Files& files);
[[nodiscard]] std::vector<RdmaDevice> read_rdma(const Files& files);
[[nodiscard]] std::vector<NetworkDevice> read_network(const Files& files);
[[nodiscard]] GpuFacts read_gpus(const Files& files);
[[nodiscard]] SoftwareFacts read_software(const Files& files);
[[nodiscard]] LimitFacts read_limits(const Files& files);
// `path`: of the device or a link to it.
[[nodiscard]] PciDevice read_pci(const Files& files, std::string_view path);

[[nodiscard]] Facts read_facts(const Files& files);

// A limit of proc/self/limits: its soft value, -1 for none.
[[nodiscard]] std::optional<std::int64_t> soft_limit(const Files& files, std::string_view name);
// Whether this process has a capability, by its number.
[[nodiscard]] bool capable(const Files& files, int capability);

}  // namespace gradrail::doctor

#include <fmt/format.h>

#include <algorithm>

#include "bench/doctor/readers.h"

namespace gradrail::doctor {

CpuFacts read_cpu(const Files& files) {
  CpuFacts out;
  out.online = numbers_in(files.line("sys/devices/system/cpu/online"));
  out.allowed = numbers_in(files.value("proc/self/status", "Cpus_allowed_list", ':'));
  for (const int cpu : out.online) {
    auto governor = files.line(fmt::format("sys/devices/system/cpu/cpu{}/cpufreq/scaling_governor", cpu));
    if (!governor.empty() && std::find(out.governors.begin(), out.governors.end(), governor) == out.governors.end())
      out.governors.push_back(std::move(governor));
  }
  out.driver = files.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_driver");
  const auto yes = [&](std::string_view path) -> std::optional<bool> {
    const auto value = number_in(files.line(path));
    return value ? std::optional(*value != 0) : std::nullopt;
  };
  out.smt = yes("sys/devices/system/cpu/smt/active");
  out.numa_balancing = yes("proc/sys/kernel/numa_balancing");
  return out;
}

}  // namespace gradrail::doctor

#include <fmt/format.h>

#include <charconv>

#include "bench/doctor/readers.h"

namespace gradrail::doctor {

namespace {

constexpr int k_may_trace = 19;  // CAP_SYS_PTRACE

// Of this process's control group and of those around it, the tightest. Version 2, then version 1.
template <class Take>
void for_each_group(const Files& files, Take take) {
  std::string group;
  for (const std::string& line : files.lines("proc/self/cgroup"))
    if (line.starts_with("0::/")) group = line.substr(4);
  while (true) {
    take(group.empty() ? std::string("sys/fs/cgroup") : "sys/fs/cgroup/" + group);
    if (group.empty()) return;
    const auto slash = group.rfind('/');
    group = slash == group.npos ? std::string() : group.substr(0, slash);
  }
}

}  // namespace

std::optional<std::int64_t> soft_limit(const Files& files, std::string_view name) {
  for (const std::string& line : files.lines("proc/self/limits")) {
    if (!line.starts_with(name)) continue;
    files.keep("proc/self/limits", line + "\n");
    const auto text = trimmed(std::string_view(line).substr(name.size()));
    if (text.starts_with("unlimited")) return -1;
    const auto value = number_in(text.substr(0, text.find(' ')));
    return value && *value >= 0 ? value : std::nullopt;
  }
  return std::nullopt;
}

bool capable(const Files& files, int capability) {
  const std::string text = files.value("proc/self/status", "CapEff", ':');
  std::uint64_t mask = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), mask, 16);
  return wrong == std::errc() && end == text.data() + text.size() && (mask >> capability & 1) != 0;
}

LimitFacts read_limits(const Files& files) {
  LimitFacts out;
  if (const auto scope = number_in(files.line("proc/sys/kernel/yama/ptrace_scope"));
      scope && *scope >= 0 && *scope <= 3)
    out.ptrace_scope = static_cast<int>(*scope);
  out.may_trace_all = capable(files, k_may_trace);
  out.open_files = soft_limit(files, "Max open files");
  const auto cpus = [&](std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
    if (!quota || !period || *quota <= 0 || *period <= 0) return;
    const double share = static_cast<double>(*quota) / static_cast<double>(*period);
    if (!out.quota_cpus || share < *out.quota_cpus) out.quota_cpus = share;
  };
  const auto memory = [&](std::optional<std::int64_t> bytes) {
    constexpr std::int64_t k_none = std::int64_t{1} << 60;  // version 1 writes a number near 2^63 for no limit
    if (bytes && *bytes > 0 && *bytes < k_none && (!out.memory_bytes || *bytes < *out.memory_bytes))
      out.memory_bytes = bytes;
  };
  for_each_group(files, [&](const std::string& folder) {
    const std::string text = files.line(folder + "/cpu.max");
    if (const auto space = text.find(' '); space != text.npos)
      cpus(number_in(text), number_in(std::string_view(text).substr(space + 1)));
    memory(number_in(files.line(folder + "/memory.max")));
  });
  cpus(number_in(files.line("sys/fs/cgroup/cpu/cpu.cfs_quota_us")),
       number_in(files.line("sys/fs/cgroup/cpu/cpu.cfs_period_us")));
  memory(number_in(files.line("sys/fs/cgroup/memory/memory.limit_in_bytes")));
  return out;
}

}  // namespace gradrail::doctor

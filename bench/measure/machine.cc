#include "bench/measure/machine.h"

#include <fmt/format.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if GRADRAIL_HAVE_HWLOC
#include <hwloc.h>
#endif

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "bench/measure/files.h"
#include "collectives/exec/kernels/reduce.h"
#include "transports/base/cores.h"

namespace gradrail {
namespace {

// Applies `f` to this process's control group and to those around it, each a folder below the root.
template <class F>
void for_each_cgroup(const Files& files, F f) {
  std::string group;
  for (const std::string& text : files.lines("proc/self/cgroup")) {
    if (!text.starts_with("0::/")) continue;  // version 2
    group = text.substr(4);
    files.keep("proc/self/cgroup", text + "\n");
  }
  for (;;) {
    f(group.empty() ? std::string("sys/fs/cgroup") : "sys/fs/cgroup/" + group);
    if (group.empty()) return;
    const auto slash = group.rfind('/');
    group = slash == group.npos ? std::string() : group.substr(0, slash);
  }
}

int cores(const Files& files, const std::vector<int>& cpus) {
  auto out = static_cast<std::int64_t>(cpus.size());
  const auto limit = [&](std::optional<std::int64_t> quota, std::optional<std::int64_t> period) {
    if (!quota || !period || *quota <= 0 || *period <= 0) return;  // version 1 writes -1 for no limit
    out = std::min(out, (*quota + *period - 1) / *period);
  };
  for_each_cgroup(files, [&](const std::string& folder) {
    const std::string text = files.line(folder + "/cpu.max");  // "max 100000" or "150000 100000"
    if (const auto space = text.find(' '); space != text.npos)
      limit(number_in(text), number_in(text.substr(space + 1)));
  });
  limit(number_in(files.line("sys/fs/cgroup/cpu/cpu.cfs_quota_us")),
        number_in(files.line("sys/fs/cgroup/cpu/cpu.cfs_period_us")));
  return static_cast<int>(out);
}

std::int64_t memory_bytes(const Files& files) {
  auto out = number_in(files.value("proc/meminfo", "MemTotal", ':')).value_or(0);
  const auto limit = [&](std::optional<std::int64_t> bytes) {
    if (bytes && *bytes > 0 && out > 0) out = std::min(out, *bytes);
  };
  for_each_cgroup(files, [&](const std::string& folder) { limit(number_in(files.line(folder + "/memory.max"))); });
  limit(number_in(files.line("sys/fs/cgroup/memory/memory.limit_in_bytes")));
  return out;
}

int sockets(const Files& files) {
  std::set<std::string> packages;
  for (const int cpu : files.numbered("sys/devices/system/cpu", "cpu")) {
    auto package = files.line(fmt::format("sys/devices/system/cpu/cpu{}/topology/physical_package_id", cpu));
    if (!package.empty() && package != "-1") packages.insert(std::move(package));
  }
  return static_cast<int>(packages.size());
}

void read_caches(const Files& files, int cpu, Machine& machine) {
  const std::string folder = fmt::format("sys/devices/system/cpu/cpu{}/cache", cpu);
  for (const int index : files.numbered(folder, "index")) {
    const std::string cache = fmt::format("{}/index{}/", folder, index);
    const auto level = number_in(files.line(cache + "level")).value_or(0);
    const auto bytes = number_in(files.line(cache + "size")).value_or(0);
    if (files.line(cache + "type") == "Instruction") continue;
    if (level == 1) machine.l1d_bytes = bytes;
    if (level == 2) machine.l2_bytes = bytes;
    if (level == 3) machine.l3_bytes = bytes;
  }
}

std::string os_name(const Files& files) {
  std::string name = files.value("etc/os-release", "PRETTY_NAME", '=');
  std::erase(name, '"');
  return name;
}

// "always [madvise] never": the one in brackets.
std::string chosen(std::string_view text) {
  const auto open = text.find('['), close = text.find(']');
  if (open == text.npos || close == text.npos || close < open) return {};
  return std::string(text.substr(open + 1, close - open - 1));
}

// "kvm", "docker", "kvm+docker" (a container in a virtual machine), "none"; empty if the CPU's flags cannot be read.
std::string virtualisation(const Files& files, bool ask_cpu) {
  const std::string flags = files.value("proc/cpuinfo", "flags", ':');
  const std::string vendor =
      files.line("sys/class/dmi/id/sys_vendor") + " " + files.line("sys/class/dmi/id/product_name");
  // What a firmware or a CPU calls the hypervisor, and what people call it.
  constexpr std::array<std::pair<std::string_view, std::string_view>, 12> k_names = {{{"KVM", "kvm"},
                                                                                      {"QEMU", "qemu"},
                                                                                      {"Amazon EC2", "kvm"},
                                                                                      {"Google", "kvm"},
                                                                                      {"VMware", "vmware"},
                                                                                      {"VirtualBox", "virtualbox"},
                                                                                      {"Virtual Machine", "hyperv"},
                                                                                      {"Microsoft Hv", "hyperv"},
                                                                                      {"Xen", "xen"},
                                                                                      {"TCGTCGTCGTCG", "qemu"},
                                                                                      {"bhyve", "bhyve"},
                                                                                      {"Parallels", "parallels"}}};
  const auto known = [&](std::string_view text) {
    for (const auto& [mark, name] : k_names) {
      if (text.find(mark) != text.npos) return std::string(name);
    }
    return std::string();
  };
  std::string machine;
  if ((" " + flags + " ").find(" hypervisor ") != std::string::npos) {
#if defined(__x86_64__)
    if (unsigned a = 0, b = 0, c = 0, d = 0; ask_cpu) {
      __cpuid(0x40000000, a, b, c, d);  // the hypervisor's own name
      std::array<char, 12> name{};
      std::memcpy(name.data(), &b, 4);
      std::memcpy(name.data() + 4, &c, 4);
      std::memcpy(name.data() + 8, &d, 4);
      machine = known({name.data(), name.size()});
    }
#else
    (void)ask_cpu;
#endif
    if (machine.empty()) machine = known(vendor);
    if (machine.empty()) machine = "vm";
  } else if (flags.empty()) {
    machine = known(vendor);  // not an x86 CPU: only the firmware can tell
  }
  std::string container;
  if (files.exists(".dockerenv")) container = "docker";
  if (files.exists("run/.containerenv")) container = "podman";
  if (auto named = files.line("run/systemd/container"); !named.empty()) container = std::move(named);
  if (machine.empty() && container.empty()) return flags.empty() ? "" : "none";
  return machine + (machine.empty() || container.empty() ? "" : "+") + container;
}

Machine read(const Files& files, const std::vector<int>& cpus, bool ask_cpu) {
  Machine out;
  out.hostname = files.line("proc/sys/kernel/hostname");
  out.cpu_model = files.value("proc/cpuinfo", "model name", ':');
  out.cores = cores(files, cpus);
  out.sockets = sockets(files);
  out.numa_nodes = static_cast<int>(files.numbered("sys/devices/system/node", "node").size());
  read_caches(files, cpus.empty() ? 0 : cpus.front(), out);
  out.memory_bytes = memory_bytes(files);
  out.kernel = files.line("proc/sys/kernel/osrelease");
  out.os = os_name(files);
  out.virtualisation = virtualisation(files, ask_cpu);
  out.governor = files.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  out.thp = chosen(files.line("sys/kernel/mm/transparent_hugepage/enabled"));
  out.simd = simd_target();
  return out;
}

#if GRADRAIL_HAVE_HWLOC
// Fills what the files left open: hwloc also asks the CPU itself.
void complete_with_hwloc(Machine& machine) {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) return;
  if (hwloc_topology_load(topology) == 0) {
    const auto fill = [](auto& field, auto value) {
      if (field == 0 && value > 0) field = value;
    };
    fill(machine.sockets, hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_PACKAGE));
    fill(machine.numa_nodes, hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE));
    const auto cache = [&](hwloc_obj_type_t type) {
      const hwloc_obj_t one = hwloc_get_obj_by_type(topology, type, 0);
      return one == nullptr ? std::int64_t{0} : static_cast<std::int64_t>(one->attr->cache.size);
    };
    fill(machine.l1d_bytes, cache(HWLOC_OBJ_L1CACHE));
    fill(machine.l2_bytes, cache(HWLOC_OBJ_L2CACHE));
    fill(machine.l3_bytes, cache(HWLOC_OBJ_L3CACHE));
  }
  hwloc_topology_destroy(topology);
}
#endif

}  // namespace

Machine describe_machine() {
  Machine out = read(Files(), usable_cores(), true);
#if GRADRAIL_HAVE_HWLOC
  complete_with_hwloc(out);
#endif
  return out;
}

Machine describe_machine(const std::filesystem::path& root, const std::vector<int>& cpus) {
  return describe_machine(Files(root), cpus);
}

Machine describe_machine(const Files& files, const std::vector<int>& cpus) { return read(files, cpus, false); }

}  // namespace gradrail

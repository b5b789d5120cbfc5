#include "bench/doctor/verdicts.h"

#include <fmt/format.h>

#include <algorithm>

#include "results/size.h"

namespace gradrail::doctor {

namespace {

constexpr std::int64_t k_mib = 1 << 20;
constexpr std::int64_t k_gib = 1 << 30;
constexpr std::int64_t k_small_shm = 64 * k_mib;  // what container engines give by default

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

bool is_virtual(const Machine& machine) {
  return !machine.virtualisation.empty() && machine.virtualisation != "none" && machine.virtualisation != "docker" &&
         machine.virtualisation != "podman";
}

Finding judge_governor(const Facts& facts) {
  const CpuFacts& cpu = facts.cpu;
  if (cpu.governors.empty())
    return {"cpu",
            "frequency governor",
            is_virtual(facts.machine) ? "the hypervisor's" : "not known",
            Verdict::unknown,
            {}};
  const bool fast = cpu.governors.size() == 1 && cpu.governors.front() == "performance";
  return {"cpu", "frequency governor",
          joined(cpu.governors) + (cpu.driver.empty() ? "" : fmt::format(" ({})", cpu.driver)),
          fast ? Verdict::ok : Verdict::attention,
          fast ? "" : "small messages are timed while CPUs change their pace; cpupower frequency-set -g performance"};
}

void judge_cpu(const Facts& facts, std::vector<Finding>& out) {
  const Machine& m = facts.machine;
  out.push_back(
      {"cpu",
       "processor",
       fmt::format("{}{}, {} socket{}, {} CPU{} online", m.cpu_model.empty() ? "unknown" : m.cpu_model,
                   facts.cpu.smt.value_or(false) ? " (two threads a core)" : "", m.sockets, m.sockets == 1 ? "" : "s",
                   facts.cpu.online.size(), facts.cpu.online.size() == 1 ? "" : "s"),
       m.cpu_model.empty() && facts.cpu.online.empty() ? Verdict::unknown : Verdict::ok,
       {}});
  if (!facts.cpu.allowed.empty() && facts.cpu.allowed.size() < facts.cpu.online.size())
    out.push_back({"cpu", "usable CPUs", fmt::format("{} of {}", facts.cpu.allowed.size(), facts.cpu.online.size()),
                   Verdict::attention,
                   "this process is bound to some of the CPUs (a cpuset, taskset or a batch system); start no more "
                   "ranks than these, or widen it"});
  out.push_back(judge_governor(facts));
  out.push_back(
      {"cpu", "NUMA nodes", fmt::format("{}", m.numa_nodes), m.numa_nodes == 0 ? Verdict::unknown : Verdict::ok, {}});
  if (m.numa_nodes > 1 && facts.cpu.numa_balancing.has_value())
    out.push_back({"cpu", "NUMA balancing", *facts.cpu.numa_balancing ? "on" : "off",
                   *facts.cpu.numa_balancing ? Verdict::attention : Verdict::ok,
                   *facts.cpu.numa_balancing ? "pages move between nodes while times are taken; "
                                               "sysctl kernel.numa_balancing=0"
                                             : ""});
}

Finding judge_locked(const Facts& facts) {
  const MemoryFacts& memory = facts.memory;
  Finding out{"memory", "locked memory", "not known", Verdict::unknown, {}};
  if (memory.locked_bytes) {
    out.value = *memory.locked_bytes < 0 ? "unlimited" : format_size(*memory.locked_bytes);
    out.verdict = Verdict::ok;
    if (*memory.locked_bytes >= 0 && memory.may_lock_all) {
      out.value += ", which CAP_IPC_LOCK overrides";
    } else if (*memory.locked_bytes >= 0 && *memory.locked_bytes < facts.machine.memory_bytes && !facts.rdma.empty()) {
      out.verdict = *memory.locked_bytes < k_gib ? Verdict::bad : Verdict::attention;
      out.advice = fmt::format(
          "registration of buffers beyond {} will fail; raise it: memlock unlimited in limits.conf, "
          "LimitMEMLOCK=infinity for a service (slurmd), --ulimit memlock=-1 for a container",
          out.value);
    }
  }
  return out;
}

void judge_memory(const Facts& facts, std::vector<Finding>& out) {
  const MemoryFacts& memory = facts.memory;
  const std::int64_t total = facts.machine.memory_bytes;
  out.push_back({"memory",
                 "usable",
                 total > 0 ? fmt::format("{:.1f} GB", static_cast<double>(total) * 1e-9) : "not known",
                 total > 0 ? Verdict::ok : Verdict::unknown,
                 {}});
  out.push_back(judge_locked(facts));
  Finding shm{"memory", "/dev/shm", "not known", Verdict::unknown, {}};
  if (memory.shm_bytes) {
    const bool bad = *memory.shm_bytes <= k_small_shm, small = *memory.shm_bytes < k_gib;
    shm = {"memory", "/dev/shm", fmt::format("{:.1f} GB", static_cast<double>(*memory.shm_bytes) * 1e-9),
           bad     ? Verdict::bad
           : small ? Verdict::attention
                   : Verdict::ok,
           small
               ? "NCCL, UCX and MPI keep their shared buffers there, and fail or crash when it is full; --shm-size=8g "
                 "for a container, mount -o remount,size=50% /dev/shm elsewhere (gradrail itself needs none)"
               : ""};
  }
  out.push_back(std::move(shm));
  const std::string& thp = facts.machine.thp;
  out.push_back({"memory", "transparent huge pages", thp.empty() ? "not known" : thp,
                 thp.empty()      ? Verdict::unknown
                 : thp == "never" ? Verdict::attention
                                  : Verdict::ok,
                 thp == "never"
                     ? "large buffers cost more page faults and more of the device's translation cache; echo "
                       "madvise > /sys/kernel/mm/transparent_hugepage/enabled"
                     : ""});
  out.push_back({"memory",
                 "reserved huge pages",
                 memory.huge_pages > 0 ? fmt::format("{} of {}", memory.huge_pages,
                                                     format_size(std::max<std::int64_t>(1, memory.huge_page_bytes)))
                                       : "none",
                 Verdict::ok,
                 {}});
}

void judge_network(const Facts& facts, std::vector<Finding>& out) {
  for (const NetworkDevice& device : facts.network) {
    const std::string rate = device.rate_gbits > 0 ? fmt::format("{:g} Gb/s", device.rate_gbits) : "rate not told";
    out.push_back({"network",
                   device.name,
                   device.up ? fmt::format("up, {}, MTU {}", rate, device.mtu) : std::string("down"),
                   device.up && device.rate_gbits <= 0 ? Verdict::unknown : Verdict::ok,
                   {}});
    if (!device.up || device.rate_gbits < 10) continue;
    if (device.mtu > 0 && device.mtu < 4000)
      out.push_back({"network", device.name + " MTU", fmt::format("{}", device.mtu), Verdict::attention,
                     "frames this small cost CPU at such a rate; set 9000 on it and on the switch, if all hosts can"});
    if (device.pci.width > 0) out.push_back(judge_link("network", device.name + " link", device.pci, false));
  }
}

void judge_software(const Facts& facts, std::vector<Finding>& out) {
  const Machine& m = facts.machine;
  out.push_back({"software",
                 "system",
                 fmt::format("{}, Linux {}{}", m.os.empty() ? "unknown" : m.os, m.kernel.empty() ? "?" : m.kernel,
                             m.virtualisation.empty() || m.virtualisation == "none" ? "" : ", on " + m.virtualisation),
                 m.kernel.empty() ? Verdict::unknown : Verdict::ok,
                 {}});
  for (const Library& library : facts.software.libraries)
    out.push_back({"software", library.name, library.version, Verdict::ok, {}});
  const auto have = [&](std::string_view name) {
    const auto& all = facts.software.libraries;
    return std::any_of(all.begin(), all.end(), [&](const Library& one) { return one.name == name; });
  };
  std::vector<std::string> absent;
  for (const char* name : {"UCX", "NCCL", "CUDA", "Open MPI", "MPICH"})
    if (!have(name)) absent.emplace_back(name);
  if (!absent.empty())
    out.push_back({"software", "not found", joined(absent), Verdict::unknown,
                   "looked for in the package database and the usual library folders only"});
}

void judge_limits(const Facts& facts, std::vector<Finding>& out) {
  const LimitFacts& limits = facts.limits;
  const auto online = static_cast<double>(facts.cpu.online.size());
  if (limits.quota_cpus && (online == 0 || *limits.quota_cpus < online))
    out.push_back({"limits", "CPU quota", fmt::format("{:g} of {:g} CPUs", *limits.quota_cpus, online),
                   Verdict::attention,
                   "ranks that wait actively use it up and are then stopped for the rest of each period; start no more "
                   "ranks than the quota, or lift cpu.max"});
  else
    out.push_back({"limits", "CPU quota", "none", Verdict::ok, {}});
  out.push_back(
      {"limits", "memory of the control group",
       limits.memory_bytes ? fmt::format("{:.1f} GB", static_cast<double>(*limits.memory_bytes) * 1e-9) : "no limit",
       limits.memory_bytes && *limits.memory_bytes < 4 * k_gib ? Verdict::attention : Verdict::ok,
       limits.memory_bytes && *limits.memory_bytes < 4 * k_gib
           ? "a rank that goes beyond is killed without a word; choose a smaller -e, or raise memory.max"
           : ""});
  if (limits.open_files && *limits.open_files >= 0)
    out.push_back({"limits", "open files", fmt::format("{}", *limits.open_files),
                   *limits.open_files < 4096 ? Verdict::attention : Verdict::ok,
                   *limits.open_files < 4096 ? "every pair of ranks needs some on each side; ulimit -n 65536" : ""});
  const bool refused = limits.ptrace_scope.value_or(0) > 0 && !limits.may_trace_all;
  out.push_back(
      {"limits", "ptrace scope",
       limits.ptrace_scope
           ? fmt::format("{}{}", *limits.ptrace_scope,
                         *limits.ptrace_scope > 0 && limits.may_trace_all ? ", which CAP_SYS_PTRACE overrides" : "")
           : "no Yama",
       refused ? Verdict::attention : Verdict::ok,
       refused ? "ranks may not read each other's memory, and UCX and MPI copy twice inside a host; sysctl "
                 "kernel.yama.ptrace_scope=0 (gradrail itself does without)"
               : ""});
}

}  // namespace

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok: return "ok";
    case Verdict::attention: return "attention";
    case Verdict::bad: return "bad";
    case Verdict::unknown: break;
  }
  return "unknown";
}

void judge_host(const Facts& facts, std::vector<Finding>& out) {
  judge_cpu(facts, out);
  judge_memory(facts, out);
  judge_network(facts, out);
  judge_software(facts, out);
  judge_limits(facts, out);
}

std::vector<Finding> judge(const Facts& facts) {
  std::vector<Finding> out;
  judge_host(facts, out);
  judge_rdma(facts, out);
  judge_gpus(facts, out);
  return out;
}

}  // namespace gradrail::doctor

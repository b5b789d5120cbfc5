#include "bench/measure/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <string>
#include <tuple>

#include "transports/base/cores.h"

namespace gradrail {

namespace {

namespace fs = std::filesystem;

std::string line_of(const fs::path& path) {
  std::string line;
  std::ifstream in(path);
  std::getline(in, line);
  return line;
}

// "0-3,8": what is not understood ends the list.
std::vector<int> numbers_in(std::string_view text) {
  constexpr int k_most = 1 << 20;
  std::vector<int> numbers;
  const auto number = [&](int& value) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), value);
    if (read.ec != std::errc() || value < 0 || value >= k_most) return false;
    text.remove_prefix(static_cast<std::size_t>(read.ptr - text.data()));
    return true;
  };
  while (true) {
    int first = 0;
    if (!number(first)) return numbers;
    int last = first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      if (!number(last)) return numbers;
    }
    for (int value = first; value <= last; ++value) numbers.push_back(value);
    if (!text.starts_with(',')) return numbers;
    text.remove_prefix(1);
  }
}

// CPUs without a node are of node 0.
std::map<int, int> nodes_by_cpu(const fs::path& system) {
  std::map<int, int> nodes;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(system / "node", error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("node")) continue;
    const auto number = numbers_in(std::string_view(name).substr(4));
    if (number.size() != 1) continue;
    for (const int cpu : numbers_in(line_of(entry.path() / "cpulist"))) nodes[cpu] = number.front();
  }
  return nodes;
}

// The usable CPUs of one physical core.
std::vector<int> core_of(const fs::path& system, int cpu, const std::vector<int>& usable) {
  auto siblings = numbers_in(line_of(system / fmt::format("cpu/cpu{}/topology/thread_siblings_list", cpu)));
  std::erase_if(siblings, [&](int other) { return !std::binary_search(usable.begin(), usable.end(), other); });
  std::sort(siblings.begin(), siblings.end());
  if (!std::binary_search(siblings.begin(), siblings.end(), cpu)) return {cpu};
  return siblings;
}

// Whether everything this process may use is one core.
Bind as_found(const std::vector<int>& usable) {
  return core_of("/sys/devices/system", usable.front(), usable) == usable ? Bind::core : Bind::none;
}

}  // namespace

std::string_view to_string(Bind bind) { return bind == Bind::core ? "core" : "none"; }

std::vector<int> in_order_of_use(const fs::path& root, const std::vector<int>& usable) {
  const fs::path system = root / "sys/devices/system";
  auto nodes = nodes_by_cpu(system);
  using Rank = std::tuple<std::ptrdiff_t, int, int, int, int>;  // thread, node, package, the core's first CPU, CPU
  std::vector<Rank> order;
  for (const int cpu : usable) {
    const auto core = core_of(system, cpu, usable);
    const auto package = numbers_in(line_of(system / fmt::format("cpu/cpu{}/topology/physical_package_id", cpu)));
    order.emplace_back(std::find(core.begin(), core.end(), cpu) - core.begin(), nodes[cpu],
                       package.empty() ? 0 : package.front(), core.front(), cpu);
  }
  std::sort(order.begin(), order.end());
  std::vector<int> cpus;
  for (const Rank& rank : order) cpus.push_back(std::get<4>(rank));
  return cpus;
}

Result<Placement> place_rank(const Bootstrap& bootstrap, std::optional<Bind> wanted) {
  Placement placement;
  placement.cores = usable_cores();
  const auto ranks = static_cast<std::size_t>(bootstrap.ranks());
  const bool ours = bootstrap.origin() == "launcher";  // and all on one host
  if (wanted == Bind::core && !ours)
    return fail(Code::bad_usage, fmt::format("--bind core is for ranks that gradrail starts itself; these were started "
                                             "by {}, which binds them",
                                             bootstrap.origin()));
  if (wanted == Bind::core && ranks > placement.cores.size())
    return fail(Code::bad_usage,
                fmt::format("--bind core needs a CPU for each of {} ranks, and {} may be used; leave it "
                            "out or start fewer (-n)",
                            ranks, placement.cores.size()));
  placement.bind = as_found(placement.cores);
  if (!ours || wanted == Bind::none || ranks > placement.cores.size()) return placement;
  placement.cpus = in_order_of_use("/", placement.cores);
  placement.cpus.resize(ranks);
  GRADRAIL_TRY(bind_to_core(placement.cpus[static_cast<std::size_t>(bootstrap.rank())]));
  placement.bind = Bind::core;
  return placement;
}

}  // namespace gradrail

#include "bench/measure/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>

#include "bench/measure/files.h"
#include "transports/base/cores.h"

namespace gradrail {

namespace {

constexpr std::string_view k_system = "sys/devices/system";

// CPUs without a node are of node 0.
std::map<int, int> nodes_by_cpu(const Files& files) {
  std::map<int, int> nodes;
  const std::string folder = fmt::format("{}/node", k_system);
  for (const int node : files.numbered(folder, "node"))
    for (const int cpu : numbers_in(files.line(fmt::format("{}/node{}/cpulist", folder, node)))) nodes[cpu] = node;
  return nodes;
}

// The usable CPUs of one physical core.
std::vector<int> core_of(const Files& files, int cpu, const std::vector<int>& usable) {
  auto siblings = numbers_in(files.line(fmt::format("{}/cpu/cpu{}/topology/thread_siblings_list", k_system, cpu)));
  std::erase_if(siblings, [&](int other) { return !std::binary_search(usable.begin(), usable.end(), other); });
  std::sort(siblings.begin(), siblings.end());
  if (!std::binary_search(siblings.begin(), siblings.end(), cpu)) return {cpu};
  return siblings;
}

// Whether everything this process may use is one core.
Bind as_found(const std::vector<int>& usable) {
  return core_of(Files(), usable.front(), usable) == usable ? Bind::core : Bind::none;
}

}  // namespace

std::string_view to_string(Bind bind) { return bind == Bind::core ? "core" : "none"; }

std::vector<int> in_order_of_use(const std::filesystem::path& root, const std::vector<int>& usable) {
  const Files files(root);
  auto nodes = nodes_by_cpu(files);
  using Rank = std::tuple<std::ptrdiff_t, int, int, int, int>;  // thread, node, package, the core's first CPU, CPU
  std::vector<Rank> order;
  for (const int cpu : usable) {
    const auto core = core_of(files, cpu, usable);
    const auto package =
        numbers_in(files.line(fmt::format("{}/cpu/cpu{}/topology/physical_package_id", k_system, cpu)));
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
  placement.bind = as_found(placement.cores);
  const bool enough = ranks <= placement.cores.size();
  if (!ours || wanted.value_or(enough ? Bind::core : Bind::none) == Bind::none) return placement;
  auto cpus = in_order_of_use("/", placement.cores);
  if (auto bound = bind_to_core(cpus[static_cast<std::size_t>(bootstrap.rank()) % cpus.size()]); !bound) {
    if (!wanted) return placement;
    return tl::unexpected<Error>(std::move(bound).error().in("--bind core"));
  }
  placement.bind = Bind::core;
  if (!enough) return placement;
  cpus.resize(ranks);
  placement.cpus = std::move(cpus);
  return placement;
}

}  // namespace gradrail

#include "bench/report/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "bench/report/choose.h"
#include "bench/report/figures.h"
#include "results/size.h"

namespace gradrail {
namespace {

std::string margin_of(const SizeRange& range) {
  if (range.runners_up.empty()) return "no rival";
  if (range.confident_sizes == 0) return fmt::format("tie with {}", fmt::join(range.runners_up, ", "));
  const std::string low = format_factor(range.least_margin);
  const std::string high = format_factor(range.largest_margin);
  return fmt::format("{} over {}", low == high ? low : low + " - " + high, fmt::join(range.runners_up, ", "));
}

std::string confidence_of(const SizeRange& range) {
  if (range.runners_up.empty()) return "";
  if (range.confident_sizes == range.sizes) return "confident";
  if (range.confident_sizes == 0) return "the simpler is kept";
  return fmt::format("confident at {} of {} sizes, else a tie and the simpler is kept", range.confident_sizes,
                     range.sizes);
}

std::string best_by_size(std::span<const Choice> choices) {
  struct Row {
    const SizeRange* range;
    std::string sizes, margin;
  };
  const std::vector<SizeRange> ranges = merge_sizes(choices);
  std::vector<Row> rows;
  std::size_t sizes_width = 0, algorithm_width = 0, margin_width = 0;
  for (const SizeRange& range : ranges) {
    const std::string low = format_size(range.first.bytes);
    rows.push_back({&range, range.sizes == 1 ? low : fmt::format("{} - {}", low, format_size(range.last_bytes)),
                    margin_of(range)});
    sizes_width = std::max(sizes_width, rows.back().sizes.size());
    algorithm_width = std::max(algorithm_width, range.first.algorithm.size());
    margin_width = std::max(margin_width, rows.back().margin.size());
  }

  std::string out;
  std::string heading_before;
  for (const Row& row : rows) {
    const Choice& c = row.range->first;
    const std::string reduction = c.op.empty() || c.op == "sum" ? "" : " " + c.op;
    const std::string heading = fmt::format("# Best algorithm by size: {}{} of {}, {} ranks as {}, {}\n", c.collective,
                                            reduction, c.type, c.ranks, c.topology, c.transport);
    if (heading != heading_before) out += heading;
    heading_before = heading;
    std::string text = fmt::format("#   {:<{}}  {:<{}}  {:<{}}  {}", row.sizes, sizes_width, c.algorithm,
                                   algorithm_width, row.margin, margin_width, confidence_of(*row.range));
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + '\n';
  }
  return out;
}

bool same_case(const Point& a, const Point& b) {
  const auto key = [](const Point& p) {
    return std::tie(p.collective, p.transport, p.topology, p.ranks, p.type, p.op, p.bytes);
  };
  return key(a) == key(b);
}

// The fastest of our own points of the case, or null.
const Point* fastest(std::span<const Point> points, const Point& of) {
  const Point* best = nullptr;
  for (const Point& point : points)
    if (point.library == "gradrail" && !is_encoded(point) && point.time_us && same_case(point, of) &&
        (!best || point.time_us->median < best->time_us->median))
      best = &point;
  return best;
}

std::string case_name(const Point& point) {
  return fmt::format("{} {} {}, {}", point.collective, point.transport, point.topology, format_size(point.bytes));
}

constexpr std::int64_t k_least_bound_bytes = 64 << 10;

bool in_one_host(const Point& point) { return point.transport == "shm" && point.topology.starts_with("1x"); }

// The smallest size of each case in one host, held against the way of one cache line.
std::string against_latency(std::span<const Point> points, const Limits& limits) {
  std::string out;
  std::vector<const Point*> smallest;
  for (const Point& point : points) {
    if (!point.time_us || !in_one_host(point) || point.ranks < 2) continue;
    const auto same = std::find_if(smallest.begin(), smallest.end(), [&](const Point* other) {
      return std::tie(other->collective, other->topology, other->type) ==
             std::tie(point.collective, point.topology, point.type);
    });
    if (same == smallest.end())
      smallest.push_back(&point);
    else if (point.bytes < (*same)->bytes)
      *same = &point;
  }
  for (const Point* point : smallest)
    if (const Point* best = fastest(points, *point)) {
      // Trips of another phase of the machine are no measure; nor are trips between ranks that had to wait for a core.
      const double trips = best->time_us->median * 1e3 / limits.core_to_core_ns;
      const std::string compared =
          best->phase != limits.phase
              ? fmt::format("measured while the machine was in another phase ({}), so not comparable", best->phase)
          : trips < 1 ? "less than one such trip: other processes held the cores while trips were measured"
                      : fmt::format("the time of {:.1f} such trips", trips);
      out += fmt::format("#   {}: {} took {}, {}.\n", case_name(*best), best->algorithm,
                         format_duration(best->time_us->median), compared);
    }
  return out;
}

}  // namespace

std::optional<Bound> shared_memory_bound(const Point& point, const Limits& limits, std::int64_t cache_bytes) {
  const double traffic_bytes = 2.0 * point.ranks * static_cast<double>(point.bytes);
  if (point.collective != "allreduce" || !in_one_host(point) || point.ranks < 2 || limits.memory_gbs <= 0 ||
      point.bytes < k_least_bound_bytes)
    return std::nullopt;
  return Bound{
      point, traffic_bytes / (limits.memory_gbs * 1e3),
      fmt::format("all {} ranks' buffers are read once and written once, {:.3g} GB", point.ranks, traffic_bytes / 1e9),
      traffic_bytes <= static_cast<double>(cache_bytes)};
}

std::string summary(std::span<const Choice> choices, std::span<const Point> points, const Limits& limits,
                    std::span<const Bound> bounds) {
  std::string out = best_by_size(choices);
  std::string machine;
  if (limits.core_to_core_ns > 0) {
    machine += fmt::format("#   A cache line goes from core to core in {:.0f} ns.\n", limits.core_to_core_ns);
    machine += against_latency(points, limits);
  }
  if (limits.memory_gbs > 0)
    machine +=
        fmt::format("#   Memory moves {} GB/s, bytes read and written together.\n", format_gbs(limits.memory_gbs));
  for (const Bound& bound : bounds) {
    machine += fmt::format("#   {}: {} ({})", case_name(bound.of),
                           bound.in_cache ? format_duration(bound.least_us) + " if caches held none of it"
                                          : "no less than " + format_duration(bound.least_us),
                           bound.because);
    if (const Point* best = fastest(points, bound.of)) {
      const double reached = bound.least_us / best->time_us->median;
      machine += fmt::format("; {} took {}, ", best->algorithm, format_duration(best->time_us->median));
      // A limit that was beaten was measured in another phase, or part of the data stayed in cache: say so, do not hide
      // it.
      const std::string percent = fmt::format("{:.0f} % of ", 100 * reached);
      machine += bound.in_cache ? percent + "the memory's bandwidth"
                 : reached <= 1 ? percent + "what is possible"
                                : percent + "it: the bandwidth was another when it was measured, or caches helped";
    }
    machine += ".\n";
  }
  if (!machine.empty())
    out += fmt::format("# What the machine allows{}\n",
                       limits.phase.empty() ? "" : fmt::format(" (phase {})", limits.phase)) +
           machine;
  return out;
}

}  // namespace gradrail

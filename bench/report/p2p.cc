#include "bench/report/p2p.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "bench/report/figures.h"
#include "results/size.h"

namespace gradrail {

namespace {

bool is_latency(const P2pPoint& point) { return point.test == "latency"; }
bool both_ways(const P2pPoint& point) { return is_latency(point) || point.test == "bidirectional"; }
bool is_outlier(const P2pPoint& point) { return point.z_score && std::abs(*point.z_score) > k_outlier_score; }

// Small messages over slow links are far below what three decimals show.
std::string gbs(double value) { return value > 0 && value < 0.0995 ? fmt::format("{:.3g}", value) : format_gbs(value); }

std::string figure_of(const P2pPoint& point) {
  if (is_latency(point)) return format_us(point.time_us->median) + " us";
  if (point.test == "message-rate") return fmt::format("{:.3f} Mpps", point.message_mpps);
  return gbs(point.bandwidth_gbs) + " GB/s";
}

double value_of(const P2pPoint& point) {
  if (is_latency(point)) return point.time_us->median;
  return point.test == "message-rate" ? point.message_mpps : point.bandwidth_gbs;
}

std::string_view unit_of(const P2pPoint& point) {
  return is_latency(point) ? "us" : point.test == "message-rate" ? "million messages a second" : "GB/s";
}

std::string start_of_row(const P2pPoint& point) {
  return fmt::format("{:>12} {:>4} -> {:<4} {:<11}", point.bytes, point.from, point.to, way_of(point));
}

// How messages went, and how GPUs were reached; of the second's only another way.
std::string path_of(const P2pPoint& point) {
  const auto way = [](const std::string& path) { return path.substr(0, path.find(" (")); };
  std::string out = point.path;
  if (point.memory_path) out += fmt::format(", {} {}", point.memory, *point.memory_path);
  if (point.memory_path && point.to_memory_path && way(*point.memory_path) != way(*point.to_memory_path))
    out += fmt::format("; the other {}", *point.to_memory_path);
  return out;
}

}  // namespace

std::string p2p_header(const std::string& test) {
  const std::string start = fmt::format("#{:>11} {:>12} {:<11}", "bytes", "from -> to  ", "over");
  if (test == "latency")
    return fmt::format(
        "# latency: half the round trip (of a read, the whole), us\n{} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} "
        "{:>9} {:>20} {}\n",
        start, "iterations", "t_min", "t_max", "t_typical", "t_avg", "t_stdev", "99%", "99.9%", "95% of typical",
        "path");
  return fmt::format(
      "# {}: {}\n{} {:>10} {:>5} {:>9} {:>9} {:>9} {:>9} {:>20} {}\n", test,
      test == "bidirectional" ? "both directions together; median and best of rounds" : "median and best of rounds",
      start, "iterations", "depth", "best GB/s", "GB/s", "Gb/s", "Mpps", "95% of GB/s", "path");
}

std::string p2p_row(const P2pPoint& point) {
  const std::string start = start_of_row(point);
  if (!point.time_us) return fmt::format("{} {}\n", start, point.error.value_or("not measured"));
  const Timing& t = *point.time_us;
  if (is_latency(point))
    return fmt::format("{} {:>10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>20} {}\n", start, point.iterations,
                       format_us(t.min), format_us(t.max), format_us(t.median), format_us(point.average_us),
                       format_us(point.stdev_us), format_us(t.p99), format_us(point.p999_us),
                       fmt::format("{} .. {}", format_us(t.ci[0]), format_us(t.ci[1])), path_of(point));
  const auto at = [&](double us) { return us > 0 ? point.bandwidth_gbs * t.median / us : 0; };
  return fmt::format("{} {:>10} {:>5} {:>9} {:>9} {:>9.4g} {:>9.4g} {:>20} {}\n", start, point.iterations, point.depth,
                     gbs(at(t.min)), gbs(point.bandwidth_gbs), point.bandwidth_gbs * 8, point.message_mpps,
                     fmt::format("{} .. {}", gbs(at(t.ci[1])), gbs(at(t.ci[0]))), path_of(point));
}

std::vector<HeatPanel> heat_panels(std::span<const P2pPoint> points, int ranks) {
  std::vector<HeatPanel> out;
  std::vector<std::string> ways;
  const auto n = static_cast<std::size_t>(ranks);
  for (const P2pPoint& point : points) {
    const auto known = std::find(ways.begin(), ways.end(), way_of(point));
    const auto at = static_cast<std::size_t>(known - ways.begin());
    if (known == ways.end()) {
      ways.push_back(way_of(point));
      HeatPanel panel;
      panel.heading =
          fmt::format("{} of {} over {}, {}", point.test, format_size(point.bytes), way_of(point), unit_of(point));
      panel.ranks = ranks;
      panel.cells.resize(n * n);
      panel.more_is_better = !is_latency(point);
      out.push_back(std::move(panel));
    }
    if (!point.time_us || point.from < 0 || point.to < 0 || point.from >= ranks || point.to >= ranks) continue;
    const auto put = [&](int from, int to) {
      out[at].cells[static_cast<std::size_t>(from) * n + static_cast<std::size_t>(to)] = {
          value_of(point), is_outlier(point),
          fmt::format("rank {} ({}) to {} ({}): {}", point.from, point.from_host, point.to, point.to_host,
                      figure_of(point))};
    };
    put(point.from, point.to);
    if (both_ways(point)) put(point.to, point.from);
  }
  return out;
}

std::string matrix_text(const HeatPanel& panel) {
  std::string out = fmt::format("# {}; from the rank of the row to that of the column\n#     ", panel.heading);
  for (int to = 0; to < panel.ranks; ++to) out += fmt::format(" {:>9}", to);
  out += '\n';
  for (int from = 0; from < panel.ranks; ++from) {
    out += fmt::format("{:>6}", from);
    for (int to = 0; to < panel.ranks; ++to) {
      const auto& cell = panel.cells[static_cast<std::size_t>(from * panel.ranks + to)];
      out += cell.value ? fmt::format(" {:>8}{}", format_us(*cell.value), cell.outlier ? '!' : ' ')
                        : fmt::format(" {:>8} ", "-");
    }
    out += '\n';
  }
  return out;
}

std::string outliers_text(std::span<const P2pPoint> points) {
  struct OfRank {
    int pairs = 0;
    int outliers = 0;
  };
  std::map<std::pair<std::string, int>, OfRank> ranks;
  for (const P2pPoint& point : points) {
    if (!point.z_score) continue;
    for (const int rank : {point.from, point.to}) {
      OfRank& its = ranks[{way_of(point), rank}];
      ++its.pairs;
      its.outliers += is_outlier(point) && *point.z_score > 0 ? 1 : 0;
    }
  }
  std::string out;
  const auto slow_rank = [&](const std::string& way, int rank) {
    const OfRank& its = ranks[{way, rank}];
    return its.outliers > 1 && 2 * its.outliers > its.pairs;
  };
  for (const auto& [key, its] : ranks)
    if (slow_rank(key.first, key.second))
      out += fmt::format("# outlier: rank {} over {}: slow in {} of its {} pairs\n", key.second, key.first,
                         its.outliers, its.pairs);
  for (const P2pPoint& point : points) {
    if (!is_outlier(point)) continue;
    const bool slow = *point.z_score > 0;
    if (slow && (slow_rank(way_of(point), point.from) || slow_rank(way_of(point), point.to))) continue;
    out += fmt::format(
        "# outlier: rank {} on {} {} {} on {} over {}: {}, {:.1f} robust deviations {} than the median pair\n",
        point.from, point.from_host, both_ways(point) ? "and" : "to", point.to, point.to_host, way_of(point),
        figure_of(point), std::abs(*point.z_score), slow ? "slower" : "faster");
  }
  return out;
}

}  // namespace gradrail

#include "bench/report/against.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "bench/measure/statistics.h"
#include "bench/report/figures.h"
#include "results/size.h"

namespace gradrail {

namespace {

bool is_timed(const Point& point) {
  return point.time_us && point.time_us->median > 0 && !point.samples_us.empty() && point.wrong.value_or(0) == 0 &&
         !point.error;
}

// What a peer's point must share with ours; its buffers are always plain.
auto rival_key(const Point& point) {
  return std::tie(point.collective, point.transport, point.topology, point.ranks, point.type, point.op, point.root,
                  point.in_place, point.cache, point.bytes, point.phase);
}

auto case_key(const Comparison& c) {
  return std::tie(c.collective, c.transport, c.topology, c.ranks, c.type, c.op, c.in_place, c.buffers, c.cache);
}

}  // namespace

std::vector<Comparison> compare_with_peers(std::span<const Point> points) {
  std::vector<Comparison> comparisons;
  for (const Point& ours : points) {
    if (ours.library != "gradrail" || is_encoded(ours) || ours.requested_codec || ours.requested != "auto" ||
        !is_timed(ours))
      continue;
    const Point* best = nullptr;
    for (const Point& peer : points)
      if (peer.library != "gradrail" && is_timed(peer) && rival_key(peer) == rival_key(ours) &&
          (best == nullptr || peer.time_us->median < best->time_us->median))
        best = &peer;
    if (best == nullptr) continue;
    const Ratio ratio = ratio_of_medians(best->samples_us, ours.samples_us);
    Comparison comparison;
    comparison.collective = ours.collective;
    comparison.transport = ours.transport;
    comparison.topology = ours.topology;
    comparison.ranks = ours.ranks;
    comparison.type = ours.type;
    comparison.op = ours.op;
    comparison.bytes = ours.bytes;
    comparison.in_place = ours.in_place;
    comparison.buffers = ours.buffers;
    comparison.cache = ours.cache;
    comparison.phase = ours.phase;
    comparison.algorithm = ours.algorithm;
    comparison.ours_us = ours.time_us->median;
    comparison.peer = best->library;
    comparison.configuration = best->algorithm;
    comparison.peer_us = best->time_us->median;
    comparison.ratio = ratio.value;
    comparison.ci = {ratio.interval.low, ratio.interval.high};
    comparisons.push_back(std::move(comparison));
  }
  return comparisons;
}

Standing standing_of(const Comparison& comparison) {
  if (comparison.ci[0] > 1) return Standing::faster;
  return comparison.ci[1] < 1 ? Standing::slower : Standing::even;
}

Score score_of(std::span<const Comparison> comparisons) {
  Score score;
  score.least = comparisons.front().ratio;
  score.least_bytes = comparisons.front().bytes;
  double logarithms = 0;
  for (const Comparison& comparison : comparisons) {
    logarithms += std::log(comparison.ratio);
    score.slower += standing_of(comparison) == Standing::slower;
    if (comparison.ratio >= score.least) continue;
    score.least = comparison.ratio;
    score.least_bytes = comparison.bytes;
  }
  score.sizes = comparisons.size();
  score.geometric_mean = std::exp(logarithms / static_cast<double>(comparisons.size()));
  return score;
}

std::vector<std::vector<Comparison>> by_case(std::span<const Comparison> comparisons) {
  std::vector<std::vector<Comparison>> cases;
  for (const Comparison& comparison : comparisons) {
    auto at = std::find_if(cases.begin(), cases.end(), [&](const std::vector<Comparison>& known) {
      return case_key(known.front()) == case_key(comparison);
    });
    if (at == cases.end()) at = cases.insert(cases.end(), std::vector<Comparison>());
    at->push_back(comparison);
  }
  for (auto& one : cases)
    std::stable_sort(one.begin(), one.end(),
                     [](const Comparison& a, const Comparison& b) { return a.bytes < b.bytes; });
  return cases;
}

std::string case_name(const Comparison& c) {
  return fmt::format("{} of {}{}{}, {} ranks, {}, {} buffers{}{}", c.collective, c.type, c.op.empty() ? "" : " ", c.op,
                     c.ranks, c.transport, c.buffers, c.cache == "hot" ? "" : ", " + c.cache,
                     c.in_place ? ", in place" : "");
}

std::string against_table(std::span<const Comparison> comparisons) {
  std::string out;
  for (const auto& sizes : by_case(comparisons)) {
    out += fmt::format("# Against the best peer: {}\n", case_name(sizes.front()));
    out += fmt::format("#   {:>8} {:>10}  {:<22} {:>10}  {:<30} {:>7} {:>16}\n", "size", "ours (us)", "auto chose",
                       "peer (us)", "best peer", "ratio", "95% interval");
    for (const Comparison& c : sizes) {
      const Standing standing = standing_of(c);
      out += fmt::format("#   {:>8} {:>10}  {:<22} {:>10}  {:<30} {:>7} {:>16}{}{}\n", format_size(c.bytes),
                         format_us(c.ours_us), c.algorithm, format_us(c.peer_us), c.peer + ":" + c.configuration,
                         format_factor(c.ratio), fmt::format("{:.2f} .. {:.2f}", c.ci[0], c.ci[1]),
                         standing == Standing::slower ? "  SLOWER"
                         : standing == Standing::even ? "  even"
                                                      : "",
                         c.phase == "unsettled" ? "  (the machine changed meanwhile)" : "");
    }
    const Score score = score_of(sizes);
    out += fmt::format("#   geometric mean {} over {} size{}; least {} at {}; ours is slower at {}\n",
                       format_factor(score.geometric_mean), score.sizes, score.sizes == 1 ? "" : "s",
                       format_factor(score.least), format_size(score.least_bytes),
                       score.slower == 0 ? "none" : fmt::format("{}", score.slower));
  }
  return out;
}

}  // namespace gradrail

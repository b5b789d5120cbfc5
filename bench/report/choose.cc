#include "bench/report/choose.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "bench/measure/statistics.h"

namespace gradrail {
namespace {

auto case_of(const Point& point) {
  return std::tie(point.collective, point.transport, point.topology, point.ranks, point.type, point.op, point.root,
                  point.in_place, point.buffers, point.cache, point.bytes);
}

bool competes(const Point& point) {
  return point.library == "gradrail" && !point.requested && !is_encoded(point) && point.time_us &&
         point.time_us->median > 0 && point.wrong.value_or(0) == 0 && !point.error;
}

bool told_apart(const Point& a, const Point& b) { return a.phase == b.phase && parted(*a.time_us, *b.time_us); }

// Indices into the points; rivals of one case, with the simplest first.
using Rivals = std::vector<std::size_t>;

struct Decision {
  Choice choice;
  std::size_t winner;
};

std::vector<Rivals> group(std::span<const Point> points, std::span<const std::string> simplest_first) {
  std::vector<Rivals> groups;
  std::map<decltype(case_of(points[0])), std::size_t> known;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!competes(points[i])) continue;
    const auto [at, is_new] = known.try_emplace(case_of(points[i]), groups.size());
    if (is_new) groups.emplace_back();
    groups[at->second].push_back(i);
  }
  const auto place = [&](std::size_t i) {
    return std::find(simplest_first.begin(), simplest_first.end(), points[i].algorithm) - simplest_first.begin();
  };
  for (Rivals& rivals : groups)
    std::stable_sort(rivals.begin(), rivals.end(), [&](std::size_t a, std::size_t b) { return place(a) < place(b); });
  return groups;
}

Decision decide(std::span<const Point> points, const Rivals& rivals) {
  const auto faster = [&](std::size_t a, std::size_t b) {
    return points[a].time_us->median < points[b].time_us->median;
  };
  const std::size_t fastest = *std::min_element(rivals.begin(), rivals.end(), faster);
  const auto equals_fastest = [&](std::size_t i) { return i == fastest || !told_apart(points[i], points[fastest]); };
  // rivals has the simplest first, so this is the simplest of those that are as good as the fastest.
  const std::size_t winner = *std::find_if(rivals.begin(), rivals.end(), equals_fastest);

  const Point& won = points[winner];
  Decision decision{{.collective = won.collective,
                     .transport = won.transport,
                     .topology = won.topology,
                     .ranks = won.ranks,
                     .type = won.type,
                     .op = won.op,
                     .bytes = won.bytes,
                     .algorithm = won.algorithm,
                     .margin = 1,
                     .confident = false,
                     .runner_up = {}},
                    winner};
  Rivals others;
  for (const std::size_t i : rivals)
    if (points[i].algorithm != won.algorithm) others.push_back(i);
  if (others.empty()) return decision;
  const Point& second = points[*std::min_element(others.begin(), others.end(), faster)];
  decision.choice.runner_up = second.algorithm;
  decision.choice.margin = second.time_us->median / won.time_us->median;
  decision.choice.confident =
      std::none_of(others.begin(), others.end(), [&](std::size_t i) { return equals_fastest(i); });
  return decision;
}

}  // namespace

std::vector<Choice> choose(std::span<const Point> points, std::span<const std::string> simplest_first) {
  std::vector<Choice> choices;
  for (const Rivals& rivals : group(points, simplest_first)) choices.push_back(decide(points, rivals).choice);
  return choices;
}

std::vector<Mark> marks(std::span<const Point> points, std::span<const std::string> simplest_first) {
  std::vector<Mark> out(points.size(), Mark::none);
  for (const Rivals& rivals : group(points, simplest_first)) {
    const Decision decision = decide(points, rivals);
    if (!decision.choice.runner_up.empty()) out[decision.winner] = decision.choice.confident ? Mark::winner : Mark::tie;
  }
  return out;
}

std::vector<SizeRange> merge_sizes(std::span<const Choice> choices) {
  const auto case_of_choice = [](const Choice& c) {
    return std::tie(c.collective, c.transport, c.topology, c.ranks, c.type, c.op);
  };
  // Cases stay in their order of appearance; within one, sizes ascend.
  std::vector<Choice> sorted(choices.begin(), choices.end());
  std::map<decltype(case_of_choice(choices[0])), std::size_t> place;
  for (const Choice& choice : choices) place.try_emplace(case_of_choice(choice), place.size());
  std::stable_sort(sorted.begin(), sorted.end(), [&](const Choice& a, const Choice& b) {
    return std::pair(place.at(case_of_choice(a)), a.bytes) < std::pair(place.at(case_of_choice(b)), b.bytes);
  });

  std::vector<SizeRange> ranges;
  for (const Choice& choice : sorted) {
    const bool goes_on = !ranges.empty() && case_of_choice(ranges.back().first) == case_of_choice(choice) &&
                         ranges.back().first.algorithm == choice.algorithm;
    if (!goes_on) ranges.push_back({.first = choice, .least_margin = choice.margin, .largest_margin = choice.margin});
    SizeRange& range = ranges.back();
    range.last_bytes = choice.bytes;
    range.sizes += 1;
    range.confident_sizes += choice.confident;
    range.least_margin = std::min(range.least_margin, choice.margin);
    range.largest_margin = std::max(range.largest_margin, choice.margin);
    auto& names = range.runners_up;
    if (!choice.runner_up.empty() && std::find(names.begin(), names.end(), choice.runner_up) == names.end())
      names.push_back(choice.runner_up);
  }
  return ranges;
}

}  // namespace gradrail

#include "bench/measure/race.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "bench/measure/statistics.h"
#include "transports/base/check.h"

namespace gradrail {

namespace {

constexpr double k_most_effort = 6;  // for what may be the best, out of the time that the others were not given
constexpr std::size_t k_most_finalists = 6;
constexpr double k_luck = 0.1;         // ln of time
constexpr double k_may_be_luck = 1.5;  // of the best, in one block
constexpr std::size_t k_few = 3;       // so many are measured once
constexpr int k_blocks = 3;

}  // namespace

std::vector<double> medians(std::span<const std::vector<double>> samples_us) {
  std::vector<double> out;
  for (const auto& samples : samples_us) out.push_back(samples.empty() ? k_never : median(samples));
  return out;
}

std::size_t best_of(std::span<const double> times) {
  return static_cast<std::size_t>(std::min_element(times.begin(), times.end()) - times.begin());
}

std::optional<std::int64_t> between(std::int64_t low, std::int64_t high, double share, std::int64_t unit) {
  const double wanted =
      static_cast<double>(low) * std::pow(static_cast<double>(high) / static_cast<double>(low), share);
  auto size = static_cast<std::int64_t>(std::llround(wanted / static_cast<double>(unit))) * unit;
  if (std::has_single_bit(static_cast<std::uint64_t>(size)) && size + unit < high) size += unit;
  if (size <= low || size >= high) return std::nullopt;
  return size;
}

void take_the_later(SelectionSamples& samples, const std::vector<std::size_t>& which, SelectionSamples later) {
  GRADRAIL_CHECK(later.size() == which.size());
  double log_drift = 0;
  int known = 0;
  for (std::size_t k = 0; k < which.size(); ++k) {
    if (later[k].empty() || samples[which[k]].empty()) continue;
    log_drift += std::log(median(later[k]) / median(samples[which[k]]));
    ++known;
  }
  // Who was lucky the first time is less so the second; that alone is no drift.
  if (known == 0) return;
  if (std::abs(log_drift / known) < k_luck) log_drift = 0;
  const double drift = std::exp(log_drift / known);
  for (auto& one : samples)
    for (double& sample : one) sample *= drift;
  for (std::size_t k = 0; k < which.size(); ++k)
    if (!later[k].empty()) samples[which[k]] = std::move(later[k]);
}

Result<SelectionSamples> measure_in_blocks(std::int64_t bytes, std::span<const Selection> selections, double effort,
                                           const MeasureSize& measure) {
  SelectionSamples all(selections.size());
  for (int block = 0; block < k_blocks; ++block) {
    GRADRAIL_ASSIGN(const auto some, measure(bytes, selections, effort / k_blocks));
    GRADRAIL_CHECK(some.size() == selections.size());
    for (std::size_t i = 0; i < some.size(); ++i) all[i].insert(all[i].end(), some[i].begin(), some[i].end());
  }
  return all;
}

Result<SelectionSamples> race(std::int64_t bytes, std::span<const Selection> selections,
                              const std::vector<std::size_t>& always, const MeasureSize& measure) {
  if (selections.size() <= k_few) return measure_in_blocks(bytes, selections, 2 * k_first_effort, measure);
  GRADRAIL_ASSIGN(auto samples, measure(bytes, selections, k_first_effort));
  GRADRAIL_CHECK(samples.size() == selections.size());
  const auto times = medians(samples);
  const std::size_t best = best_of(times);
  if (times[best] == k_never) return samples;
  const Timing leader = summarise(samples[best]);
  std::vector<std::size_t> order(times.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return times[a] < times[b]; });
  std::vector<std::size_t> finalists;
  for (const std::size_t i : order) {
    if (times[i] == k_never) continue;
    // One that is alone ahead, by less than can be luck, must be so against the next again.
    const double limit = finalists.size() == 1 ? k_may_be_luck : k_may_be_best;
    const bool near = times[i] <= limit * times[best] || !parted(summarise(samples[i]), leader);
    const bool wanted = std::find(always.begin(), always.end(), i) != always.end();
    if (wanted || (near && finalists.size() < k_most_finalists)) finalists.push_back(i);
  }
  if (finalists.size() < 2) return samples;
  std::vector<Selection> again;
  for (const std::size_t i : finalists) again.push_back(selections[i]);
  const double spared = (1 - k_first_effort) * static_cast<double>(selections.size());
  const double effort = std::clamp(spared / static_cast<double>(finalists.size()), k_first_effort, k_most_effort);
  GRADRAIL_ASSIGN(auto second, measure_in_blocks(bytes, again, effort, measure));
  take_the_later(samples, finalists, std::move(second));
  return samples;
}

}  // namespace gradrail

#include "bench/measure/tuning.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "bench/measure/statistics.h"
#include "collectives/select/candidates.h"
#include "results/size.h"
#include "transports/base/check.h"

namespace gradrail {

namespace {

constexpr double k_bandwidth_slope = 0.7;  // d ln time / d ln size above this: the bytes decide, not the rounds
constexpr int k_most_bisections = 4;       // a crossing
constexpr double k_finalist = 1.3;         // within this factor of the best at either side of a crossing
constexpr std::size_t k_hurried_finalists = 3;
constexpr int k_rounds_of_fitting_again = 3;
constexpr double k_near_in_another_phase = 2;  // times the best there: it may be the best here
constexpr std::size_t k_fewest_in_another_phase = 3;
constexpr double k_doubtful = 1.1;     // a smaller difference is none within k_beyond_chance standard errors
constexpr double k_beyond_chance = 3;  // as the best of many is the luckiest, too

std::string in_words(const Selection& selection) {
  std::string text = selection.algorithm;
  if (selection.lanes > 1) text += fmt::format(" with {} lanes", selection.lanes);
  if (selection.pieces > 1) text += fmt::format(" in {} pieces", selection.pieces);
  return text;
}

const Selection& choice(const std::vector<TableRange>& ranges, std::int64_t bytes) {
  for (const TableRange& range : ranges)
    if (static_cast<std::uint64_t>(bytes) <= range.to_bytes) return range.selection;
  return ranges.back().selection;
}

std::vector<std::size_t> places_of(const std::vector<std::size_t>& some, const std::vector<std::size_t>& among) {
  std::vector<std::size_t> places;
  for (std::size_t k = 0; k < among.size(); ++k)
    if (std::find(some.begin(), some.end(), among[k]) != some.end()) places.push_back(k);
  return places;
}

// What the ranges say at this of the sizes, and at its neighbours.
std::vector<std::size_t> rivals_at(const Tuned& tuned, std::size_t size) {
  std::vector<std::size_t> rivals;
  for (std::size_t i = size > 0 ? size - 1 : 0; i <= size + 1 && i < tuned.sizes.size() && !tuned.ranges.empty(); ++i) {
    const auto& all = tuned.candidates;
    rivals.push_back(static_cast<std::size_t>(
        std::find(all.begin(), all.end(), choice(tuned.ranges, tuned.sizes[i].bytes)) - all.begin()));
  }
  return rivals;
}

class Tuner {
 public:
  Tuner(const Question& question, std::span<const std::int64_t> sizes, std::int64_t unit, const MeasureSize& measure,
        const TuneRules& rules)
      : question_(question), grid_(sizes), unit_(unit), measure_(measure), rules_(rules) {
    // Pieces and lanes come in with size, so the largest has all.
    question_.bytes = static_cast<std::uint64_t>(sizes.back());
    tuned_.candidates = candidates(question_);
    gone_.resize(tuned_.candidates.size());
  }

  Result<Tuned> run() {
    for (std::size_t i = 0; i < grid_.size(); ++i) GRADRAIL_TRY(coarse(grid_[i]));
    GRADRAIL_TRY(refine());
    GRADRAIL_TRY(confirm());
    tuned_.ranges = fit_ranges(tuned_.candidates, tuned_.sizes, rules_);
    return std::move(tuned_);
  }

 private:
  void say(const std::string& text) const {
    if (rules_.say) rules_.say(text);
  }
  [[nodiscard]] bool hurry() {
    if (rules_.out_of_time()) tuned_.hurried = true;
    return tuned_.hurried;
  }

  // `rivals`: of `which`, between whom it is to be decided, however they do in the first block.
  Result<void> measure_at(std::int64_t bytes, const std::vector<std::size_t>& which,
                          const std::vector<std::size_t>& rivals = {}) {
    std::vector<Selection> selections;
    for (const std::size_t i : which) selections.push_back(tuned_.candidates[i]);
    GRADRAIL_ASSIGN(auto samples, tuned_.hurried ? measure_in_blocks(bytes, selections, k_first_effort, measure_)
                                                 : race(bytes, selections, places_of(rivals, which), measure_));
    GRADRAIL_CHECK(samples.size() == which.size());
    if (std::all_of(samples.begin(), samples.end(), [](const auto& one) { return one.empty(); })) return {};
    TunedSize size{bytes, std::vector<std::vector<double>>(tuned_.candidates.size())};
    for (std::size_t k = 0; k < which.size(); ++k) size.samples_us[which[k]] = std::move(samples[k]);
    if (rules_.phase) size.phase = rules_.phase();
    const auto at = std::find_if(tuned_.sizes.begin(), tuned_.sizes.end(),
                                 [&](const TunedSize& other) { return other.bytes > bytes; });
    tuned_.sizes.insert(at, std::move(size));
    return {};
  }

  Result<void> coarse(std::int64_t bytes) {
    Question question = question_;
    question.bytes = static_cast<std::uint64_t>(bytes);
    const auto possible = candidates(question);
    std::vector<std::size_t> which;
    for (std::size_t i = 0; i < tuned_.candidates.size(); ++i)
      if (!gone_[i] && std::find(possible.begin(), possible.end(), tuned_.candidates[i]) != possible.end())
        which.push_back(i);
    if (hurry() && !tuned_.sizes.empty()) keep_finalists(which);
    if (which.empty()) return {};
    GRADRAIL_TRY(measure_at(bytes, which));
    if (tuned_.sizes.size() >= 2 && tuned_.sizes.back().bytes == bytes) drop_hopeless();
    return {};
  }

  void keep_finalists(std::vector<std::size_t>& which) const {
    const auto times = medians(tuned_.sizes.back().samples_us);
    std::stable_sort(which.begin(), which.end(), [&](std::size_t a, std::size_t b) { return times[a] < times[b]; });
    which.resize(std::min(which.size(), k_hurried_finalists));
    std::sort(which.begin(), which.end());
  }

  // Far behind twice in a row, no nearer the second time, and with a time that already grows with the bytes: a larger
  // size cannot turn that. (While rounds decide, a factor of 3 may well turn: a ring is slow for 8 bytes.)
  void drop_hopeless() {
    const TunedSize& last = tuned_.sizes.back();
    const TunedSize& previous = tuned_.sizes[tuned_.sizes.size() - 2];
    const auto now = medians(last.samples_us);
    const auto then = medians(previous.samples_us);
    const double best_now = now[best_of(now)];
    const double best_then = then[best_of(then)];
    const double growth = std::log(static_cast<double>(last.bytes) / static_cast<double>(previous.bytes));
    for (std::size_t i = 0; i < now.size(); ++i) {
      if (gone_[i] || now[i] == k_never || then[i] == k_never) continue;
      const double ratio = now[i] / best_now;
      const double ratio_then = then[i] / best_then;
      // Lanes and pieces of one algorithm lie nearer to each other than algorithms do.
      const bool plain = tuned_.candidates[i].lanes == 1 && tuned_.candidates[i].pieces == 1;
      const double limit = plain ? rules_.hopeless : std::sqrt(rules_.hopeless);
      if (ratio < limit || ratio_then < limit || ratio < 0.95 * ratio_then) continue;
      if (std::log(now[i] / then[i]) / growth < k_bandwidth_slope) continue;
      gone_[i] = true;
      tuned_.dropped.push_back({tuned_.candidates[i], last.bytes, ratio});
      say(
          fmt::format("{} is not measured above {}: {:.1f} and {:.1f} times slower than {} at the last two sizes, and "
                      "its time grows with the bytes",
                      in_words(tuned_.candidates[i]), format_size(last.bytes), ratio_then, ratio,
                      in_words(tuned_.candidates[best_of(now)])));
    }
    drop_kin(last, then, now);
  }

  // Lanes and pieces of an algorithm whose plain form is hopeless: those that came in just now and are as far behind go
  // with it, and those still to come are not tried.
  void drop_kin(const TunedSize& last, const std::vector<double>& then, const std::vector<double>& now) {
    const double best = now[best_of(now)];
    for (std::size_t i = 0; i < gone_.size(); ++i) {
      const std::size_t plain = index_of({tuned_.candidates[i].algorithm, 1, 1});
      if (gone_[i] || plain == gone_.size() || !gone_[plain] || then[i] != k_never) continue;
      if (now[i] == k_never) {
        gone_[i] = true;
      } else if (now[i] >= rules_.hopeless * best) {
        gone_[i] = true;
        tuned_.dropped.push_back({tuned_.candidates[i], last.bytes, now[i] / best});
      }
    }
  }

  // Between each two sizes of the grid on which different selections won.
  Result<void> refine() {
    std::vector<std::pair<std::int64_t, std::int64_t>> crossings;
    const auto ranges = fit_ranges(tuned_.candidates, tuned_.sizes, rules_);
    for (std::size_t i = 0; i + 1 < tuned_.sizes.size() && !ranges.empty(); ++i) {
      const auto low = tuned_.sizes[i].bytes;
      const auto high = tuned_.sizes[i + 1].bytes;
      if (choice(ranges, low) != choice(ranges, high)) crossings.emplace_back(low, high);
    }
    std::vector<std::pair<std::int64_t, std::int64_t>> unsure;
    for (std::size_t i = 0; i + 1 < tuned_.sizes.size() && !ranges.empty(); ++i)
      if (choice(ranges, tuned_.sizes[i].bytes) == choice(ranges, tuned_.sizes[i + 1].bytes) &&
          best_of(medians(tuned_.sizes[i].samples_us)) != best_of(medians(tuned_.sizes[i + 1].samples_us)))
        unsure.emplace_back(tuned_.sizes[i].bytes, tuned_.sizes[i + 1].bytes);
    for (auto [low, high] : crossings) GRADRAIL_TRY(bisect(ranges, low, high, k_most_bisections));
    // Large sizes first: there the differences last longest.
    std::reverse(unsure.begin(), unsure.end());
    for (auto [low, high] : unsure) GRADRAIL_TRY(bisect(ranges, low, high, 1));
    return {};
  }

  // How the ranks lie on the cores may favour a candidate throughout a block. One that wins at a single size must do so
  // in another block, and in a third.
  Result<void> confirm() {
    for (int round = 0; round < 2; ++round) {
      const auto ranges = fit_ranges(tuned_.candidates, tuned_.sizes, rules_);
      for (std::size_t i = 0; i < ranges.size() && ranges.size() > 1; ++i) {
        std::vector<TunedSize*> within;
        for (TunedSize& size : tuned_.sizes)
          if (static_cast<std::uint64_t>(size.bytes) >= ranges[i].from_bytes &&
              static_cast<std::uint64_t>(size.bytes) <= ranges[i].to_bytes)
            within.push_back(&size);
        if (within.size() != 1 || hurry()) continue;
        std::vector<std::size_t> finalists = {index_of(ranges[i].selection)};
        if (i > 0) finalists.push_back(index_of(ranges[i - 1].selection));
        if (i + 1 < ranges.size()) finalists.push_back(index_of(ranges[i + 1].selection));
        GRADRAIL_TRY(measure_again(*within.front(), std::move(finalists)));
      }
    }
    return {};
  }

  Result<void> measure_again(TunedSize& size, std::vector<std::size_t> finalists) {
    const auto times = medians(size.samples_us);
    const double best = times[best_of(times)];
    for (std::size_t i = 0; i < times.size(); ++i)
      if (times[i] <= best * k_may_be_best) finalists.push_back(i);
    std::sort(finalists.begin(), finalists.end());
    finalists.erase(std::unique(finalists.begin(), finalists.end()), finalists.end());
    std::erase_if(finalists, [&](std::size_t i) { return times[i] == k_never; });
    if (finalists.size() < 2) return {};
    std::vector<Selection> selections;
    for (const std::size_t i : finalists) selections.push_back(tuned_.candidates[i]);
    GRADRAIL_ASSIGN(auto samples, measure_(size.bytes, selections, 1));
    take_the_later(size.samples_us, finalists, std::move(samples));
    if (rules_.phase) size.phase = rules_.phase();
    return {};
  }

  [[nodiscard]] std::vector<TunedSize>::const_iterator find(std::int64_t bytes) const {
    return std::find_if(tuned_.sizes.begin(), tuned_.sizes.end(), [&](const TunedSize& s) { return s.bytes == bytes; });
  }
  [[nodiscard]] std::size_t index_of(const Selection& selection) const {
    return static_cast<std::size_t>(std::find(tuned_.candidates.begin(), tuned_.candidates.end(), selection) -
                                    tuned_.candidates.begin());
  }

  Result<void> bisect(const std::vector<TableRange>& ranges, std::int64_t low, std::int64_t high, int most) {
    const std::size_t below = index_of(choice(ranges, low));
    const std::size_t above = index_of(choice(ranges, high));
    std::vector<std::size_t> finalists = {below, above};
    for (const std::int64_t side : {low, high}) {
      const auto times = medians(find(side)->samples_us);
      const double best = times[best_of(times)];
      for (std::size_t i = 0; i < times.size(); ++i)
        if (times[i] <= best * k_finalist) finalists.push_back(i);
    }
    std::sort(finalists.begin(), finalists.end());
    finalists.erase(std::unique(finalists.begin(), finalists.end()), finalists.end());
    for (int i = 0; i < most; ++i) {
      if (static_cast<double>(high) / static_cast<double>(low) <= rules_.nearest_sizes || hurry()) break;
      const auto middle = between(low, high, 0.5, unit_);
      if (!middle) break;
      GRADRAIL_TRY(measure_at(*middle, finalists, {below, above}));
      const auto size = find(*middle);
      if (size == tuned_.sizes.end()) break;
      const auto times = medians(size->samples_us);
      if (times[below] == k_never || times[above] == k_never) {
        // There was no time for all. It says nothing of the crossing, but would speak for those that were measured.
        tuned_.sizes.erase(size);
        break;
      }
      const double ratio = times[below] / times[above];
      if (ratio < rules_.tie && ratio > 1 / rules_.tie) break;  // this is the crossing
      (ratio < 1 ? low : high) = *middle;
    }
    return {};
  }

  Question question_;
  std::span<const std::int64_t> grid_;
  std::int64_t unit_;
  const MeasureSize& measure_;
  const TuneRules& rules_;
  Tuned tuned_;
  std::vector<bool> gone_;
};

// Of ln of the median, taking its interval for that of a normal distribution; nothing is known of few samples.
double log_error(const Timing& timing) {
  if (timing.n < static_cast<std::int64_t>(k_least_samples_for_interval)) return 1;
  constexpr double k_widths = 2 * 1.96;
  return std::log(std::max(timing.ci[1], 1e-12) / std::max(timing.ci[0], 1e-12)) / k_widths;
}

// What using the candidate at a size loses, as ln of time: what the medians say, the less of it the less it is above
// their error; 0 for a tie. A small loss that appears at size after size adds up, and noise does not.
std::vector<double> losses(const TunedSize& size, const TuneRules& rules) {
  auto out = medians(size.samples_us);
  const std::size_t best = best_of(out);
  const double least = out[best];
  if (least == k_never) return std::vector<double>(out.size(), 0);  // nothing is known here
  const double winners_error = log_error(summarise(size.samples_us[best]));
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (out[i] == k_never) continue;
    const double lost = std::log(out[i] / least);
    const double error = std::hypot(winners_error, log_error(summarise(size.samples_us[i])));
    const bool chance = lost < std::log(k_doubtful) && lost < k_beyond_chance * error;
    out[i] = lost < std::log(rules.tie) || chance ? 0 : lost * lost / (lost + error);
  }
  return out;
}

// Which candidate to use at each size: the cheapest path (Viterbi 1967).
std::vector<std::size_t> cheapest_path(const std::vector<std::vector<double>>& loss, double price) {
  const std::size_t n = loss.front().size();
  std::vector<double> total(n, 0);
  std::vector<std::vector<std::size_t>> came_from;
  const auto first_least = [&] { return best_of(total); };
  for (std::size_t p = 0; p < loss.size(); ++p) {
    const std::size_t cheapest = first_least();
    const double changed = total[cheapest] + (p == 0 ? 0 : price);
    came_from.emplace_back(n);
    std::vector<double> next(n);
    for (std::size_t i = 0; i < n; ++i) {
      const bool stay = p == 0 || total[i] <= changed;
      came_from.back()[i] = stay ? i : cheapest;
      // The smallest preference for the simpler, which no measured difference loses to.
      next[i] = (stay ? total[i] : changed) + loss[p][i] + 1e-6 * static_cast<double>(i);
    }
    total = std::move(next);
  }
  std::vector<std::size_t> path(loss.size());
  std::size_t at = first_least();
  for (std::size_t p = loss.size(); p-- > 0;) {
    path[p] = at;
    at = came_from[p][at];
  }
  return path;
}

// Where the times of a (better at low) and b (better at high) cross, in logarithms; the middle if that is not known.
double crossing(const TunedSize& low, const TunedSize& high, std::size_t a, std::size_t b) {
  const auto at_low = medians(low.samples_us);
  const auto at_high = medians(high.samples_us);
  double share = 0.5;
  if (at_low[a] != k_never && at_low[b] != k_never && at_high[a] != k_never && at_high[b] != k_never) {
    const double before = std::log(at_low[b] / at_low[a]);
    const double after = std::log(at_high[a] / at_high[b]);
    if (before > 0 && after > 0) share = std::clamp(before / (before + after), 0.1, 0.9);
  }
  return static_cast<double>(low.bytes) *
         std::pow(static_cast<double>(high.bytes) / static_cast<double>(low.bytes), share);
}

// The range's figures, from the sizes measured in it.
void describe(TableRange& range, const std::vector<Selection>& candidates, std::span<const TunedSize> sizes,
              std::size_t winner) {
  double log_margin = 0;
  double least_margin = k_never;
  int rivals = 0;
  int confident = 0;
  for (const TunedSize& size : sizes) {
    const auto times = medians(size.samples_us);
    if (times[winner] == k_never) continue;
    ++range.sizes;
    range.median_us = times[winner];
    std::optional<std::size_t> second;
    bool beyond_doubt = true;
    const Timing won = summarise(size.samples_us[winner]);
    for (std::size_t i = 0; i < times.size(); ++i) {
      if (times[i] == k_never || candidates[i].algorithm == candidates[winner].algorithm) continue;
      if (!second || times[i] < times[*second]) second = i;
      beyond_doubt &= times[i] > times[winner] && parted(summarise(size.samples_us[i]), won);
    }
    if (!second) continue;
    ++rivals;
    confident += beyond_doubt;
    const double margin = times[*second] / times[winner];
    log_margin += std::log(margin);
    if (margin < least_margin) {
      least_margin = margin;
      range.runner_up = candidates[*second].algorithm;
    }
  }
  if (rivals > 0) {
    range.margin = std::exp(log_margin / rivals);
    range.confidence = static_cast<double>(confident) / rivals;
  }
}

}  // namespace

std::vector<TableRange> fit_ranges(const std::vector<Selection>& candidates, std::span<const TunedSize> all,
                                   const TuneRules& rules) {
  std::vector<TunedSize> sizes;  // at which anything has a time
  for (const TunedSize& size : all)
    if (const auto times = medians(size.samples_us); !times.empty() && times[best_of(times)] != k_never)
      sizes.push_back(size);
  if (sizes.empty()) return {};
  std::vector<std::vector<double>> loss;
  for (const TunedSize& size : sizes) loss.push_back(losses(size, rules));
  const auto path = cheapest_path(loss, rules.switch_price);

  std::vector<TableRange> ranges;
  for (std::size_t begin = 0; begin < sizes.size();) {
    std::size_t end = begin + 1;
    while (end < sizes.size() && path[end] == path[begin]) ++end;
    TableRange range;
    range.selection = candidates[path[begin]];
    range.from_bytes = ranges.empty() ? static_cast<std::uint64_t>(sizes[begin].bytes) : ranges.back().to_bytes + 1;
    range.to_bytes =
        static_cast<std::uint64_t>(end == sizes.size() ? static_cast<double>(sizes.back().bytes)
                                                       : crossing(sizes[end - 1], sizes[end], path[begin], path[end]));
    describe(range, candidates, std::span(sizes).subspan(begin, end - begin), path[begin]);
    ranges.push_back(std::move(range));
    begin = end;
  }
  return ranges;
}

Result<void> fit_again(Tuned& tuned, const MeasureSize& measure, const TuneRules& rules) {
  for (int round = 0; round < k_rounds_of_fitting_again && rules.phase_now; ++round) {
    const std::string now = rules.phase_now();
    for (std::size_t s = 0; s < tuned.sizes.size(); ++s) {
      TunedSize& size = tuned.sizes[s];
      if (size.phase == now || rules.phase_now() != now) continue;
      const auto rivals = rivals_at(tuned, s);
      const auto is_rival = [&](std::size_t i) { return std::find(rivals.begin(), rivals.end(), i) != rivals.end(); };
      const auto times = medians(size.samples_us);
      const double best = times[best_of(times)];
      std::vector<std::size_t> order;
      for (std::size_t i = 0; i < times.size(); ++i)
        if (times[i] != k_never) order.push_back(i);
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return times[a] < times[b]; });
      std::vector<std::size_t> which;
      for (const std::size_t i : order)
        if (which.size() < k_fewest_in_another_phase || times[i] <= k_near_in_another_phase * best || is_rival(i))
          which.push_back(i);
      std::sort(which.begin(), which.end());
      std::vector<Selection> selections;
      for (const std::size_t i : which) selections.push_back(tuned.candidates[i]);
      GRADRAIL_ASSIGN(auto samples, race(size.bytes, selections, places_of(rivals, which), measure));
      if (std::all_of(samples.begin(), samples.end(), [](const auto& one) { return one.empty(); })) continue;
      take_the_later(size.samples_us, which, std::move(samples));
      size.phase = rules.phase();
      if (rules.say)
        rules.say(fmt::format("{} had been measured in another phase of the machine, and was measured again",
                              format_size(size.bytes)));
    }
  }
  tuned.ranges = fit_ranges(tuned.candidates, tuned.sizes, rules);
  return {};
}

Result<Tuned> tune_sizes(const Question& question, std::span<const std::int64_t> sizes, std::int64_t unit,
                         const MeasureSize& measure, const TuneRules& rules) {
  if (sizes.empty()) return Tuned{};
  return Tuner(question, sizes, unit, measure, rules).run();
}

}  // namespace gradrail

#include "bench/measure/regret.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "bench/measure/statistics.h"
#include "results/size.h"

namespace gradrail {

namespace {

constexpr int k_passes = 4;  // over sizes that were not judged in the phase in which they were fitted

// Halves of interleaved samples: every other one.
std::vector<double> half(const std::vector<double>& samples, std::size_t which) {
  std::vector<double> out;
  for (std::size_t i = which; i < samples.size(); i += 2) out.push_back(samples[i]);
  return out;
}

// The phase in which the size nearest to this one was fitted.
const std::string& phase_near(const Tuned& tuned, std::int64_t bytes) {
  const auto distance = [&](const TunedSize& size) {
    return std::abs(std::log(static_cast<double>(size.bytes) / static_cast<double>(bytes)));
  };
  return std::min_element(tuned.sizes.begin(), tuned.sizes.end(),
                          [&](const TunedSize& a, const TunedSize& b) { return distance(a) < distance(b); })
      ->phase;
}

// Medians of one held-out size, of all samples and of each half.
struct Judged {
  std::vector<double> whole;
  std::array<std::vector<double>, 2> halves;

  // ln of the candidate's time over the oracle's, each oracle picked on the other half.
  [[nodiscard]] double log_regret(std::size_t candidate) const {
    double sum = 0;
    for (std::size_t h = 0; h < 2; ++h) sum += std::log(halves[h][candidate] / halves[h][best_of(halves[1 - h])]);
    return sum / 2;
  }
};

Judged judge(const std::vector<std::vector<double>>& samples) {
  Judged judged;
  for (const auto& one : samples) {
    const bool enough = one.size() >= 2;
    judged.whole.push_back(enough ? median(one) : k_never);
    for (std::size_t h = 0; h < 2; ++h) judged.halves[h].push_back(enough ? median(half(one, h)) : k_never);
  }
  return judged;
}

// At one size: ln of regret, and the interval of the ratio behind it.
struct Loss {
  double log = 0;
  Interval interval;
};

Spread spread_of(const std::vector<Loss>& losses) {
  if (losses.empty()) return {};
  double sum = 0;
  for (const Loss& loss : losses) sum += loss.log;
  const auto worst = std::max_element(losses.begin(), losses.end(), [](auto& a, auto& b) { return a.log < b.log; });
  return {std::exp(sum / static_cast<double>(losses.size())), std::exp(worst->log), worst->interval.low,
          worst->interval.high};
}

// What is measured at a held-out size, each once.
class Field {
 public:
  // Everything that was measured at the next smaller size that was fitted, and is not known to be hopeless since.
  Field(const Tuned& tuned, std::int64_t bytes) : tuned_(tuned) {
    const auto measured = [](const TunedSize& size) {
      return std::count_if(size.samples_us.begin(), size.samples_us.end(),
                           [](const auto& samples) { return !samples.empty(); });
    };
    const TunedSize* below = nullptr;
    for (const TunedSize& size : tuned.sizes)
      // Bisection measured only finalists.
      if (size.bytes < bytes && (below == nullptr || measured(*below) <= 2 * measured(size))) below = &size;
    for (std::size_t i = 0; below != nullptr && i < tuned.candidates.size(); ++i) {
      const bool hopeless = std::any_of(tuned.dropped.begin(), tuned.dropped.end(), [&](const Dropped& d) {
        return d.selection == tuned.candidates[i] && d.bytes < bytes;
      });
      if (!hopeless && !below->samples_us[i].empty()) (void)place(tuned.candidates[i]);
    }
  }

  // Where it stands among the selections; added if it was not there.
  std::size_t place(const Selection& selection) {
    const auto found = std::find(selections_.begin(), selections_.end(), selection);
    if (found != selections_.end()) return static_cast<std::size_t>(found - selections_.begin());
    selections_.push_back(selection);
    return selections_.size() - 1;
  }
  [[nodiscard]] const std::vector<Selection>& selections() const { return selections_; }
  // Of the i-th, in Tuned::candidates.
  [[nodiscard]] std::optional<std::size_t> candidate(std::size_t i) const {
    const auto known = std::find(tuned_.candidates.begin(), tuned_.candidates.end(), selections_[i]);
    if (known == tuned_.candidates.end()) return std::nullopt;
    return static_cast<std::size_t>(known - tuned_.candidates.begin());
  }

 private:
  const Tuned& tuned_;
  std::vector<Selection> selections_;
};

class Trial {
 public:
  Trial(const Question& question, const Tuned& tuned, const Selector& table, const Selector& model,
        const MeasureSize& measure, const TuneRules& rules)
      : question_(question), tuned_(tuned), by_table_(table), by_model_(model), measure_(measure), rules_(rules) {}

  // What the table says there was judged, in whatever phase.
  [[nodiscard]] bool is_judged(std::int64_t bytes) const {
    const auto verdict = verdicts_.find(bytes);
    return verdict != verdicts_.end() && is_of_this_table(verdict->second);
  }
  // In the one in which it was fitted.
  [[nodiscard]] bool is_judged_in_phase(std::int64_t bytes) const {
    return is_judged(bytes) && in_phase(verdicts_.at(bytes));
  }

  // What was said of the size before is forgotten.
  Result<void> judge_at(std::int64_t bytes) {
    const Question here = question_at(bytes);
    Field field(tuned_, bytes);
    const std::size_t by_table = field.place(by_table_.choose(here));
    const std::size_t by_model = field.place(by_model_.choose(here));
    const auto& selections = field.selections();
    GRADRAIL_ASSIGN(const auto samples, race(bytes, selections, {by_table, by_model}, measure_));
    const Judged judged = judge(samples);
    const std::size_t best = best_of(judged.whole);
    if (judged.whole[best] == k_never || judged.whole[by_table] == k_never || judged.whole[by_model] == k_never) {
      if (rules_.say && !verdicts_.contains(bytes))
        rules_.say(fmt::format("nothing can be said about {}", format_size(bytes)));
      return {};
    }
    const auto loss_of = [&](std::size_t chosen) {
      return Loss{judged.log_regret(chosen),
                  chosen == best ? Interval{1, 1} : ratio_of_medians(samples[chosen], samples[best]).interval};
    };
    Verdict verdict;
    verdict.table = loss_of(by_table);
    verdict.model = loss_of(by_model);
    HeldOutSize& row = verdict.row;
    row.bytes = bytes;
    row.best = selections[best];
    row.best_us = judged.whole[best];
    row.table = selections[by_table];
    row.table_us = judged.whole[by_table];
    row.table_regret = std::exp(verdict.table.log);
    row.model = selections[by_model];
    row.model_us = judged.whole[by_model];
    row.model_regret = std::exp(verdict.model.log);
    if (rules_.phase) verdict.phase = rules_.phase();
    verdict.fixed.resize(tuned_.candidates.size());
    for (std::size_t i = 0; i < selections.size(); ++i)
      if (const auto candidate = field.candidate(i); candidate && judged.whole[i] != k_never)
        verdict.fixed[*candidate] = judged.log_regret(i);
    verdicts_.insert_or_assign(bytes, std::move(verdict));
    return {};
  }

  Regret result() {
    std::erase_if(verdicts_, [&](const auto& one) { return !is_of_this_table(one.second); });
    Regret regret;
    std::vector<Loss> table, model, table_same_phase, model_same_phase;
    for (auto& [bytes, verdict] : verdicts_) {
      verdict.row.same_phase = in_phase(verdict);
      table.push_back(verdict.table);
      model.push_back(verdict.model);
      if (verdict.row.same_phase) {
        table_same_phase.push_back(verdict.table);
        model_same_phase.push_back(verdict.model);
      }
      regret.sizes.push_back(verdict.row);
    }
    regret.table = spread_of(table);
    regret.model = spread_of(model);
    regret.table_same_phase = spread_of(table_same_phase);
    regret.model_same_phase = spread_of(model_same_phase);
    find_best_fixed(regret);
    return regret;
  }

 private:
  struct Verdict {
    HeldOutSize row;
    Loss table, model;
    std::vector<std::optional<double>> fixed;  // ln of regret by candidate
    std::string phase;
  };

  [[nodiscard]] Question question_at(std::int64_t bytes) const {
    Question here = question_;
    here.bytes = static_cast<std::uint64_t>(bytes);
    return here;
  }
  [[nodiscard]] bool is_of_this_table(const Verdict& verdict) const {
    return verdict.row.table == by_table_.choose(question_at(verdict.row.bytes));
  }
  [[nodiscard]] bool in_phase(const Verdict& verdict) const {
    return !rules_.phase || tuned_.sizes.empty() ||
           (!verdict.phase.empty() && verdict.phase == phase_near(tuned_, verdict.row.bytes));
  }

  void find_best_fixed(Regret& regret) const {
    for (std::size_t i = 0; i < tuned_.candidates.size(); ++i) {
      std::vector<Loss> losses;
      for (const auto& [bytes, verdict] : verdicts_)
        if (verdict.fixed[i]) losses.push_back({*verdict.fixed[i], {1, 1}});
      if (losses.empty() || losses.size() != verdicts_.size()) continue;
      Spread spread = spread_of(losses);
      spread.worst_low = spread.worst_high = 1;  // not looked at
      if (!regret.fixed.algorithm.empty() && spread.mean >= regret.fixed_spread.mean) continue;
      regret.fixed = tuned_.candidates[i];
      regret.fixed_spread = spread;
      for (std::size_t row = 0; row < losses.size(); ++row) regret.sizes[row].fixed_regret = std::exp(losses[row].log);
    }
  }

  const Question& question_;
  const Tuned& tuned_;
  const Selector& by_table_;
  const Selector& by_model_;
  const MeasureSize& measure_;
  const TuneRules& rules_;
  std::map<std::int64_t, Verdict> verdicts_;  // by size
};

}  // namespace

std::vector<std::int64_t> held_out_sizes(std::span<const std::int64_t> grid, std::int64_t unit, const Tuned& tuned) {
  std::set<std::int64_t> fitted;
  for (const TunedSize& size : tuned.sizes) fitted.insert(size.bytes);
  std::vector<std::int64_t> sizes;
  for (std::size_t i = 0; i + 1 < grid.size(); ++i) {
    // At different places between its neighbours each time.
    constexpr double k_shares[] = {0.3, 0.6, 0.45, 0.75};
    auto size = between(grid[i], grid[i + 1], k_shares[i % std::size(k_shares)], unit);
    while (size && fitted.contains(*size)) *size += unit;
    if (size && *size < grid[i + 1]) sizes.push_back(*size);
  }
  return sizes;
}

Result<Regret> measure_regret(const Question& question, const Tuned& tuned, std::span<const std::int64_t> sizes,
                              const Selector& table, const Selector& model, const MeasureSize& measure,
                              const TuneRules& rules, const FitAgain& fit_again) {
  Trial trial(question, tuned, table, model, measure, rules);
  for (int pass = 0; pass < k_passes; ++pass) {
    for (const std::int64_t bytes : sizes) {
      if (trial.is_judged_in_phase(bytes)) continue;
      if (rules.await_phase && !tuned.sizes.empty()) {
        GRADRAIL_ASSIGN(const bool come, rules.await_phase(phase_near(tuned, bytes)));
        if (!come) continue;
      }
      GRADRAIL_TRY(trial.judge_at(bytes));
    }
    if (std::all_of(sizes.begin(), sizes.end(), [&](std::int64_t bytes) { return trial.is_judged_in_phase(bytes); }))
      break;
    if (!fit_again) continue;
    GRADRAIL_ASSIGN(const bool done, fit_again());
    if (!done) break;
  }
  for (const std::int64_t bytes : sizes)
    if (!trial.is_judged(bytes)) GRADRAIL_TRY(trial.judge_at(bytes));
  return trial.result();
}

}  // namespace gradrail

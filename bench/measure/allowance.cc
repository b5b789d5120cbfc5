#include "bench/measure/allowance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "bench/measure/statistics.h"
#include "results/size.h"

namespace gradrail {

namespace {

constexpr double k_block = 0.15;                // seconds that go with any block
constexpr double k_operations = 50;             // of a size: ten selections as briefly as they may be
constexpr double k_share_of_a_block = 0.8;      // of what is left for a size; the rest is for measuring again
constexpr double k_share_of_a_latecomer = 0.5;  // of what is left of the stage
constexpr double k_share_of_a_repeat = 0.05;    // of the same, where the size's part is used up
constexpr double k_least_of_even_share = 0.6;
constexpr double k_far_behind = 2;
constexpr double k_far_behind_by_the_model = 4;
constexpr double k_short_time = 0.01;  // per point, where care is given up
constexpr double k_no_question = 0.1;  // a block expected to take less than this share of its time needs no limit
constexpr int k_usual_warmup = 5;
constexpr int k_turns = 8;
constexpr int k_fewest_samples = 3;

// Of a size's part of the time.
double weight(const Allowance::Part& part) { return k_block + k_operations * part.operation; }

double cost(const Pace& pace, double operation, double time_per_point) {
  const int beside = 1 + std::min(k_usual_warmup, pace.most_warmup) + pace.estimates + (pace.refresh ? k_turns : 0);
  return beside * operation + std::max(time_per_point, pace.fewest_samples * operation);
}

}  // namespace

void Allowance::begin(std::string stage, double end, std::vector<Part> parts, double more) {
  stage_ = std::move(stage);
  end_ = end;
  parts_ = std::move(parts);
  more_ = 0;
  for (const Part& part : parts_) more_ += more * weight(part);
  current_ = -1;
}

void Allowance::enter(std::int64_t bytes) {
  const double now = clock_();
  const auto part = std::find_if(parts_.begin(), parts_.end(), [&](const Part& p) { return p.bytes == bytes; });
  if (bytes == current_ && (!parts_.empty() || now < size_end_)) return;
  current_ = bytes;
  double share = k_share_of_a_latecomer;
  if (part != parts_.end()) {
    const double rest =
        std::accumulate(part, parts_.end(), more_, [&](double sum, const Part& p) { return sum + weight(p); });
    // The least of sizes has some, too: what is measured there spares the larger ones what is far behind.
    share = std::max(weight(*part) / rest, k_least_of_even_share / static_cast<double>(parts_.end() - part));
    parts_.erase(parts_.begin(), part + 1);
  }
  size_end_ = now + std::max(0.0, end_ - now) * share;
}

std::vector<Allowance::Known>::const_iterator Allowance::find(const Selection& selection) const {
  return std::find_if(known_.begin(), known_.end(), [&](const Known& known) { return known.selection == selection; });
}

// In proportion to the bytes above what was measured, which is never too little where they are many.
double Allowance::expected(const Selection& selection, std::int64_t bytes) const {
  const auto known = find(selection);
  if (known == known_.end()) return expect_(selection, bytes) * std::exp(bias_);
  const auto above = known->seconds.lower_bound(bytes);
  double seconds = std::numeric_limits<double>::infinity();
  if (above != known->seconds.end()) seconds = above->second;
  if (above != known->seconds.begin()) {
    const auto& [lower, there] = *std::prev(above);
    seconds = std::min(seconds, there * static_cast<double>(bytes) / static_cast<double>(lower));
  }
  return seconds;
}

Allowance::Plan Allowance::plan(std::int64_t bytes, std::span<const Selection> selections, double time_per_point,
                                std::span<const Selection> keep) {
  enter(bytes);
  const double now = clock_();
  double left = (size_end_ - now - overhead_) * k_share_of_a_block;
  std::vector<double> operation;
  bool repeat = true;
  for (const Selection& selection : selections) {
    operation.push_back(expected(selection, bytes));
    const auto known = find(selection);
    repeat = repeat && known != known_.end() && known->seconds.contains(bytes);
  }
  // Where the first block was disturbed, the more it takes those that count.
  if (repeat) left = std::max(left, k_share_of_a_repeat * (end_ - now) - overhead_);
  std::vector<std::size_t> order(selections.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return operation[a] < operation[b]; });
  const double least = order.empty() ? 0 : operation[order.front()];
  const auto kept = [&](std::size_t i) { return std::find(keep.begin(), keep.end(), selections[i]) != keep.end(); };
  std::stable_partition(order.begin(), order.end(), kept);
  std::vector<std::size_t> near;
  for (const std::size_t i : order) {
    const double far = find(selections[i]) == known_.end() ? k_far_behind_by_the_model : k_far_behind;
    if (kept(i) || operation[i] <= far * least) near.push_back(i);
  }

  const double short_time = std::min(time_per_point, k_short_time);
  const auto in_all = [&](const std::vector<std::size_t>& which, const Pace& pace, double each) {
    double sum = 0;
    for (const std::size_t i : which) sum += cost(pace, operation[i], each);
    return sum;
  };
  Plan plan;
  struct Way {
    const std::vector<std::size_t>& which;
    Pace pace;
    double each;
  };
  for (const Way& way :
       {Way{order, k_thorough, time_per_point}, Way{order, k_brisk, short_time},
        Way{repeat ? order : near, k_brisk, short_time}, Way{repeat ? order : near, k_briefest, short_time}}) {
    planned_ = in_all(way.which, way.pace, way.each);
    if (planned_ > left) continue;
    plan = {way.which, way.pace, way.each, planned_ < k_no_question * left ? 0 : left};
    break;
  }
  if (plan.which.empty() && !repeat) {
    planned_ = 0;
    for (const std::size_t i : near) {
      const double one = cost(k_briefest, operation[i], short_time);
      // Something must be known, whatever the time.
      if (planned_ + one > left && !(plan.which.empty() && known_.empty())) break;
      plan.which.push_back(i);
      planned_ += one;
    }
    plan.pace = k_briefest;
    plan.time_per_point = short_time;
    plan.most_time = std::max(left, planned_);
  }
  if (repeat && plan.which.empty())
    ++repeats_left_out_[stage_];
  else
    leave_out(bytes, selections.size() - plan.which.size(), selections.size());
  return plan;
}

void Allowance::learn(std::int64_t bytes, std::span<const Selection> selections, const SelectionSamples& samples_us) {
  for (std::size_t i = 0; i < selections.size(); ++i) {
    if (samples_us[i].empty()) continue;
    const double seconds = std::max(1e-9, median(samples_us[i]) * 1e-6);
    auto known =
        std::find_if(known_.begin(), known_.end(), [&](const Known& one) { return one.selection == selections[i]; });
    if (known == known_.end()) {
      if (const double by_model = expect_(selections[i], bytes); by_model > 0)
        bias_ = (3 * bias_ + std::log(seconds / by_model)) / 4;
      known = known_.insert(known_.end(), {selections[i], {}});
    }
    known->seconds[bytes] = seconds;
  }
}

void Allowance::leave_out(std::int64_t bytes, std::size_t left, std::size_t of) {
  if (left == 0) return;
  for (Omission& one : omissions_)
    if (one.stage == stage_ && one.bytes == bytes && one.of == of) {
      one.left = left == of ? of : std::min(of - 1, one.left + left);  // some were measured
      return;
    }
  omissions_.push_back({stage_, bytes, left, of});
}

std::string Allowance::left_out() const {
  std::map<std::string, std::vector<std::string>> by_stage;
  for (const Omission& one : omissions_)
    by_stage[one.stage].push_back(one.left == one.of
                                      ? format_size(one.bytes)
                                      : fmt::format("{} of {} at {}", one.left, one.of, format_size(one.bytes)));
  for (const auto& [stage, times] : repeats_left_out_)
    by_stage[stage].push_back(fmt::format("{} block{} again", times, times == 1 ? "" : "s"));
  std::string text;
  for (const auto& [stage, parts] : by_stage)
    text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", stage, fmt::join(parts, "; "));
  return text;
}

double rough_operation(const CostModel& model, double bytes) {
  return 4 * (model.inside.alpha + model.between.alpha) +
         2 * bytes * std::max({model.inside.beta, model.between.beta, model.gamma});
}

bool fit_samples(std::span<int> wanted, std::span<const double> sample_us, double left_us) {
  const auto fitted = [&](std::size_t i, double most_us) {
    return std::min(
        wanted[i], std::max(k_fewest_samples, static_cast<int>(std::min(1e6, most_us / std::max(sample_us[i], 1e-3)))));
  };
  const auto all = [&](double most_us) {
    double sum = 0;
    for (std::size_t i = 0; i < wanted.size(); ++i) sum += fitted(i, most_us) * sample_us[i];
    return sum;
  };
  double low = 0, high = 1e15;
  if (all(high) <= left_us) return true;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (all(middle) <= left_us ? low : high) = middle;
  }
  for (std::size_t i = 0; i < wanted.size(); ++i) wanted[i] = fitted(i, low);
  return false;
}

}  // namespace gradrail

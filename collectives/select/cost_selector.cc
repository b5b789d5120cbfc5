#include "collectives/select/cost_selector.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "collectives/plan/planner.h"
#include "collectives/select/candidates.h"

namespace gradrail {

namespace {

Shape shape_of(const Selection& selection, const Question& question, int root) {
  Shape shape;
  shape.collective = question.collective;
  shape.ranks = question.ranks;
  shape.ranks_per_host = question.ranks_per_host;
  shape.root = has_root(question.collective) ? root : 0;
  shape.in_place = question.in_place;
  shape.lanes = selection.lanes;
  shape.pieces = selection.pieces;
  return shape;
}

// Programs of one host, all of them or k_most_sampled evenly spaced ones, that stand for all.
struct Sample {
  std::vector<Program> programs;
  double each_stands_for = 1;  // ranks of the host
};

// As long as its slowest rank alone, or as all bytes of the host on its memory and port: what is longer counts for the
// bytes. A rank waits a latency at each point at which a lane needs what it received, and pays for its messages.
double estimate(const Sample& host, std::uint64_t total_bytes, const CostModel& model) {
  const double work = std::max(1.0, model.oversubscription);
  double slowest = 0;  // without bytes
  double inside = 0;   // bytes of the host
  double between = 0;
  double most_inside = 0;  // of a rank
  for (const Program& program : host.programs) {
    const Shape& shape = program.shape;
    const double chunk_bytes = static_cast<double>(total_bytes) / program.grid;
    double seconds = 0;
    double own_inside = 0;
    std::set<std::pair<std::uint8_t, std::int32_t>> waits;
    bool crosses = false;
    for (const Step& step : program.steps) {
      const double bytes = chunk_bytes * step.chunks;
      seconds += model.step * work;
      if (step.after >= 0) waits.insert({step.lane, step.after});
      if (step.op == Op::recv_reduce || step.op == Op::reduce) seconds += bytes * model.gamma * work;
      if (step.op == Op::copy) own_inside += bytes;
      if (!step.talks()) continue;
      const bool local = step.peer / shape.ranks_per_host == program.rank / shape.ranks_per_host;
      crosses |= !local;
      if (step.op == Op::send) (local ? own_inside : between) += bytes;
    }
    // Lanes wait side by side.
    const double rounds = 1 + static_cast<double>(waits.size()) / shape.lanes;
    seconds += rounds * (crosses ? model.between.alpha : model.inside.alpha * work);
    slowest = std::max(slowest, seconds);
    most_inside = std::max(most_inside, own_inside);
    inside += own_inside;
  }
  const double memory = model.shared_medium ? inside * host.each_stands_for : most_inside;
  return slowest + memory * model.inside.beta * work + between * host.each_stands_for * model.between.beta;
}

constexpr int k_most_sampled = 16;

Result<Sample> sample(const Planner& planner, const Shape& shape) {
  const int first = shape.hosts() / 2 * shape.ranks_per_host;
  const int wanted = std::min(shape.ranks_per_host, k_most_sampled);
  Sample host;
  host.each_stands_for = static_cast<double>(shape.ranks_per_host) / wanted;
  for (int i = 1; i <= wanted; ++i) {
    GRADRAIL_ASSIGN(Program program, plan(planner, shape, first + shape.ranks_per_host * i / wanted - 1));
    host.programs.push_back(std::move(program));
  }
  return host;
}

// Between the neighbours of `at`; the nearest one's beyond the outermost. Not empty.
double interpolate(const std::map<double, double>& offsets, double at) {
  const auto above = offsets.lower_bound(at);
  if (above == offsets.end()) return std::prev(above)->second;
  if (above == offsets.begin()) return above->second;
  const auto below = std::prev(above);
  const double share = (at - below->first) / (above->first - below->first);
  return below->second + share * (above->second - below->second);
}

}  // namespace

Result<double> predict(const Selection& selection, const Question& question, const CostModel& model, int root) {
  Shape shape = shape_of(selection, question, root);
  GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(selection.algorithm, shape));
  // Blocks are equal.
  const auto blocks = is_blocked(question.collective) ? static_cast<std::uint64_t>(shape.ranks) : 1;
  const std::uint64_t bytes = (question.bytes + blocks - 1) / blocks * blocks;
  // A rank in the middle is as busy as any.
  GRADRAIL_ASSIGN(const Program middle, plan(*planner, shape, shape.ranks / 2));
  if (middle.steps.size() * static_cast<std::size_t>(shape.ranks) > k_most_simulated_steps) {
    GRADRAIL_ASSIGN(const Sample host, sample(*planner, shape));
    return estimate(host, bytes, model);
  }
  GRADRAIL_ASSIGN(const Schedule schedule, plan_all(*planner, shape));
  return simulate(schedule, bytes, model).seconds;
}

CostSelector::CostSelector(CostModel model, std::string source, const GroupTimes& times)
    : model_(model), source_(std::move(source)), ranks_(times.ranks), ranks_per_host_(times.ranks_per_host) {
  for (const Observation& one : times.observations) {
    if (one.bytes == 0 || one.seconds <= 0) continue;
    Question question;
    question.collective = one.collective;
    question.bytes = one.bytes;
    question.ranks = ranks_;
    question.ranks_per_host = ranks_per_host_;
    question.in_place = times.in_place;
    const auto modelled = predict(one.selection, question, model_);
    if (!modelled || *modelled <= 0) continue;
    const double at = std::log(static_cast<double>(one.bytes));
    sizes_[one.collective].insert(at);
    offsets_[one.collective][{one.selection.algorithm, one.selection.pieces}][at] = std::log(one.seconds / *modelled);
  }
}

std::optional<double> CostSelector::correction(const Selection& selection, const Question& question) const {
  const auto found = offsets_.find(question.collective);
  if (found == offsets_.end() || question.ranks != ranks_ || question.ranks_per_host != ranks_per_host_) return 1;
  const double at = std::log(static_cast<double>(std::max<std::uint64_t>(question.bytes, 1)));
  const auto own = found->second.find({selection.algorithm, selection.pieces});
  if (own == found->second.end()) return std::nullopt;
  // Near the size, or it had been left behind, or pieces were not worth trying.
  const auto& sizes = sizes_.at(question.collective);
  auto above = sizes.lower_bound(at);
  if (above == sizes.end()) --above;
  const auto below = above == sizes.begin() || *above <= at ? above : std::prev(above);
  if (!own->second.contains(*above) && !own->second.contains(*below)) return std::nullopt;
  return std::exp(interpolate(own->second, at));
}

Selection CostSelector::choose(const Question& question) const {
  if (const auto known = codecs_.find(question.collective);
      known != codecs_.end() && question.ranks == ranks_ && question.ranks_per_host == ranks_per_host_)
    if (const CodedChoice* choice = find_choice(known->second, question);
        choice != nullptr && can_carry(choice->selection, question))
      return choice->selection;
  if (Selection known = known_selection(question); !known.algorithm.empty()) return known;
  const Key key{question.collective, question.bytes, question.ranks, question.ranks_per_host, question.in_place};
  if (const auto known = answers_.find(key); known != answers_.end()) return known->second;
  const auto list = candidates(question, {.lanes = false});
  std::vector<double> seconds;
  for (const Selection& selection : list) {
    const auto predicted = predict(selection, question, model_);
    const auto factor = correction(selection, question);
    const double lead = selection.algorithm.starts_with("hierarchical") ? 1 : k_lead_of_hierarchical;
    seconds.push_back(predicted && factor ? *predicted * *factor * lead : std::numeric_limits<double>::infinity());
  }
  Selection answer = default_selection(question);
  if (!list.empty()) {
    const double least = *std::min_element(seconds.begin(), seconds.end());
    for (std::size_t i = 0; i < list.size(); ++i)
      if (std::isfinite(least) && seconds[i] <= least * k_model_tie) {
        answer = list[i];
        break;
      }
  }
  answers_.emplace(key, answer);
  return answer;
}

}  // namespace gradrail

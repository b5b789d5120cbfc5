#include "collectives/select/model_fit.h"

#include <algorithm>
#include <cmath>

#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

struct Planned {
  Schedule schedule;
  const Observation* observation;
};

double squared_error(const std::vector<Planned>& all, const CostModel& model) {
  double sum = 0;
  for (const Planned& one : all) {
    const double modelled = simulate(one.schedule, one.observation->bytes, model).seconds;
    const double off = std::log(std::max(modelled, 1e-12) / one.observation->seconds);
    sum += off * off;
  }
  return sum;
}

// Moves one parameter at a time by a factor, as long as that helps, with ever smaller factors (Hooke and Jeeves 1961).
double descend(const std::vector<Planned>& all, CostModel& model, bool several_hosts) {
  std::vector<double*> parameters = {&model.inside.alpha, &model.inside.beta, &model.gamma, &model.step};
  if (several_hosts) {
    parameters.push_back(&model.between.alpha);
    parameters.push_back(&model.between.beta);
  }
  constexpr double k_factors[] = {8, 3, 1.7, 1.3, 1.1, 1.04};
  constexpr int k_rounds = 6;
  double best = squared_error(all, model);
  for (const double factor : k_factors)
    for (int round = 0; round < k_rounds; ++round) {
      const double before = best;
      for (double* parameter : parameters) {
        const double value = *parameter;
        double kept = value;
        for (const double tried : {value * factor, value / factor}) {
          *parameter = tried;
          const double error = squared_error(all, model);
          if (error < best) {
            best = error;
            kept = tried;
          }
        }
        *parameter = kept;
      }
      if (best > before * 0.999) break;
    }
  return best;
}

}  // namespace

ModelFit fit_model(std::span<const Observation> observations, int ranks, int ranks_per_host, const CostModel& start) {
  std::vector<Planned> all;
  for (const Observation& observation : observations) {
    Shape shape;
    shape.collective = observation.collective;
    shape.ranks = ranks;
    shape.ranks_per_host = ranks_per_host;
    shape.lanes = observation.selection.lanes;
    shape.pieces = observation.selection.pieces;
    const auto planner = parse_algorithm(observation.selection.algorithm, shape);
    if (!planner || observation.seconds <= 0) continue;
    auto schedule = plan_all(**planner, shape);
    if (schedule) all.push_back({*std::move(schedule), &observation});
  }
  if (all.empty()) return {start, 0};
  ModelFit fit{start, 0};
  double least = descend(all, fit.model, ranks > ranks_per_host);
  // Whether the ranks of a host share one memory, or each pair has its own way, is a question of fit as well.
  CostModel apart = fit.model;
  apart.shared_medium = !apart.shared_medium;
  const double otherwise = descend(all, apart, ranks > ranks_per_host);
  if (otherwise < least) {
    fit.model = apart;
    least = otherwise;
  }
  fit.error = std::sqrt(least / static_cast<double>(all.size()));
  return fit;
}

}  // namespace gradrail

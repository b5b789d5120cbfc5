// How long planning takes: one rank's program of 1,024, as each rank of a large job makes it (target: 10 ms); and proof
// and simulation of all programs of 64 ranks, as tests and `auto` do.
#include <benchmark/benchmark.h>

#include "collectives/plan/planner.h"
#include "collectives/schedule/cost.h"
#include "collectives/schedule/verify.h"

namespace gradrail {
namespace {

Shape shape_of(const Planner& planner, int ranks) {
  Shape shape;
  shape.collective = planner.collective;
  shape.ranks = ranks;
  shape.ranks_per_host = 8;
  return shape;
}

void one_rank_of_1024(benchmark::State& state, const Planner* planner) {
  const Shape shape = shape_of(*planner, 1024);
  for (auto _ : state) {
    auto program = plan(*planner, shape, 341);
    if (!program) return state.SkipWithError(program.error().message.c_str());
    benchmark::DoNotOptimize(program->steps.data());
    state.counters["steps"] = static_cast<double>(program->steps.size());
  }
}

void verify_64(benchmark::State& state, const Planner* planner) {
  const auto schedule = plan_all(*planner, shape_of(*planner, 64));
  if (!schedule) return state.SkipWithError(schedule.error().message.c_str());
  for (auto _ : state) {
    auto verified = verify(*schedule);
    benchmark::DoNotOptimize(verified);
  }
}

void simulate_64(benchmark::State& state, const Planner* planner) {
  const auto schedule = plan_all(*planner, shape_of(*planner, 64));
  if (!schedule) return state.SkipWithError(schedule.error().message.c_str());
  for (auto _ : state) {
    auto cost = simulate(*schedule, 64u << 20, CostModel{});
    benchmark::DoNotOptimize(cost);
  }
}

[[maybe_unused]] const bool k_registered = [] {
  for (const Planner* planner : planners()) {
    const auto name = [&](const char* what) {
      return std::string(what) + "/" + std::string(planner->name) + "_" + std::string(to_string(planner->collective));
    };
    benchmark::RegisterBenchmark(name("one_rank_of_1024").c_str(), one_rank_of_1024, planner)
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(name("verify_64").c_str(), verify_64, planner)->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(name("simulate_64").c_str(), simulate_64, planner)->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace gradrail

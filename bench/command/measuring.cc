#include "bench/command/measuring.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <optional>

#include "bench/command/job.h"
#include "bench/command/run_record.h"

namespace gradrail {

namespace {

Result<std::optional<Bind>> parse_bind(const MeasuringTexts& texts) {
  if (texts.bind.empty()) return std::nullopt;
  if (texts.bind == "core") return Bind::core;
  if (texts.bind == "none") return Bind::none;
  return fail(Code::bad_usage, fmt::format("--bind is core or none, not '{}'", texts.bind));
}

}  // namespace

void add_measuring_options(CLI::App& app, MeasuringTexts& texts) {
  add_axis_options(app, texts.axes);
  add_bind_and_json_options(app, texts);
}

void add_bind_and_json_options(CLI::App& app, MeasuringTexts& texts) {
  app.add_option("--bind", texts.bind,
                 "Where ranks run: core (each bound to one, a physical core before two share one, and in turn where "
                 "ranks are more) or none; default: core where there is a CPU for every rank. Ranks of mpirun and srun "
                 "keep what these gave them")
      ->group("How to measure");
  app.add_option("--json", texts.json, "Records with every sample, one JSON object a line; - for standard output")
      ->group("Where results go");
}

int measure_as_job(const MeasuringTexts& texts, const std::vector<std::string>& argv,
                   const std::function<Result<void>(int ranks)>& before_work,
                   const std::function<Result<void>(MeasuringRank&)>& work) {
  JobOptions job;
  job.ranks = texts.axes.ranks;
  job.default_ranks = texts.default_ranks;
  job.argv = argv;
  const auto before = [&](int ranks) -> Result<void> {
    GRADRAIL_TRY(parse_bind(texts));
    return before_work(ranks);
  };
  return run_as_job(job, before, [&](Bootstrap& bootstrap) -> Result<void> {
    Run run = describe_run(bootstrap, argv);
    GRADRAIL_ASSIGN(const auto bind, parse_bind(texts));
    GRADRAIL_ASSIGN(Placement placement, place_rank(bootstrap, bind));
    run.job.cpus = placement.cpus;
    MeasuringRank rank{bootstrap, std::move(run), std::move(placement)};
    return work(rank);
  });
}

}  // namespace gradrail

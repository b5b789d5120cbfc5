#include "bench/command/measuring.h"

#include <CLI/CLI.hpp>

#include "bench/command/job.h"
#include "bench/command/run_record.h"

namespace gradrail {

void add_measuring_options(CLI::App& app, MeasuringTexts& texts) {
  add_axis_options(app, texts.axes);
  app.add_option("--json", texts.json, "Records with every sample, one JSON object a line")->group("Where results go");
}

int measure_as_job(const MeasuringTexts& texts, const std::vector<std::string>& argv,
                   const std::function<Result<void>(int ranks)>& before_work,
                   const std::function<Result<void>(MeasuringRank&)>& work) {
  JobOptions job;
  job.ranks = texts.axes.ranks;
  job.argv = argv;
  return run_as_job(job, before_work, [&](Bootstrap& bootstrap) -> Result<void> {
    Run run = describe_run(bootstrap, argv);
    GRADRAIL_ASSIGN(Placement placement, place_rank(bootstrap));
    MeasuringRank rank{bootstrap, std::move(run), std::move(placement)};
    return work(rank);
  });
}

}  // namespace gradrail

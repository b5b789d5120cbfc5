// What the commands that measure share (bench, tune): the options that all of them take, and the way from these to
// ranks that are described and stand on their cores.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/command/axes.h"
#include "bench/measure/placement.h"
#include "results/record.h"
#include "transports/base/result.h"
#include "transports/bootstrap.h"

namespace gradrail {

// As typed.
struct MeasuringTexts {
  AxisTexts axes;
  int default_ranks = 4;  // started where nothing was said
  std::string bind;       // empty: by what the machine has
  std::string json;
};

void add_bind_and_json_options(CLI::App& app, MeasuringTexts& texts);
// These, and those of the axes.
void add_measuring_options(CLI::App& app, MeasuringTexts& texts);

// One rank of a job that measures.
struct MeasuringRank {
  Bootstrap& bootstrap;
  Run run;  // the machine as it was before this rank was bound to a CPU
  Placement placement;
};

// As run_as_job(); `work` runs on ranks in their places. Returns the exit code.
[[nodiscard]] int measure_as_job(const MeasuringTexts& texts, const std::vector<std::string>& argv,
                                 const std::function<Result<void>(int ranks)>& before_work,
                                 const std::function<Result<void>(MeasuringRank&)>& work);

}  // namespace gradrail

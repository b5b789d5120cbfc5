// The record that opens a results file: this machine, this build, this job.
#pragma once

#include <string>
#include <vector>

#include "results/record.h"
#include "transports/bootstrap.h"

namespace gradrail {

[[nodiscard]] Run describe_run(const Bootstrap& bootstrap, const std::vector<std::string>& argv);

}  // namespace gradrail

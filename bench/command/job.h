// How a command becomes a job: in a process that is already a rank (started by the launcher, mpirun, srun or torchrun)
// it joins and works; otherwise it starts the ranks itself, on this host, and waits for them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "transports/base/result.h"
#include "transports/bootstrap.h"

namespace gradrail {

struct JobOptions {
  int ranks = 0;                  // as asked for with -n; 0: nothing was said
  int default_ranks = 4;          // started where nothing was said
  std::vector<std::string> argv;  // this program's, for the ranks
};

// `before_work` is told the number of ranks and runs once in a job: in the starting process, so that what is wrong with
// options and files is said before ranks are started; under mpirun, srun and torchrun on rank 0, which says it for all.
// `work` runs on every rank; its error is told to the launcher and ends the job. Returns the exit code.
[[nodiscard]] int run_as_job(const JobOptions& options, const std::function<Result<void>(int ranks)>& before_work,
                             const std::function<Result<void>(Bootstrap&)>& work);

}  // namespace gradrail

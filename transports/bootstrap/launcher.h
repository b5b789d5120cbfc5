// Starts the ranks of a job on this host, watches them, and makes one sentence of whatever goes wrong.
//
// The launcher stays out of the job: it makes the job's secret and the socket on which rank 0 meets the others, hands
// both to the ranks as inherited descriptors (nothing secret is on a command line or in the environment), and then only
// waits. Ranks live in a process group of their own, share standard output and error with the launcher, read nothing
// from its standard input, and die with it, however it dies. When launch() returns, no rank is left, and no descriptor.
//
// Call it from a thread that stays until it returns. While it runs, SIGINT, SIGTERM, SIGHUP, SIGQUIT and SIGTSTP to
// this process are taken by it and passed on to the ranks.
#pragma once

#include <string>
#include <vector>

#include "transports/base/clock.h"
#include "transports/base/result.h"

namespace gradrail {

struct LaunchOptions {
  int ranks = 1;
  std::vector<std::string> argv;           // argv[0] is the name that ps(1) shows
  std::string program = "/proc/self/exe";  // path of what every rank runs
  int port = 0;                            // where rank 0 meets the others on 127.0.0.1; 0: any free one
  Seconds settle{0.5};  // after the first sign of failure: for the others to end by themselves and say why
  Seconds grace{2};     // between SIGTERM and SIGKILL
  Seconds limit{0};     // for the whole job; 0: as long as it takes
};

// Runs the job to its end. 0 if all ranks ended well. Otherwise prints one sentence on standard error and gives 2 if
// the cause was bad usage, 128 plus the signal's number if the launcher was asked to stop by one, else 1. Errors, with
// nothing left running: bad_usage, exhausted (more ranks than the machine can bear), unavailable (the port is in use),
// system (the program cannot be started).
[[nodiscard]] Result<int> launch(const LaunchOptions& options);

}  // namespace gradrail

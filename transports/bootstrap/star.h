// The star of TCP connections around rank 0 that every job of more than one rank ends in, and the Bootstrap over it.
//
// Forming: rank 0 accepts until all numbers have come, each with the proof of the job's secret and a hello (build,
// rank, ranks, host, pid); the others connect, and gather. A hello that does not fit ends the job for all.
//
// After that, op k of the star is op k of every rank. A rank sends rank 0 its part, rank 0 sends everyone the outcome.
// When anything fails, rank 0 names the culprit to everyone, so that all ranks return the same error, and the star is
// dead. A rank whose own deadline passes first still waits a moment for that sentence.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/bootstrap.h"

namespace gradrail {

struct Meeting {
  std::string host;  // numeric, or a name
  int port = 0;
};

struct StarOptions {
  int rank = 0;
  int ranks = 1;  // 1: nobody to meet
  std::string origin;
  std::string build_id;
  Secret secret;
  Fd listener;                    // rank 0
  std::vector<Meeting> meetings;  // the others: addresses of rank 0, the best first
  Fd report;                      // to the launcher; none without one
  Seconds wait{30};
};

// Errors: timed_out (naming all missing ranks, or that rank 0 was not there), refused (two ranks of one number, mixed
// builds, another number of ranks, a wrong secret), peer_gone, system.
[[nodiscard]] Result<std::unique_ptr<Bootstrap>> form_star(StarOptions options);

// What every error of joining is told through: the launcher's pipe if `report` is one, else standard error.
void tell(int report, int rank, const Error& why);

[[nodiscard]] std::string host_name();

}  // namespace gradrail

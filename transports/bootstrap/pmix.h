// Meeting through PMIx, the wire-up service of mpirun and srun: rank 0 makes the job's secret, listens, and puts both
// its addresses and the secret into the job's key-value space, which only processes of this job can read; the others
// get them.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "transports/base/clock.h"
#include "transports/base/fd.h"
#include "transports/base/result.h"
#include "transports/bootstrap/star.h"
#include "transports/secret.h"

namespace gradrail {

// This process' connection to the PMIx server; one at a time.
class Pmix {
 public:
  // Errors: unavailable, with what the server said, or that this build lacks PMIx.
  [[nodiscard]] static Result<std::unique_ptr<Pmix>> connect();
  virtual ~Pmix() = default;

  [[nodiscard]] virtual int rank() const = 0;
  [[nodiscard]] virtual int ranks() const = 0;
  [[nodiscard]] virtual bool one_host() const = 0;
  [[nodiscard]] virtual Result<void> put(const std::string& value) = 0;
  // What rank 0 has put, or will put until the deadline. Errors: timed_out, system.
  [[nodiscard]] virtual Result<std::string> get(Deadline deadline) = 0;
};

struct PmixMeeting {
  Secret secret;
  Fd listener;                    // rank 0
  std::vector<Meeting> meetings;  // the others
};

// On one host rank 0 listens on loopback only; otherwise on all addresses, of which it publishes those of interfaces
// that are up, loopback left out.
[[nodiscard]] Result<PmixMeeting> meet_through(Pmix& pmix, Deadline deadline);

}  // namespace gradrail

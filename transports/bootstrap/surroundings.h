// How this process was started, read from its environment: by gradrail's launcher, by mpirun or srun (PMIx), with
// torchrun's variables, or by hand. Only the environment is looked at, so tests can feed any.
//
// torchrun's variables are RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT. Rank 0 listens on MASTER_PORT, or on
// MASTER_PORT + 1 if torchrun's own agent holds that port (TORCHELASTIC_USE_AGENT_STORE=True); GRADRAIL_PORT overrides.
// Such a job brings its secret along, on one host as on many, because any user of a host can connect to its loopback:
// GRADRAIL_SECRET (at least 16 characters) or GRADRAIL_SECRET_FILE (a file that only its owner can read).
#pragma once

#include <functional>
#include <string>

#include "transports/base/result.h"
#include "transports/secret.h"

namespace gradrail {

struct Surroundings {
  enum class Way { alone, launcher, pmix, torchrun };
  Way way = Way::alone;
  // Known for all ways but PMIx, whose server tells.
  int rank = 0;
  int ranks = 1;
  std::string host;  // where rank 0 is met, and listens
  int port = 0;
  // Inherited descriptors, by the launcher only.
  int listen_fd = -1;
  int report_fd = -1;
  int secret_fd = -1;
};

// The value of a variable, or nullptr.
using Variables = std::function<const char*(const char*)>;

// Errors: bad_usage (a malformed or missing variable; a job of many that this process cannot join, because it was
// started by something that does not speak PMIx); unavailable (started through PMIx, which this build lacks).
[[nodiscard]] Result<Surroundings> look_around(const Variables& variables);

// From GRADRAIL_SECRET or GRADRAIL_SECRET_FILE. Errors: bad_usage if neither is set, the text is short, or the file can
// be read by others.
[[nodiscard]] Result<Secret> read_secret(const Variables& variables);

}  // namespace gradrail

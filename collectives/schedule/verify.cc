#include "collectives/schedule/verify.h"

#include "collectives/schedule/proof.h"
#include "transports/base/check.h"

namespace gradrail {

Result<void> verify(const Schedule& schedule, const VerifyOptions& options) {
  GRADRAIL_CHECK(options.credits >= 0);
  GRADRAIL_TRY(proof::check_form(schedule));
  for (const Program& program : schedule.programs) GRADRAIL_TRY(proof::check_order(program));
  GRADRAIL_ASSIGN(const Matching matching, match(schedule));
  GRADRAIL_TRY(proof::check_lengths(schedule, matching));
  return proof::check_outcome(schedule, matching, options.credits);
}

}  // namespace gradrail

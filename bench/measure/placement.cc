#include "bench/measure/placement.h"

#include "transports/base/cores.h"

namespace gradrail {

Result<Placement> place_rank(const Bootstrap& bootstrap) {
  Placement placement{usable_cores(), false};
  if (bootstrap.origin() != "launcher") return placement;
  // The launcher's ranks are all on one host.
  if (static_cast<std::size_t>(bootstrap.ranks()) > placement.cores.size()) return placement;
  GRADRAIL_TRY(bind_to_core(placement.cores[static_cast<std::size_t>(bootstrap.rank())]));
  placement.bound = true;
  return placement;
}

}  // namespace gradrail

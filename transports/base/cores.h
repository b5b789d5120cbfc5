// The cores that this process may run on, and running on just one of them.
#pragma once

#include <vector>

#include "transports/base/result.h"

namespace gradrail {

// Logical CPU numbers, ascending; never empty.
[[nodiscard]] std::vector<int> usable_cores();
// The calling thread, and threads that it starts from now on, run on that core only.
[[nodiscard]] Result<void> bind_to_core(int core);

}  // namespace gradrail

// The cores that this process may run on, running on just one of them, and their last cache.
#pragma once

#include <cstdint>
#include <vector>

#include "transports/base/result.h"

namespace gradrail {

// Logical CPU numbers, ascending; never empty.
[[nodiscard]] std::vector<int> usable_cores();
// The calling thread, and threads that it starts from now on, run on that core only.
[[nodiscard]] Result<void> bind_to_core(int core);
// It goes on there, free to run on all cores that it may use; nothing happens where the system refuses.
void move_to_core(int core);

// Bytes of the last cache that the first of these cores has, as the kernel says; 0 if it does not.
[[nodiscard]] std::uint64_t last_cache_bytes();

}  // namespace gradrail

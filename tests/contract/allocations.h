// Counts calls of operator new in this test program, by thread.
#pragma once

#include <cstdint>

namespace gradrail::testing {

// Calls made by the present thread so far.
[[nodiscard]] std::uint64_t allocations();

}  // namespace gradrail::testing

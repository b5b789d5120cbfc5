// Broken invariants: a bug in this program, never a condition of the outside world. Prints the place and aborts.
#pragma once

namespace gradrail {
[[noreturn]] void check_failed(const char* expression, const char* file, int line);
}  // namespace gradrail

#define GRADRAIL_CHECK(condition) \
  (static_cast<bool>(condition) ? void(0) : ::gradrail::check_failed(#condition, __FILE__, __LINE__))

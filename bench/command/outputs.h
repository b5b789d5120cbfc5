// The files that a command writes, as their options named them, and standard output. What cannot be written is said
// before anything is measured; what an earlier run left there stays until this one begins to write.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "transports/base/result.h"

namespace gradrail {

struct Output {
  std::string_view option;  // "--json"
  const std::string* path;  // empty: not asked for
};

// Errors: bad_usage, naming the file that cannot be written or that two options name.
[[nodiscard]] Result<void> can_write(std::span<const Output> outputs);

// To standard output, at once: a run's table is read while it grows.
[[nodiscard]] Result<void> say(std::string_view text);

}  // namespace gradrail

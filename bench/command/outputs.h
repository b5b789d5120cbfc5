// The files that a command writes, as their options named them, and standard output, which `-` names: records then go
// there, and what is for people goes to standard error. What cannot be written is said
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
  bool records = false;     // lines that another program may read from a pipe: `-` is possible
};

// Errors: bad_usage, naming the file that cannot be written or that two options name.
[[nodiscard]] Result<void> can_write(std::span<const Output> outputs);
// Once the outputs are created: sends what is said from now on to standard error if one of them took standard output.
[[nodiscard]] Result<void> give_way(std::span<const Output> outputs);

// To standard output, at once: a run's table is read while it grows.
[[nodiscard]] Result<void> say(std::string_view text);

}  // namespace gradrail

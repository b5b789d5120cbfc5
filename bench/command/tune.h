// `gradrail tune`: measure adaptively, fit the decision table, judge it on sizes held out, write it.
#pragma once

#include <string>
#include <vector>

#include "bench/command/command.h"

namespace gradrail {

// `argv` is this program's own command line, which the ranks are started with.
[[nodiscard]] Command add_tune_command(CLI::App& parent, std::vector<std::string> argv);

}  // namespace gradrail

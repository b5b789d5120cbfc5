// `gradrail p2p`: latency, bandwidth and message rate between two ranks, or all pairs, over transports side by side.
#pragma once

#include <string>
#include <vector>

#include "bench/command/command.h"

namespace gradrail {

[[nodiscard]] Command add_p2p_command(CLI::App& parent, std::vector<std::string> argv);

}  // namespace gradrail

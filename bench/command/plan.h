// `gradrail plan ALGORITHM -n 4`: prints, proves, exports and draws a plan; moves no data.
#pragma once

#include "bench/command/command.h"

namespace gradrail {

[[nodiscard]] Command add_plan_command(CLI::App& parent);

}  // namespace gradrail

// `gradrail doctor`: what this host has, whether it is set up for fast communication, and what to do where it is not.
#pragma once

#include "bench/command/command.h"

namespace gradrail {

[[nodiscard]] Command add_doctor_command(CLI::App& parent);

}  // namespace gradrail

// What a run that compares codecs comes to: for each case, the fastest row of each codec beside the fastest without
// one. Pure functions.
#pragma once

#include <span>
#include <string>

#include "results/record.h"

namespace gradrail {

// Lines that begin with '#'; empty where no data was encoded.
[[nodiscard]] std::string codec_summary(std::span<const Point> points);

}  // namespace gradrail

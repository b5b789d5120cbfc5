// A picture of comparisons as SVG: how many times faster ours is than the best peer, by message size, one curve a case,
// both axes logarithmic, with the 95 % interval as a band and a line at 1. Text only, like chart.h.
#pragma once

#include <span>
#include <string>

#include "bench/report/chart.h"
#include "results/record.h"

namespace gradrail {

// Comparisons of different runs may stand in one picture. Without any, it says so.
[[nodiscard]] std::string against_svg(std::span<const Comparison> comparisons, const ChartOptions& options);

}  // namespace gradrail

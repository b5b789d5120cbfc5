// Point-to-point results as people read them: perftest's columns row by row, all pairs as a square of numbers, and the
// pairs and ranks that stand out. Makes text and writes nothing itself.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "bench/report/heat_map.h"
#include "results/record.h"

namespace gradrail {

// A pair's median counts as an outlier from this many robust standard deviations on (Iglewicz and Hoaglin 1993).
inline constexpr double k_outlier_score = 3.5;

// `test`: as in P2pPoint; the columns of latency are others than those of the rest.
[[nodiscard]] std::string p2p_header(const std::string& test);
[[nodiscard]] std::string p2p_row(const P2pPoint& point);

// One panel for each transport, of points of one test and size.
[[nodiscard]] std::vector<HeatPanel> heat_panels(std::span<const P2pPoint> points, int ranks);
// The same as numbers.
[[nodiscard]] std::string matrix_text(const HeatPanel& panel);
// "# outlier: rank 2 to 0 over tcp, 81.2 us, 7.4 robust deviations slower than ..." a line each; and where most pairs
// of a rank are among them, that rank instead. Empty without outliers.
[[nodiscard]] std::string outliers_text(std::span<const P2pPoint> points);

}  // namespace gradrail

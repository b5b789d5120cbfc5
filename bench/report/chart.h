// A picture of a sweep as SVG: time and bus bandwidth by message size, one line an algorithm, both axes logarithmic,
// with the 95 % interval of the median as a band around each line. Text only, no scripts, no fonts from elsewhere: it
// opens in any browser and can stand in a README.
#pragma once

#include <span>
#include <string>

#include "results/record.h"

namespace gradrail {

struct ChartOptions {
  std::string title;
  std::string subtitle;                                          // the machine, say
  std::string time = "time of one operation (lower is better)";  // above the panels
  std::string bandwidth = "bus bandwidth, GB/s (higher is better)";
};

// Points of one collective. A line is called by its algorithm, and by library, transport, topology and type where these
// differ among the points. Points without a time are left out; with none at all the chart says so.
[[nodiscard]] std::string chart_svg(std::span<const Point> points, const ChartOptions& options);

}  // namespace gradrail

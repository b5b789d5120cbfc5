// A picture of all pairs as SVG: a square for every pair, its figure in it, coloured from the worst to the best of its
// panel, with a frame around outliers. Text only, opens in any browser.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace gradrail {

struct HeatPanel {
  std::string heading;  // "latency of 8 B over shm, us"
  int ranks = 0;
  struct Cell {
    std::optional<double> value;
    bool outlier = false;
    std::string tip;
  };
  std::vector<Cell> cells;  // by row (from) and column (to)
  bool more_is_better = false;
};

[[nodiscard]] std::string heat_map_svg(std::span<const HeatPanel> panels, const std::string& title,
                                       const std::string& subtitle);

}  // namespace gradrail

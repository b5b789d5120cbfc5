#include "bench/report/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "bench/report/svg.h"

namespace gradrail {

namespace {

constexpr double k_left = 76;
constexpr double k_top = 92;
constexpr double k_widest = 720;  // of a panel
constexpr double k_largest_cell = 64;
constexpr double k_smallest_cell = 6;
constexpr double k_cell_for_figures = 34;
constexpr double k_panel_gap = 70;
constexpr int k_most_labels = 32;

struct Colour {
  double red, green, blue;
};
// From dark to light with steadily growing lightness, so that it also reads in grey.
constexpr std::array<Colour, 5> k_ramp = {
    Colour{68, 1, 84}, {59, 82, 139}, {33, 145, 140}, {94, 201, 98}, {253, 231, 37}};

Colour colour_at(double part) {
  const double place = std::clamp(part, 0.0, 1.0) * (k_ramp.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(place), k_ramp.size() - 2);
  const double rest = place - static_cast<double>(below);
  const auto mix = [&](double a, double b) { return a + (b - a) * rest; };
  return {mix(k_ramp[below].red, k_ramp[below + 1].red), mix(k_ramp[below].green, k_ramp[below + 1].green),
          mix(k_ramp[below].blue, k_ramp[below + 1].blue)};
}

double cell_size(int ranks) {
  return std::clamp(std::floor(k_widest / std::max(1, ranks)), k_smallest_cell, k_largest_cell);
}

std::string figure(double value) {
  return value < 9.995   ? fmt::format("{:.2f}", value)
         : value < 99.95 ? fmt::format("{:.1f}", value)
                         : fmt::format("{:.0f}", value);
}

std::string draw(const HeatPanel& panel, double top) {
  double low = HUGE_VAL, high = 0;
  for (const auto& cell : panel.cells)
    if (cell.value && *cell.value > 0) {
      low = std::min(low, *cell.value);
      high = std::max(high, *cell.value);
    }
  const double size = cell_size(panel.ranks);
  std::string out = fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" font-weight=\"bold\">{}</text>\n", k_left, top - 30,
                                svg_escaped(panel.heading));
  const int every = (panel.ranks + k_most_labels - 1) / k_most_labels;
  for (int rank = 0; rank < panel.ranks; rank += std::max(1, every)) {
    const double middle = (rank + 0.5) * size;
    out += fmt::format(
        "<text x=\"{0:.1f}\" y=\"{1:.1f}\" text-anchor=\"middle\" fill=\"#555\">{4}</text>\n"
        "<text x=\"{2:.1f}\" y=\"{3:.1f}\" text-anchor=\"end\" fill=\"#555\">{4}</text>\n",
        k_left + middle, top - 8, k_left - 8, top + middle + 4, rank);
  }
  std::string frames;
  for (std::size_t i = 0; i < panel.cells.size(); ++i) {
    const auto& cell = panel.cells[i];
    if (!cell.value) continue;
    const double x = k_left + static_cast<double>(i % static_cast<std::size_t>(panel.ranks)) * size;
    const double y = top + static_cast<double>(i / static_cast<std::size_t>(panel.ranks)) * size;
    // Logarithmic, as one bad pair may be far from all others; and in the middle where all are alike.
    double part = high > low && *cell.value > 0 ? std::log(*cell.value / low) / std::log(high / low) : 0.5;
    if (!panel.more_is_better) part = 1 - part;
    const Colour c = colour_at(part);
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" "
        "fill=\"#{:02x}{:02x}{:02x}\"><title>{}</title></rect>\n",
        x, y, size - 1, size - 1, static_cast<int>(c.red), static_cast<int>(c.green), static_cast<int>(c.blue),
        svg_escaped(cell.tip));
    if (size >= k_cell_for_figures)
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" fill=\"{}\">{}</text>\n", x + size / 2,
                         y + size / 2 + 4, part > 0.6 ? "#000" : "#fff", figure(*cell.value));
    if (cell.outlier)
      frames += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"none\" stroke=\"#d55e00\" "
          "stroke-width=\"3\"/>\n",
          x, y, size - 1, size - 1);
  }
  return out + frames;
}

}  // namespace

std::string heat_map_svg(std::span<const HeatPanel> panels, const std::string& title, const std::string& subtitle) {
  double height = k_top;
  double width = 480;
  for (const HeatPanel& panel : panels) {
    height += cell_size(panel.ranks) * panel.ranks + k_panel_gap;
    width = std::max(width, 2 * k_left + cell_size(panel.ranks) * panel.ranks);
  }
  std::string out = svg_opening({width, height, k_left, title, subtitle});
  double top = k_top + 20;
  for (const HeatPanel& panel : panels) {
    out += draw(panel, top);
    top += cell_size(panel.ranks) * panel.ranks + k_panel_gap;
  }
  if (panels.empty()) out += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">nothing was measured</text>\n", k_left, top);
  out += fmt::format(
      "<text x=\"{:.0f}\" y=\"{:.0f}\" fill=\"#555\">from the rank of the row to that of the column; light is good; "
      "framed: "
      "outliers</text>\n",
      k_left, height - 8);
  return out + "</svg>\n";
}

}  // namespace gradrail

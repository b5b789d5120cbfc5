#include "bench/report/against_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "bench/report/against.h"
#include "bench/report/figures.h"
#include "bench/report/svg.h"
#include "results/size.h"

namespace gradrail {

namespace {

constexpr double k_width = 880;
constexpr double k_left = 70;
constexpr double k_top = 84;
constexpr double k_panel_width = 770;
constexpr double k_panel_height = 340;
constexpr double k_legend_top = k_top + k_panel_height + 66;
constexpr double k_legend_row = 22;

class Plane {
 public:
  explicit Plane(std::span<const Comparison> comparisons) {
    double least = 1;
    double most = 1;
    for (const Comparison& c : comparisons) {
      x_low_ = std::min(x_low_, std::log2(static_cast<double>(c.bytes)));
      x_high_ = std::max(x_high_, std::log2(static_cast<double>(c.bytes)));
      least = std::min({least, c.ratio, low_of(c)});
      most = std::max({most, c.ratio, high_of(c)});
    }
    y_low_ = std::floor(std::log2(least));
    y_high_ = std::max(std::ceil(std::log2(most)), y_low_ + 1);
  }
  // An interval that says nothing (or is not a number) is no reason to stretch the picture.
  static double low_of(const Comparison& c) { return c.ci[0] > 0 && c.ci[0] > c.ratio / 4 ? c.ci[0] : c.ratio; }
  static double high_of(const Comparison& c) { return c.ci[1] > 0 && c.ci[1] < c.ratio * 4 ? c.ci[1] : c.ratio; }

  [[nodiscard]] double x(double bytes) const {
    const double span = x_high_ - x_low_;
    return k_left + (span > 0 ? (std::log2(bytes) - x_low_) / span : 0.5) * k_panel_width;
  }
  [[nodiscard]] double y(double ratio) const {
    return k_top + k_panel_height - (std::log2(ratio) - y_low_) / (y_high_ - y_low_) * k_panel_height;
  }

  [[nodiscard]] std::string grid() const {
    std::string out =
        fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"none\" stroke=\"#888\"/>\n", k_left,
                    k_top, k_panel_width, k_panel_height);
    const int stride = std::max(1, static_cast<int>(x_high_ - x_low_ + 12) / 13);
    for (int power = static_cast<int>(std::ceil(x_low_ - 1e-9)); power <= x_high_ + 1e-9; power += stride) {
      const double at = x(std::exp2(power));
      out += fmt::format(
          "<line x1=\"{0:.1f}\" y1=\"{1}\" x2=\"{0:.1f}\" y2=\"{2}\" stroke=\"#e4e4e4\"/>\n"
          "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>\n",
          at, k_top, k_top + k_panel_height, k_top + k_panel_height + 18, format_size(std::int64_t{1} << power));
    }
    for (double power = y_low_; power <= y_high_ + 1e-9; power += 1) {
      const double at = y(std::exp2(power));
      const bool one = power == 0;
      out += fmt::format(
          "<line x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2}\" y2=\"{1:.1f}\" stroke=\"{3}\" stroke-width=\"{4}\"/>\n"
          "<text x=\"{5}\" y=\"{6:.1f}\" text-anchor=\"end\">{7:g}</text>\n",
          k_left, at, k_left + k_panel_width, one ? "#444" : "#e4e4e4", one ? 1.6 : 1, k_left - 7, at + 4,
          std::exp2(power));
    }
    return out +
           fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"middle\" fill=\"#555\">message size</text>\n",
                       k_left + k_panel_width / 2, k_top + k_panel_height + 38);
  }

 private:
  double x_low_ = HUGE_VAL;
  double x_high_ = -HUGE_VAL;
  double y_low_ = 0;
  double y_high_ = 1;
};

std::string curve(const Plane& plane, const std::vector<Comparison>& sizes, std::string_view colour) {
  std::string band;
  std::string path;
  std::string marks;
  for (const Comparison& c : sizes) {
    const auto bytes = static_cast<double>(c.bytes);
    band += fmt::format("{:.1f},{:.1f} ", plane.x(bytes), plane.y(Plane::high_of(c)));
    path += fmt::format("{:.1f},{:.1f} ", plane.x(bytes), plane.y(c.ratio));
    marks += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"><title>{}</title></circle>\n", plane.x(bytes),
        plane.y(c.ratio), colour,
        svg_escaped(fmt::format("{}: {} against {} of {}:{}", format_size(c.bytes), format_duration(c.ours_us),
                                format_duration(c.peer_us), c.peer, c.configuration)));
  }
  for (auto at = sizes.rbegin(); at != sizes.rend(); ++at)
    band += fmt::format("{:.1f},{:.1f} ", plane.x(static_cast<double>(at->bytes)), plane.y(Plane::low_of(*at)));
  return fmt::format(
             "<polygon points=\"{0}\" fill=\"{2}\" fill-opacity=\"0.18\"/>\n"
             "<polyline points=\"{1}\" fill=\"none\" stroke=\"{2}\" stroke-width=\"1.8\"/>\n",
             band, path, colour) +
         marks;
}

}  // namespace

std::string against_svg(std::span<const Comparison> comparisons, const ChartOptions& options) {
  std::vector<Comparison> drawable;
  for (const Comparison& c : comparisons)
    if (c.ratio > 0 && std::isfinite(c.ratio) && c.bytes > 0) drawable.push_back(c);
  const auto cases = by_case(drawable);
  const double height = k_legend_top + static_cast<double>(std::max<std::size_t>(cases.size(), 1)) * k_legend_row + 10;
  std::string out = svg_opening({k_width, height, k_left, options.title, options.subtitle});
  out += fmt::format(
      "<text x=\"{:.0f}\" y=\"{:.0f}\">time of the best peer / time of gradrail: above 1, gradrail is "
      "faster</text>\n",
      k_left, k_top - 12);
  if (cases.empty())
    return out +
           fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">nothing was compared</text>\n</svg>\n", k_left, k_top + 30);
  const Plane plane(drawable);
  out += plane.grid();
  for (std::size_t i = 0; i < cases.size(); ++i) out += curve(plane, cases[i], svg_colour(i));
  for (std::size_t i = 0; i < cases.size(); ++i) {
    const double y = k_legend_top + static_cast<double>(i) * k_legend_row;
    out += fmt::format(
        "<line x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2}\" y2=\"{1:.1f}\" stroke-width=\"3\" stroke=\"{3}\"/>\n"
        "<text x=\"{4}\" y=\"{5:.1f}\">{6}; geometric mean {7}</text>\n",
        k_left, y, k_left + 26, svg_colour(i), k_left + 34, y + 4, svg_escaped(case_name(cases[i].front())),
        format_factor(score_of(cases[i]).geometric_mean));
  }
  return out + "</svg>\n";
}

}  // namespace gradrail

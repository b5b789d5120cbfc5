#include "bench/report/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>
#include <vector>

#include "bench/report/figures.h"
#include "bench/report/svg.h"
#include "results/size.h"

namespace gradrail {
namespace {

constexpr double k_width = 1080;
constexpr double k_panel_width = 440;
constexpr double k_panel_height = 330;
constexpr double k_panel_top = 92;
constexpr double k_left = 76;
constexpr double k_panel_gap = 94;
constexpr double k_legend_top = k_panel_top + k_panel_height + 76;
constexpr double k_legend_row = 22;

struct Sample {  // one mark in a panel
  double x, y, low, high;
  std::string tip;
};

struct Line {
  std::string name;
  std::vector<const Point*> points;  // by size
};

std::vector<Line> lines_of(std::span<const Point> points) {
  std::vector<const Point*> timed;
  for (const Point& point : points)
    if (point.time_us && point.time_us->median > 0 && point.bytes > 0) timed.push_back(&point);
  const auto differs = [&](auto member) {
    std::set<std::string> values;
    for (const Point* point : timed) values.insert(point->*member);
    return values.size() > 1;
  };
  const std::array qualifiers = {&Point::library, &Point::transport, &Point::topology, &Point::type};
  std::vector<std::string Point::*> shown;
  for (const auto member : qualifiers)
    if (differs(member)) shown.push_back(member);

  std::vector<Line> lines;
  for (const Point* point : timed) {
    std::string name = point->requested.value_or(point->algorithm);
    for (const auto member : shown) name += fmt::format(" {}", point->*member);
    auto at = std::find_if(lines.begin(), lines.end(), [&](const Line& line) { return line.name == name; });
    if (at == lines.end()) at = lines.insert(lines.end(), {name, {}});
    at->points.push_back(point);
  }
  for (Line& line : lines)
    std::stable_sort(line.points.begin(), line.points.end(),
                     [](const Point* a, const Point* b) { return a->bytes < b->bytes; });
  return lines;
}

// A logarithmic axis from `low` to `high`, both positive, over `length` pixels.
class Axis {
 public:
  Axis(double low, double high, double length)
      : low_(std::log10(low)), span_(std::log10(high) - low_), length_(length) {}
  [[nodiscard]] double at(double value) const {
    return span_ > 0 ? (std::log10(value) - low_) / span_ * length_ : length_ / 2;
  }

 private:
  double low_, span_, length_;
};

class Panel {
 public:
  Panel(double left, std::string_view heading, std::vector<std::vector<Sample>> series, std::string (*tick)(double))
      : left_(left), heading_(heading), series_(std::move(series)), tick_(tick) {}

  [[nodiscard]] std::string draw() const;

 private:
  double left_;
  std::string_view heading_;
  std::vector<std::vector<Sample>> series_;
  std::string (*tick_)(double);
};

// Dashed once the colours begin again.
std::string style_of(std::size_t index) {
  return fmt::format("stroke=\"{}\"{}", svg_colour(index), index < k_svg_colours ? "" : " stroke-dasharray=\"5 3\"");
}

std::string Panel::draw() const {
  double x_low = HUGE_VAL, x_high = 0, y_low = HUGE_VAL, y_high = 0;
  for (const auto& samples : series_)
    for (const Sample& sample : samples) {
      x_low = std::min(x_low, sample.x);
      x_high = std::max(x_high, sample.x);
      y_low = std::min(y_low, sample.low);
      y_high = std::max(y_high, sample.high);
    }
  // Whole decades, unless that would leave more than half of the panel empty; then to 1, 2 or 5.
  const auto round_to = [](double value, bool up) {
    const double decade = std::pow(10, std::floor(std::log10(value)));
    if (up) {
      for (const double step : {1.0, 2.0, 5.0})
        if (value <= step * decade * (1 + 1e-9)) return step * decade;
      return 10 * decade;
    }
    for (const double step : {5.0, 2.0})
      if (value >= step * decade * (1 - 1e-9)) return step * decade;
    return decade;
  };
  y_low = round_to(y_low, false);
  y_high = round_to(y_high, true);
  const Axis x_axis(x_low, x_high, k_panel_width);
  const Axis y_axis(y_low, y_high, k_panel_height);
  const auto x_at = [&](double value) { return left_ + x_axis.at(value); };
  const auto y_at = [&](double value) { return k_panel_top + k_panel_height - y_axis.at(value); };

  std::string out = fmt::format(
      "<text x=\"{:.1f}\" y=\"{:.1f}\" font-weight=\"bold\">{}</text>\n<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{}\" "
      "height=\"{}\" fill=\"none\" stroke=\"#888\"/>\n",
      left_, k_panel_top - 12, heading_, left_, k_panel_top, k_panel_width, k_panel_height);

  // Powers of two on the x axis, thinned to at most eight labels.
  const int first = static_cast<int>(std::ceil(std::log2(x_low) - 1e-9));
  const int last = static_cast<int>(std::floor(std::log2(x_high) + 1e-9));
  const int stride = std::max(1, (last - first + 7) / 7);
  for (int power = first; power <= last; power += stride) {
    const double x = x_at(std::exp2(power));
    out += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" stroke=\"#e4e4e4\"/>\n"
        "<text x=\"{0:.1f}\" y=\"{3:.1f}\" text-anchor=\"middle\">{4}</text>\n",
        x, k_panel_top, k_panel_top + k_panel_height, k_panel_top + k_panel_height + 18,
        format_size(std::int64_t{1} << power));
  }
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\" fill=\"#555\">message size</text>\n",
                     left_ + k_panel_width / 2, k_panel_top + k_panel_height + 38);

  // 1, 2, 5 of each decade on the y axis; only decades are labelled where there are more than three of them.
  const bool many_decades = y_high / y_low > 1500;
  for (double decade = std::pow(10, std::floor(std::log10(y_low))); decade <= y_high * (1 + 1e-9); decade *= 10)
    for (const double step : {1.0, 2.0, 5.0}) {
      const double value = step * decade;
      if (value < y_low * (1 - 1e-9) || value > y_high * (1 + 1e-9) || (many_decades && step != 1)) continue;
      const double y = y_at(value);
      out += fmt::format(
          "<line x1=\"{0:.1f}\" y1=\"{2:.1f}\" x2=\"{1:.1f}\" y2=\"{2:.1f}\" stroke=\"#e4e4e4\"/>\n"
          "<text x=\"{3:.1f}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n",
          left_, left_ + k_panel_width, y, left_ - 7, y + 4, tick_(value));
    }

  for (std::size_t i = 0; i < series_.size(); ++i) {
    const auto& samples = series_[i];
    if (samples.empty()) continue;
    std::string band, path;
    for (const Sample& sample : samples) band += fmt::format("{:.1f},{:.1f} ", x_at(sample.x), y_at(sample.high));
    for (auto at = samples.rbegin(); at != samples.rend(); ++at)
      band += fmt::format("{:.1f},{:.1f} ", x_at(at->x), y_at(at->low));
    for (const Sample& sample : samples) path += fmt::format("{:.1f},{:.1f} ", x_at(sample.x), y_at(sample.y));
    out += fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.18\"/>\n", band, svg_colour(i));
    out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke-width=\"1.8\" {}/>\n", path, style_of(i));
    for (const Sample& sample : samples)
      out += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\" fill=\"{}\"><title>{}</title></circle>\n",
                         x_at(sample.x), y_at(sample.y), svg_colour(i), svg_escaped(sample.tip));
  }
  return out;
}

// "10 ms" where format_duration() has the digits of a measurement, "10.0 ms".
std::string time_tick(double us) {
  if (us < 0.9995) return fmt::format("{:.3g} ns", us * 1e3);
  if (us < 999.5) return fmt::format("{:.3g} us", us);
  if (us < 999.5e3) return fmt::format("{:.3g} ms", us / 1e3);
  return fmt::format("{:.3g} s", us / 1e6);
}

std::string bandwidth_tick(double gbs) { return fmt::format("{:g}", gbs); }

std::string legend(const std::vector<Line>& lines, std::size_t columns) {
  std::string out;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const double x = k_left + static_cast<double>(i % columns) * (k_width - k_left) / static_cast<double>(columns);
    const double y = k_legend_top + static_cast<double>(i / columns) * k_legend_row;
    out += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{2:.1f}\" y2=\"{1:.1f}\" stroke-width=\"3\" {3}/>\n"
        "<text x=\"{4:.1f}\" y=\"{5:.1f}\">{6}</text>\n",
        x, y, x + 26, style_of(i), x + 33, y + 4, svg_escaped(lines[i].name));
  }
  return out;
}

}  // namespace

std::string chart_svg(std::span<const Point> points, const ChartOptions& options) {
  const std::vector<Line> lines = lines_of(points);
  std::vector<std::vector<Sample>> times, bandwidths;
  std::size_t longest_name = 0;
  for (const Line& line : lines) {
    longest_name = std::max(longest_name, line.name.size());
    auto& time = times.emplace_back();
    auto& bandwidth = bandwidths.emplace_back();
    for (const Point* point : line.points) {
      const Timing& t = *point->time_us;
      const auto x = static_cast<double>(point->bytes);
      const double low = t.ci[0] > 0 ? t.ci[0] : t.median;
      const double high = t.ci[1] > 0 ? t.ci[1] : t.median;
      const std::string tip = fmt::format("{}, {}: {} ({} GB/s bus bandwidth)", line.name, format_size(point->bytes),
                                          format_duration(t.median), format_gbs(point->busbw_gbs));
      time.push_back({x, t.median, low, high, tip});
      // Bandwidth is the inverse of time, so its band is that of time turned over.
      if (point->busbw_gbs > 0)
        bandwidth.push_back(
            {x, point->busbw_gbs, point->busbw_gbs * t.median / high, point->busbw_gbs * t.median / low, tip});
    }
  }

  const std::size_t columns = longest_name > 24 ? 3 : longest_name > 14 ? 4 : 6;
  const std::size_t rows = (lines.size() + columns - 1) / columns;
  const double height = k_legend_top + static_cast<double>(std::max<std::size_t>(rows, 1)) * k_legend_row + 24;
  std::string out = svg_opening({k_width, height, k_left, options.title, options.subtitle});
  if (lines.empty()) {
    out += fmt::format("<text x=\"{:.0f}\" y=\"{:.0f}\">no point was timed</text>\n</svg>\n", k_left, k_panel_top + 30);
    return out;
  }
  out += Panel(k_left, options.time, std::move(times), time_tick).draw();
  const bool any_bandwidth =
      std::any_of(bandwidths.begin(), bandwidths.end(), [](const auto& line) { return !line.empty(); });
  if (any_bandwidth)  // a single rank moves nothing
    out += Panel(k_left + k_panel_width + k_panel_gap, options.bandwidth, std::move(bandwidths), bandwidth_tick).draw();
  out += legend(lines, columns);
  out += fmt::format(
      "<text x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\" fill=\"#555\">median of each point, shaded: its 95 % "
      "confidence "
      "interval</text>\n",
      k_left + 2 * k_panel_width + k_panel_gap, height - 6);
  return out + "</svg>\n";
}

}  // namespace gradrail

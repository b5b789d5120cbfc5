#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>

#include "collectives/schedule/matching.h"
#include "collectives/schedule/render.h"
#include "collectives/schedule/timeline.h"
#include "transports/base/check.h"

namespace gradrail {

namespace {

// Okabe and Ito's colours, which colour-blind readers can tell apart.
constexpr std::array k_colours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                  "#e69f00", "#56b4e9", "#7a5c00", "#555555"};

std::string_view colour(std::size_t lane) { return k_colours[lane % k_colours.size()]; }

std::string escaped(std::string_view text) {
  std::string xml;
  for (const char c : text) {
    if (c == '&')
      xml += "&amp;";
    else if (c == '<')
      xml += "&lt;";
    else
      xml += c;
  }
  return xml;
}

class Drawing {
 public:
  Drawing(const Schedule& schedule, std::string_view title) : schedule_(schedule), title_(title) {
    // A message takes one round, everything else none, and nothing is shared: what is left is who waits for whom.
    CostModel rounds;
    rounds.inside = rounds.between = {1, 0};
    rounds.gamma = rounds.step = 0;
    rounds.shared_medium = false;
    rounds.credits = std::numeric_limits<int>::max();
    const std::uint64_t bytes = schedule.programs.empty() ? 0 : schedule.programs[0].grid;
    timeline_ = timeline_of(schedule, bytes * static_cast<std::uint64_t>(schedule.shape.ranks), rounds);
    auto matched = match(schedule);
    GRADRAIL_CHECK(matched.has_value());
    matching_ = *std::move(matched);
    rounds_ = static_cast<int>(std::lround(timeline_.cost.seconds));
    ranks_ = schedule.shape.ranks;
    round_width_ = rounds_ <= 16 ? std::max(112, 480 / std::max(1, rounds_)) : 72;
    row_height_ = ranks_ <= 4 ? 84 : 60;
    legend_y_ = k_top + ranks_ * row_height_ + 10;
    // Titles and legend need some width, however few the rounds.
    width_ = std::max(k_left + std::max(1, rounds_) * round_width_ + 40, 760);
    height_ = legend_y_ + 44;
  }

  std::string draw() {
    print(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" "
        "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n",
        width_, height_);
    draw_heads();
    print("<rect width=\"{}\" height=\"{}\" fill=\"#ffffff\"/>\n", width_, height_);
    draw_titles();
    draw_rows();
    draw_messages();
    draw_local_steps();
    draw_legend();
    svg_ += "</svg>\n";
    return std::move(svg_);
  }

 private:
  static constexpr int k_left = 110;
  static constexpr int k_top = 98;

  template <class... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(svg_), format, std::forward<Args>(args)...);
  }

  [[nodiscard]] double x(double round) const { return k_left + round * round_width_; }
  [[nodiscard]] double y(std::uint32_t rank) const { return k_top + (rank + 0.5) * row_height_; }

  void draw_heads() {
    svg_ += "<defs>\n";
    for (std::size_t i = 0; i < k_colours.size(); ++i)
      print(
          "<marker id=\"head{}\" viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" "
          "orient=\"auto\"><path d=\"M0 1 L10 5 L0 9 z\" fill=\"{}\"/></marker>\n",
          i, k_colours[i]);
    svg_ += "</defs>\n";
  }

  void draw_titles() {
    const Shape& shape = schedule_.shape;
    std::string title = title_.empty() ? std::string() : escaped(title_) + ": ";
    title += fmt::format("{} on {} rank{}", to_string(shape.collective), ranks_, ranks_ == 1 ? "" : "s");
    if (has_root(shape.collective)) title += fmt::format(", root {}", shape.root);
    print("<text x=\"20\" y=\"30\" font-size=\"19\" font-weight=\"bold\" fill=\"#111\">{}</text>\n", title);
    std::uint64_t most = 0;
    for (const Program& program : schedule_.programs) {
      std::uint64_t chunks = 0;
      for (const Step& s : program.steps) chunks += s.op == Op::send ? s.chunks : 0;
      most = std::max(most, chunks);
    }
    const std::uint32_t grid = schedule_.programs.empty() ? 1 : schedule_.programs[0].grid;
    print(
        "<text x=\"20\" y=\"52\" fill=\"#444\">{} round{}; the data is {} chunk{}, of which the busiest rank sends {} "
        "in all "
        "({:.3g} times the data){}</text>\n",
        rounds_, rounds_ == 1 ? "" : "s", grid, grid == 1 ? "" : "s", most,
        static_cast<double>(most) / static_cast<double>(grid), shape.in_place ? "; in place" : "");
  }

  void draw_rows() {
    const int per_host = schedule_.shape.ranks_per_host;
    const bool hosts = per_host > 1 && schedule_.shape.hosts() > 1;
    if (hosts)
      for (int host = 0; host < schedule_.shape.hosts(); ++host) {
        const int top = k_top + host * per_host * row_height_;
        print("<rect x=\"14\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"{}\"/>\n", top + 3, width_ - 28,
              per_host * row_height_ - 6, host % 2 == 0 ? "#f2f5f8" : "#faf6ef");
        print("<text x=\"20\" y=\"{}\" fill=\"#888\" font-size=\"11\">host {}</text>\n", top + 17, host);
      }
    for (int round = 0; round <= rounds_; ++round) {
      print("<line x1=\"{0:.0f}\" y1=\"{1}\" x2=\"{0:.0f}\" y2=\"{2}\" stroke=\"#e2e2e2\"/>\n", x(round), k_top - 6,
            k_top + ranks_ * row_height_);
      if (round < rounds_)
        print("<text x=\"{:.0f}\" y=\"{}\" text-anchor=\"middle\" fill=\"#666\">{}</text>\n", x(round + 0.5),
              k_top - 12, round + 1);
    }
    print("<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#666\">round</text>\n", k_left - 12, k_top - 12);
    for (std::uint32_t rank = 0; rank < static_cast<std::uint32_t>(ranks_); ++rank) {
      print("<text x=\"{}\" y=\"{:.0f}\" text-anchor=\"end\" fill=\"#111\">rank {}</text>\n", k_left - 12, y(rank) + 4,
            rank);
      print("<line x1=\"{:.0f}\" y1=\"{:.0f}\" x2=\"{:.0f}\" y2=\"{:.0f}\" stroke=\"#999\"/>\n", x(0), y(rank),
            x(std::max(1, rounds_)), y(rank));
    }
  }

  // The chunks of a message, short enough to stand on its arrow: "3", "0-1".
  static std::string chunks_of(const Step& s) {
    const std::uint32_t first = s.op == Op::recv ? s.to.chunk : s.from.chunk;
    return s.chunks == 1 ? std::to_string(first) : fmt::format("{}-{}", first, first + s.chunks - 1);
  }

  void draw_messages() {
    // How many messages leave a rank at a moment, and how many of them are drawn: labels are spread along the arrows.
    const auto moments = static_cast<std::size_t>(rounds_) + 1;
    struct Leaving {
      int all = 0;
      int drawn = 0;
    };
    std::vector<Leaving> leaving(static_cast<std::size_t>(ranks_) * moments);
    const auto at = [&](std::size_t message) -> Leaving& {
      const auto moment = static_cast<std::size_t>(std::lround(timeline_.messages[message].end));
      return leaving[matching_.pipes[matching_.messages[message].pipe].from * moments + moment];
    };
    for (std::size_t message = 0; message < matching_.messages.size(); ++message) ++at(message).all;

    std::string labels;  // above all arrows
    for (std::size_t message = 0; message < matching_.messages.size(); ++message) {
      const Message& m = matching_.messages[message];
      const Pipe& pipe = matching_.pipes[m.pipe];
      const Step& send = schedule_.programs[pipe.from].steps[m.send];
      const Step& receive = schedule_.programs[pipe.to].steps[m.receive];
      const double end = timeline_.messages[message].end;
      const bool reduces = receive.op == Op::recv_reduce;
      const double x1 = x(end - 1) + 3, x2 = x(end) - 3;
      // Arrows end beside the row's line, so that what comes from above and from below stays apart.
      const bool down = pipe.to > pipe.from;
      // Lanes run side by side.
      const double aside = std::min(5.0, 20.0 / schedule_.shape.lanes) *
                           (static_cast<double>(pipe.lane) - 0.5 * (schedule_.shape.lanes - 1));
      const double y1 = y(pipe.from) + aside, y2 = y(pipe.to) + aside + (down ? -2 : 2);
      print(
          "<line x1=\"{:.0f}\" y1=\"{:.0f}\" x2=\"{:.0f}\" y2=\"{:.0f}\" stroke=\"{}\" stroke-width=\"1.6\"{} "
          "marker-end=\"url(#head{})\"><title>rank {} step {} to rank {} step {}: chunks {}, lane "
          "{}{}</title></line>\n",
          x1, y1, x2, y2, colour(pipe.lane), reduces ? "" : " stroke-dasharray=\"6 3\"", pipe.lane % k_colours.size(),
          pipe.from, m.send, pipe.to, m.receive, chunks_of(send), pipe.lane, reduces ? ", reduced" : "");
      Leaving& group = at(message);
      // Near its own row, where the arrows of other ranks seldom cross.
      const double near = std::min(0.3, 0.32 * row_height_ / std::abs(y2 - y1));
      const double along = group.all == 1 ? near : near + (0.75 - near) * group.drawn / (group.all - 1);
      ++group.drawn;
      if (schedule_.programs[0].grid == 1) continue;  // every label would be the same
      fmt::format_to(std::back_inserter(labels), "<text x=\"{:.0f}\" y=\"{:.0f}\" fill=\"{}\">{}</text>\n",
                     x1 + along * (x2 - x1), y1 + along * (y2 - y1) + 4, colour(pipe.lane), chunks_of(send));
    }
    print(
        "<g font-size=\"12\" font-weight=\"bold\" text-anchor=\"middle\" stroke=\"#ffffff\" stroke-width=\"4\" "
        "stroke-linejoin=\"round\" paint-order=\"stroke\">\n{}</g>\n",
        labels);
  }

  void draw_local_steps() {
    for (const Program& program : schedule_.programs)
      for (std::size_t index = 0; index < program.steps.size(); ++index) {
        const Step& s = program.steps[index];
        if (s.talks()) continue;
        const auto rank = static_cast<std::uint32_t>(program.rank);
        const double when = timeline_.spans[rank][index].end;
        print(
            "<rect x=\"{:.0f}\" y=\"{:.0f}\" width=\"10\" height=\"10\" fill=\"{}\" stroke=\"{}\" "
            "stroke-width=\"1.6\"><title>rank {} step {}: {} {} to {}</title></rect>\n",
            x(when) - 5, y(rank) - 5, s.op == Op::reduce ? colour(s.lane) : "#ffffff", colour(s.lane), rank, index,
            to_string(s.op), to_string(s.from, s.chunks), to_string(s.to, s.chunks));
      }
  }

  void draw_legend() {
    int at = 20;
    const int line = legend_y_ + 16;
    const auto label = [&](std::string_view text) {
      print("<text x=\"{}\" y=\"{}\" fill=\"#444\">{}</text>\n", at, line + 4, text);
      at += static_cast<int>(text.size()) * 7 + 22;
    };
    const auto arrow = [&](const char* dash, std::string_view text) {
      print(
          "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" stroke=\"#555555\" stroke-width=\"1.6\"{} "
          "marker-end=\"url(#head7)\"/>\n",
          at, line, at + 34, line, dash);
      at += 42;
      label(text);
    };
    const auto box = [&](std::string_view fill, std::string_view stroke, std::string_view text) {
      print("<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{}\" stroke=\"{}\" stroke-width=\"1.6\"/>\n", at,
            line - 5, fill, stroke);
      at += 16;
      label(text);
    };
    arrow("", "received and reduced");
    arrow(" stroke-dasharray=\"6 3\"", "received");
    box("#ffffff", "#555555", "copied");
    box("#555555", "#555555", "reduced");
    const int lanes = schedule_.shape.lanes;
    for (int lane = 0; lane < std::min<int>(lanes, k_colours.size()); ++lane)
      box(colour(static_cast<std::size_t>(lane)), colour(static_cast<std::size_t>(lane)), fmt::format("lane {}", lane));
    if (lanes > static_cast<int>(k_colours.size())) label("(colours repeat)");
  }

  const Schedule& schedule_;
  const std::string_view title_;
  Timeline timeline_;
  Matching matching_;
  int rounds_ = 0, ranks_ = 0;
  int round_width_ = 0, row_height_ = 0, legend_y_ = 0, width_ = 0, height_ = 0;
  std::string svg_;
};

}  // namespace

std::string to_svg(const Schedule& schedule, std::string_view title) { return Drawing(schedule, title).draw(); }

}  // namespace gradrail

#include "bench/report/svg.h"

#include <fmt/format.h>

#include <array>

namespace gradrail {

std::string_view svg_colour(std::size_t index) {
  static constexpr std::array<std::string_view, k_svg_colours> k_colours = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                                                            "#e69f00", "#56b4e9", "#000000", "#999933"};
  return k_colours[index % k_colours.size()];
}

std::string svg_escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '&': out += "&amp;"; break;
      case '"': out += "&quot;"; break;
      default:
        if (static_cast<unsigned char>(c) >= ' ') out += c;
    }
  }
  return out;
}

std::string svg_opening(const SvgPage& page) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
      "<text x=\"{2:.0f}\" y=\"30\" font-size=\"18\" font-weight=\"bold\">{3}</text>\n"
      "<text x=\"{2:.0f}\" y=\"50\" fill=\"#555\">{4}</text>\n",
      page.width, page.height, page.left, svg_escaped(page.title), svg_escaped(page.subtitle));
}

}  // namespace gradrail

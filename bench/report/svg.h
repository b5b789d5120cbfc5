// What the pictures of bench/report have in common: how an SVG document opens, text that is safe in it, and the colours
// of lines. Text only; pure functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gradrail {

// Colours that people with colour-blindness tell apart (Okabe and Ito 2008), again from the first after the last.
[[nodiscard]] std::string_view svg_colour(std::size_t index);
inline constexpr std::size_t k_svg_colours = 8;

// Without what would be markup, and without control characters.
[[nodiscard]] std::string svg_escaped(std::string_view text);

struct SvgPage {
  double width = 0;
  double height = 0;
  double left = 0;  // of title and subtitle
  std::string_view title;
  std::string_view subtitle;
};
// The document's beginning, on white, with title and subtitle down to about 50 pixels. End it with "</svg>\n".
[[nodiscard]] std::string svg_opening(const SvgPage& page);

}  // namespace gradrail

#include "results/size.h"

#include <fmt/format.h>

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>

namespace gradrail {
namespace {

constexpr std::string_view k_units = "KMGT";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

tl::unexpected<Error> wrong_size(std::string_view text, std::string_view why) {
  return fail(Code::bad_usage, fmt::format("'{}' {}", text, why));
}

}  // namespace

Result<std::int64_t> parse_size(std::string_view text) {
  constexpr std::string_view k_not_a_size =
      "is not a size; write bytes, or a number with K, M, G or T, like 4096 or 256M";
  using Wide = unsigned __int128;
  constexpr Wide k_most = std::numeric_limits<std::int64_t>::max();

  std::string_view rest = text;
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  while (!rest.empty() && rest.back() == ' ') rest.remove_suffix(1);
  if (rest.size() > 1 && rest.front() == '-' && is_digit(rest[1]))
    return wrong_size(text, "is negative; a size is at least 1 byte");
  if (rest.empty() || !is_digit(rest.front())) return wrong_size(text, k_not_a_size);

  // The number as digits x 10^-decimals; once it is beyond 64 bits, further digits cannot bring it back.
  Wide digits = 0;
  Wide scale = 1;
  bool too_large = false;
  bool fraction = false;
  while (!rest.empty() && (is_digit(rest.front()) || (rest.front() == '.' && !fraction))) {
    if (rest.front() == '.') {
      fraction = true;
    } else {
      if (fraction && scale > 1'000'000'000'000'000) return wrong_size(text, "has more decimals than a size can need");
      digits = digits * 10 + static_cast<unsigned>(rest.front() - '0');
      if (fraction) scale *= 10;
      if (digits / scale > k_most) too_large = true;
      if (too_large) digits = 0;
    }
    rest.remove_prefix(1);
  }
  if (rest.size() > 1 && rest.front() == ' ') rest.remove_prefix(1);

  Wide unit = 1;
  if (!rest.empty()) {
    const auto at = k_units.find(static_cast<char>(std::toupper(static_cast<unsigned char>(rest.front()))));
    if (at != std::string_view::npos) {
      unit = Wide{1} << (10 * (at + 1));
      rest.remove_prefix(1);
      if (rest.size() == 2 && (rest.front() == 'i' || rest.front() == 'I')) rest.remove_prefix(1);
    }
    if (rest.size() == 1 && (rest.front() == 'B' || rest.front() == 'b')) rest.remove_prefix(1);
    if (!rest.empty()) return wrong_size(text, k_not_a_size);
  }
  // digits < 2^63 x scale <= 2^63 x 10^16 and unit = 2^40 could pass 128 bits, hence the division first.
  if (too_large || digits / scale > k_most / unit) return wrong_size(text, "is larger than any buffer can be");
  const Wide whole = (digits / scale) * unit;
  const Wide part = (digits % scale) * unit;
  if (part % scale != 0) return wrong_size(text, "is not a whole number of bytes");
  const Wide bytes = whole + part / scale;
  if (bytes == 0) return wrong_size(text, "is no size to measure; a size is at least 1 byte");
  if (bytes > k_most) return wrong_size(text, "is larger than any buffer can be");
  return static_cast<std::int64_t>(bytes);
}

std::string format_size(std::int64_t bytes) {
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (std::abs(value) >= 1024 && unit < static_cast<int>(k_units.size())) {
    value /= 1024;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes);
  std::string number = fmt::format("{:.2f}", value);
  while (number.back() == '0') number.pop_back();
  if (number.back() == '.') number.pop_back();
  return fmt::format("{} {}iB", number, k_units[static_cast<std::size_t>(unit) - 1]);
}

}  // namespace gradrail

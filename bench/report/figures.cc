#include "bench/report/figures.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

namespace gradrail {

std::string format_us(double us) {
  if (!std::isfinite(us)) return "-";
  // The borders are where rounding would need one digit more.
  if (us < 9.9995) return fmt::format("{:.3f}", us);
  if (us < 99.995) return fmt::format("{:.2f}", us);
  if (us < 999.95) return fmt::format("{:.1f}", us);
  return fmt::format("{:.0f}", us);
}

std::string format_gbs(double gbs) {
  if (!std::isfinite(gbs)) return "-";
  if (gbs < 0.9995) return fmt::format("{:.3f}", gbs);
  if (gbs < 99.995) return fmt::format("{:.2f}", gbs);
  return fmt::format("{:.1f}", gbs);
}

std::string format_duration(double us) {
  if (!std::isfinite(us)) return "-";
  const auto three_digits = [](double value, std::string_view unit) {
    return fmt::format("{:.{}f} {}", value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0, unit);
  };
  if (us < 0.9995) return fmt::format("{:.0f} ns", us * 1e3);
  if (us < 999.5) return three_digits(us, "us");
  if (us < 999.5e3) return three_digits(us / 1e3, "ms");
  return three_digits(us / 1e6, "s");
}

std::string format_wait(double seconds) {
  const auto whole = static_cast<long>(std::lround(std::fmax(0, std::fmin(seconds, 1e9))));
  if (whole < 60) return fmt::format("{} s", whole);
  if (whole < 3600) return fmt::format("{} min {} s", whole / 60, whole % 60);
  return fmt::format("{} h {} min", whole / 3600, whole % 3600 / 60);
}

std::string format_factor(double factor) { return fmt::format("{:.{}f}x", factor, factor < 9.995 ? 2 : 0); }

}  // namespace gradrail

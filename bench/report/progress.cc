#include "bench/report/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "bench/report/figures.h"

namespace gradrail {
namespace {

constexpr auto k_redraw_every = std::chrono::milliseconds(100);
constexpr std::size_t k_usual_width = 80;

std::size_t width_of(std::FILE* stream) {
  struct winsize size {};
  return ::ioctl(::fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : k_usual_width;
}

}  // namespace

std::string progress_line(double fraction_done, Seconds elapsed, std::string_view what, std::size_t width) {
  const double fraction = std::clamp(fraction_done, 0.0, 1.0);
  const std::string left =
      fraction > 0 ? format_wait(elapsed.count() * (1 - fraction) / fraction) + " left" : std::string("estimating");
  std::string line = fmt::format("[{:3.0f} %, {}] {}", 100 * fraction, left, what);
  if (line.size() > width) line.resize(width);
  return line;
}

Progress::Progress(std::FILE* stream)
    : stream_(::isatty(::fileno(stream)) == 1 ? stream : nullptr),
      started_(Clock::now()),
      drawn_(started_ - k_redraw_every) {}

void Progress::update(double fraction_done, std::string_view what) {
  if (!stream_) return;
  const auto now = Clock::now();
  if (now - drawn_ < k_redraw_every) return;
  drawn_ = now;
  visible_ = true;
  // One column stays free: a line that fills the last one wraps on some terminals and could not be taken back.
  fmt::print(stream_, "\r{}\033[K", progress_line(fraction_done, now - started_, what, width_of(stream_) - 1));
  std::fflush(stream_);
}

void Progress::clear() {
  if (!stream_ || !visible_) return;
  visible_ = false;
  fmt::print(stream_, "\r\033[K");
  std::fflush(stream_);
}

}  // namespace gradrail

#include "bench/report/codecs.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "bench/measure/statistics.h"
#include "bench/report/figures.h"
#include "results/size.h"

namespace gradrail {
namespace {

auto case_of(const Point& point) {
  return std::tie(point.collective, point.transport, point.topology, point.ranks, point.type, point.op, point.in_place,
                  point.buffers, point.cache, point.bytes);
}

bool usable(const Point& point) {
  return point.library == "gradrail" && point.time_us && point.time_us->median > 0 && !point.error;
}

// Against the fastest row without a codec: how much faster, or slower, or that nobody can tell.
std::string against(const Point& point, const Point* dense) {
  if (dense == nullptr) return "nothing to compare with: add none to --codec";
  const double ratio = dense->time_us->median / point.time_us->median;
  if (point.phase != dense->phase || !parted(*point.time_us, *dense->time_us))
    return fmt::format("cannot be told from {} without a codec", dense->algorithm);
  return ratio >= 1 ? fmt::format("{} faster than {} without a codec", format_factor(ratio), dense->algorithm)
                    : fmt::format("{} slower than {} without a codec", format_factor(1 / ratio), dense->algorithm);
}

}  // namespace

std::string codec_summary(std::span<const Point> points) {
  std::string out;
  std::vector<const Point*> cases;
  for (const Point& point : points) {
    const bool known =
        std::any_of(cases.begin(), cases.end(), [&](const Point* other) { return case_of(*other) == case_of(point); });
    if (usable(point) && is_encoded(point) && !known) cases.push_back(&point);
  }
  for (const Point* of : cases) {
    const Point* dense = nullptr;
    std::vector<const Point*> best;  // of each codec
    for (const Point& point : points) {
      if (!usable(point) || case_of(point) != case_of(*of)) continue;
      const auto faster = [&](const Point* than) { return point.time_us->median < than->time_us->median; };
      if (!is_encoded(point)) {
        if (dense == nullptr || faster(dense)) dense = &point;
        continue;
      }
      const auto same =
          std::find_if(best.begin(), best.end(), [&](const Point* one) { return one->codec == point.codec; });
      if (same == best.end())
        best.push_back(&point);
      else if (faster(*same))
        *same = &point;
    }
    out += fmt::format("# Codecs: {} of {}, {} ranks as {}, {}\n", of->collective, format_size(of->bytes), of->ranks,
                       of->topology, of->transport);
    std::size_t codec_width = 0, algorithm_width = 0;
    for (const Point* point : best) {
      codec_width = std::max(codec_width, point->codec->size());
      algorithm_width = std::max(algorithm_width, point->algorithm.size());
    }
    for (const Point* point : best)
      out += fmt::format("#   {:<{}}  {:<{}}  {}; {:.2f}x fewer bytes, error {:.2g}, {}\n", *point->codec, codec_width,
                         point->algorithm, algorithm_width, against(*point, dense), point->wire_ratio.value_or(1),
                         point->rel_l2_error.value_or(0),
                         point->break_even_gbs.value_or(0) > 0
                             ? fmt::format("pays on links below {} GB/s", format_gbs(*point->break_even_gbs))
                             : std::string("saves no bytes"));
  }
  return out;
}

}  // namespace gradrail

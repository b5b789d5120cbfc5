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

std::vector<CodecChoice> choose_codecs(std::span<const Point> points, double budget) {
  std::vector<CodecChoice> choices;
  for (const Point& dense : points) {
    if (!usable(dense) || is_encoded(dense)) continue;
    const auto same = std::find_if(choices.begin(), choices.end(),
                                   [&](const CodecChoice& one) { return case_of(*one.dense) == case_of(dense); });
    if (same == choices.end())
      choices.push_back({&dense, &dense});
    else if (dense.time_us->median < same->dense->time_us->median)
      *same = {&dense, &dense};
  }
  for (CodecChoice& choice : choices)
    for (const Point& point : points) {
      if (!usable(point) || !is_encoded(point) || case_of(point) != case_of(*choice.dense)) continue;
      if (!(point.rel_l2_error.value_or(1) <= budget) || point.phase != choice.dense->phase) continue;
      const bool pays =
          parted(*point.time_us, *choice.dense->time_us) && point.time_us->median < choice.dense->time_us->median;
      if (pays && point.time_us->median < choice.point->time_us->median) choice.point = &point;
    }
  return choices;
}

std::string codec_choices(std::span<const CodecChoice> choices, double budget) {
  std::string out;
  std::string heading_before;
  for (std::size_t i = 0; i < choices.size();) {
    const Point& first = *choices[i].point;
    const auto codec_of = [](const Point& point) { return is_encoded(point) ? *point.codec : std::string("none"); };
    const auto gain = [](const CodecChoice& one) { return one.dense->time_us->median / one.point->time_us->median; };
    const std::string heading = fmt::format("# Codecs within an error of {:g}: {} of {}, {} ranks as {}, {}\n", budget,
                                            first.collective, first.type, first.ranks, first.topology, first.transport);
    if (heading != heading_before) out += heading;
    heading_before = heading;
    double least = gain(choices[i]), most = least, error = first.rel_l2_error.value_or(0);
    std::size_t last = i;
    while (last + 1 < choices.size()) {
      const Point& next = *choices[last + 1].point;
      if (codec_of(next) != codec_of(first) || next.collective != first.collective ||
          next.transport != first.transport || next.topology != first.topology)
        break;
      ++last;
      least = std::min(least, gain(choices[last]));
      most = std::max(most, gain(choices[last]));
      error = std::max(error, next.rel_l2_error.value_or(0));
    }
    const std::string low = format_size(first.bytes), high = format_size(choices[last].point->bytes);
    const std::string sizes = low == high ? low : low + " - " + high;
    const std::string gains = format_factor(least) == format_factor(most)
                                  ? format_factor(least)
                                  : format_factor(least) + " - " + format_factor(most);
    out += is_encoded(first) ? fmt::format("#   {:<18} {:<12} {} faster than none, error {:.2g}\n", sizes,
                                           codec_of(first), gains, error)
                             : fmt::format("#   {:<18} {:<12} no codec within the error is faster\n", sizes, "none");
    i = last + 1;
  }
  return out;
}

}  // namespace gradrail

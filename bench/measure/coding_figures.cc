#include "bench/measure/coding_figures.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace gradrail {

void CodingLook::put(ByteWriter& writer) const {
  for (const double value : {seen.off_squared, seen.exact_squared, seen.most_off, seen.most_exact, error_of_one})
    writer.put(value);
  for (const std::uint64_t value : {seen.bits, wire_bytes, dense_bytes}) writer.put(value);
  writer.put(static_cast<std::uint8_t>(seen.non_finite));
}

CodingLook CodingLook::get(ByteReader& reader) {
  CodingLook look;
  for (double* value : {&look.seen.off_squared, &look.seen.exact_squared, &look.seen.most_off, &look.seen.most_exact,
                        &look.error_of_one})
    *value = reader.get<double>();
  for (std::uint64_t* value : {&look.seen.bits, &look.wire_bytes, &look.dense_bytes})
    *value = reader.get<std::uint64_t>();
  look.seen.non_finite = reader.get<std::uint8_t>() != 0;
  return look;
}

Judgement judge(const Call& call, const Ran& ran, std::span<const CodingLook> looks, std::uint64_t seed) {
  Judgement judged;
  CodingFigures& figures = judged.figures;
  double off = 0, exact = 0, most_off = 0, most = 0, of_one = 0;
  bool same = true;
  for (const CodingLook& look : looks) {
    off += look.seen.off_squared;
    exact += look.seen.exact_squared;
    most_off = std::max(most_off, look.seen.most_off);
    most = std::max(most, look.seen.most_exact);
    of_one = std::max(of_one, look.error_of_one);
    same &= look.seen.bits == looks.front().seen.bits;
    figures.non_finite |= look.seen.non_finite;
    if (look.wire_bytes >= figures.wire_bytes) {
      figures.wire_bytes = look.wire_bytes;
      figures.dense_bytes = ran.codec.empty() ? look.wire_bytes : look.dense_bytes;
    }
  }
  figures.relative_error = exact > 0 ? std::sqrt(off / exact) : 0;
  figures.largest_error = most > 0 ? most_off / most : 0;
  if (ran.codec.empty()) return judged;
  const Gradient gradient(call, static_cast<int>(looks.size()), seed);
  const double allowed = gradient.allowed(of_one, std::max(1, ran.requantised));
  if (!same)
    judged.why_wrong = "ranks ended with different bits; the point was not timed";
  else if (!(figures.relative_error <= allowed))
    judged.why_wrong = fmt::format(
        "the result is off by {:.3g} of its size where {} explains no more than {:.3g}; the point was not "
        "timed",
        figures.relative_error, ran.codec, allowed);
  return judged;
}

}  // namespace gradrail

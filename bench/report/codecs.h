// What a run that compares codecs comes to: for each case, the fastest row of each codec beside the fastest without
// one. Pure functions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "results/record.h"

namespace gradrail {

// Lines that begin with '#'; empty where no data was encoded.
[[nodiscard]] std::string codec_summary(std::span<const Point> points);

// For each case, the fastest codec whose result was off by no more than `budget` (relative L2 error), and "none" where
// no such codec is faster beyond doubt.
struct CodecChoice {
  const Point* point = nullptr;  // the row that was chosen
  const Point* dense = nullptr;  // the fastest without a codec
};
[[nodiscard]] std::vector<CodecChoice> choose_codecs(std::span<const Point> points, double budget);
// The same as lines that begin with '#', neighbouring sizes with one codec together.
[[nodiscard]] std::string codec_choices(std::span<const CodecChoice> choices, double budget);

}  // namespace gradrail

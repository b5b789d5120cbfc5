// What `gradrail tune` prints: sizes as they are measured, the fitted ranges, how the choices do on sizes held out, and
// the codecs that pay.
// Text only; the caller writes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/regret.h"
#include "bench/measure/tuning.h"

namespace gradrail {

// "ring", "ring, 4 pieces", "tree, 2 lanes, 16 pieces"
[[nodiscard]] std::string format_selection(const Selection& selection);

[[nodiscard]] std::string tuned_size_header();
// The fastest of a block and the fastest of another algorithm.
[[nodiscard]] std::string tuned_size_row(std::int64_t bytes, std::span<const Selection> selections,
                                         std::span<const std::vector<double>> samples_us);
[[nodiscard]] std::string ranges_text(const std::vector<TableRange>& ranges);
[[nodiscard]] std::string regret_text(const Regret& regret);
// What a call that bears this error gets: neighbouring sizes with one codec together.
[[nodiscard]] std::string codecs_text(std::span<const CodedSize> sizes, double error_budget);

}  // namespace gradrail

// What error feedback does to whole tensors, as loops that run at the speed of memory. Pure functions of spans, for any
// thread; spans are of the same length.
#pragma once

#include <span>

namespace gradrail {

// to[i] += from[i].
void add_values(std::span<float> to, std::span<const float> from);
// Whether one of them is a NaN or infinite.
[[nodiscard]] bool holds_non_finite(std::span<const float> values);
// Those become zero.
void drop_non_finite(std::span<float> values);

}  // namespace gradrail

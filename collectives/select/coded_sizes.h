// Which codec to use for a call that states what error it bears: what was measured at some sizes, and the answer from
// it. Kept in decision tables, and by selectors that measured it themselves. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/select/selector.h"

namespace gradrail {

struct CodedChoice {
  Selection selection;  // with a codec
  double time_us = 0;
  double error = 0;  // relative L2, of the result
};

// What paid at one size. Without choices, nothing did.
struct CodedSize {
  std::uint64_t bytes = 0;
  double dense_us = 0;               // the best without a codec, measured beside them
  std::vector<CodedChoice> choices;  // by ascending error; each is faster than those before it, and all than dense
};

// Data shorter than this is never encoded: there is nothing to gain from fewer bytes.
inline constexpr std::uint64_t k_least_coded_bytes = 16 << 10;

// Sorts the choices as said above, and drops those that are no faster than a more exact one.
void order_choices(CodedSize& size);

// The fastest within question.error_budget, at the measured size that is nearest to the question's in logarithms. Null
// if none pays, the budget is 0, or the data is shorter than half the smallest size measured.
[[nodiscard]] const CodedChoice* find_choice(std::span<const CodedSize> sizes, const Question& question);

// Whether there is such a codec, and it can travel by the algorithm: a planner that supports the question's shape where
// the codec's messages have a fixed size; of others only the name's form can be seen here. Errors: bad_usage,
// unsupported.
[[nodiscard]] Result<void> can_carry(const Selection& selection, const Question& question);

}  // namespace gradrail

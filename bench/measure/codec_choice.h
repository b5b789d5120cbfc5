// Choosing among codecs by measuring them beside none: which are worth trying, on whom, and what of the outcome pays.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/measure/block.h"
#include "collectives/select/coded_sizes.h"

namespace gradrail {

// Of `named` ("none" aside), or one codec of each kind where nothing else was named: those whose single encoding of
// data like gradients is off by no more than `budget`. The same on all ranks. Errors: of making the codecs.
[[nodiscard]] Result<std::vector<std::string>> codecs_within(const std::vector<std::string>& named, double budget);

// Between which ranks they are tried: as asked for, and where there are hosts, between these only too.
[[nodiscard]] std::vector<CodecWhere> places_to_encode(CodecWhere asked, int ranks, int ranks_per_host);

// The selection as a call's: one without an algorithm or lanes or pieces of its own leaves them to the communicator.
// The call refers to the selection's texts.
void carry(Call& call, const Selection& selection);

// A codec is chosen only where it gains at least this factor over the best without one: a result that is off is worth
// more than a hundredth of the time.
inline constexpr double k_worth_an_error = 1.1;

// One block: `outcomes` of the selections, of which those without a codec are what the others must beat, beyond doubt
// and by k_worth_an_error.
[[nodiscard]] CodedSize what_pays(std::uint64_t bytes, std::span<const Selection> selections,
                                  std::span<const Outcome> outcomes);

}  // namespace gradrail

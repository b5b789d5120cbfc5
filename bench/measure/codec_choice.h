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

// A codec is chosen only where it gains at least this factor over the best without one, by the ends of the intervals of
// both: a result that is off is worth more than some time. Inside one host data moves at the rate of memory, at which
// codecs work too; what they gain there is what moving it wastes, changes with the machine's phase, and must be a lot.
inline constexpr double k_worth_an_error = 1.25;
inline constexpr double k_worth_an_error_in_one_host = 2;

// Everything that data may travel by as it is, with the communicator's own lanes and pieces: what codecs that seem to
// pay have to beat. The same on all ranks.
[[nodiscard]] std::vector<Selection> dense_rivals(const Question& question);

// One block: `outcomes` of the selections, of which those without a codec are what the others must beat.
[[nodiscard]] CodedSize what_pays(const Question& question, std::span<const Selection> selections,
                                  std::span<const Outcome> outcomes);

}  // namespace gradrail

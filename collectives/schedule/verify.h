// Proof by execution on symbols. Every chunk of every input is a symbol; the programs of all ranks run against each
// other with matched, ordered messages and bounded credits. Independent of the builder: it trusts no `after`.
#pragma once

#include <string>

#include "collectives/schedule/program.h"
#include "transports/base/result.h"

namespace gradrail {

struct VerifyOptions {
  // Messages a pipe holds before a send must wait for its receive; 0 is a rendezvous, the hardest case.
  int credits = 0;
};

// Checks that
//  - steps are well formed: peers, lanes, chunks and planes in range, nothing writes an input that is not the output;
//  - every two steps of one rank that conflict on a chunk are ordered by `after`/`after_send`, and lanes do not meet;
//  - messages match: both ends name equally long runs, for even and ragged counts, and none is left over;
//  - it ends, under the given credits;
//  - every chunk that the collective promises holds each contribution exactly once (reductions), or the right source;
//  - reductions are bit-identical on all ranks that receive them: combined in the same tree up to commutation.
// Errors: malformed, with rank, step and what is wrong.
[[nodiscard]] Result<void> verify(const Schedule& schedule, const VerifyOptions& options = {});

}  // namespace gradrail

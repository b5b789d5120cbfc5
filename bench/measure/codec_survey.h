// Measures codecs beside none at a few sizes, on a running communicator: what answers a call that states an error
// budget where no decision table does. As survey.h does for algorithms. Takes a second or two; between hosts, however
// slow, no more than 1.5 s a block, of which there are two at each of three sizes, but for one codec's trial.
#pragma once

#include <string>
#include <vector>

#include "bench/measure/survey.h"
#include "collectives/select/coded_sizes.h"

namespace gradrail {

// Collective. `dense` answers for calls without a codec, and is the same on all ranks. All ranks get the same. Nothing
// where options.codecs is empty, or the collective is not one that codecs are for. Errors: those of the communicator
// and the bootstrap.
[[nodiscard]] Result<std::vector<CodedSize>> survey_codecs(Bootstrap& bootstrap, Communicator& communicator,
                                                           Collective collective, const Selector& dense,
                                                           const SurveyOptions& options);

}  // namespace gradrail

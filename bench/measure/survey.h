// Measures the algorithms of a collective themselves, at powers of two, on a running communicator: what `auto`
// interpolates between where there is no decision table. The cost model leaves out what it thinks to be far behind,
// and from one size to the next so do the times measured. Takes two to five seconds, and no more than
// SurveyOptions::most_time a collective, but for one algorithm's trial: where operations take long, what is far behind,
// repeats, and at last whole sizes are left out (allowance.h).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/measure/buffers.h"
#include "collectives/exec/communicator.h"
#include "collectives/select/cost_selector.h"
#include "transports/bootstrap.h"

namespace gradrail {

struct SurveyOptions {
  std::vector<Collective> collectives;  // none: nothing is measured
  std::uint64_t smallest = 0;           // sizes that will be asked for; those measured lie around them
  std::uint64_t largest = 0;
  bool in_place = false;
  BufferKind buffers = BufferKind::plain;
  // To measure on, of at least `largest` bytes and 8 a rank; null: hot buffers of its own.
  Buffers* memory = nullptr;
  // Codecs to measure beside none (codec_survey.h), of these collectives.
  std::vector<std::string> codecs;
  std::vector<Collective> coded_collectives;
  CodecWhere codec_where = CodecWhere::everywhere;
  Seconds most_time{7};
  Seconds timeout{30};  // the job's, of one operation
};

// Collective. All ranks get the same times, so that they choose alike. Errors: those of the communicator and the
// bootstrap.
[[nodiscard]] Result<GroupTimes> survey(Bootstrap& bootstrap, Communicator& communicator, const CostModel& model,
                                        const SurveyOptions& options);

}  // namespace gradrail

// Wrappers put around a codec, named after it with a plus: "topk:0.01+ef". Each owns the codec inside and, where it
// needs it, one or two floats of state a value. The state begins with the first encode(); a wrapped codec then takes
// spans of that length only.
//
//   ef                    error feedback: what a message did not carry is added to the next gradient. Seide et al.,
//                         "1-bit stochastic gradient descent" (2014), section 2.1; Karimireddy et al. (2019). After
//                         each step, sent + residual = residual before + gradient, up to one rounding of the
//                         difference, and exactly for codecs that send float32 or drop low bits only.
//   momentum:M            momentum correction with error feedback: Lin et al., "Deep gradient compression" (ICLR 2018),
//                         section 3.2: u = M u + gradient is accumulated and sent instead of the gradient. Where a
//                         sparse codec sent a value, u starts again from zero (its momentum factor masking,
//                         section 3.3).
//   clip:NORM             local clipping (DGC, section 3.2): a gradient of this rank with a larger Euclidean norm is
//                         scaled down to it, before anything is accumulated. For n ranks and a clipping of the whole at
//                         C, NORM is C / sqrt(n). Stands after ef or momentum.
//   warmup:STEPS[:FIRST]  the share of values sent falls from FIRST (0.25) to the codec's own exponentially over so
//   many
//                         steps (DGC, section 3.3), by Origin::step. Only around codecs that have such a share.
//
// A NaN or an infinity is reported as ever; what it left in the state is set to zero, so that one bad step does not
// spoil all later ones.
#pragma once

#include "collectives/compress/codec.h"

namespace gradrail {

// Errors: bad_usage.
[[nodiscard]] Result<std::unique_ptr<Codec>> wrap(std::unique_ptr<Codec> codec, std::string_view word,
                                                  Parameters parameters);

}  // namespace gradrail

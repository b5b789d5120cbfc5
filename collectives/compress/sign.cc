// One bit a value: signSGD with majority vote, and 1-bit with scaling.
//
// signSGD: Bernstein et al., "signSGD with majority vote is communication efficient and fault tolerant" (ICLR 2019),
// algorithm 1. Each decoded value is plus or minus one; finish() turns the sum over ranks into the sign of the
// majority, 0 where it is a tie. The bit is the value's sign bit: +0 votes plus, -0 minus.
// 1-bit with scaling: Karimireddy et al., "Error feedback fixes signSGD and other gradient compression schemes" (ICML
// 2019), section 4, by blocks: the sign, times the mean size of the block of 2048. After Seide et al., "1-bit
// stochastic gradient descent" (Interspeech 2014); wants error feedback (`onebit+ef`).
//
// Wire: 16 bytes of header, then per block the mean size as float32 (1-bit only) and the signs (blocks.h). signSGD's
// parameter has its highest bit set where a NaN was met. Fixed size. May not be summed as it is.
// Error of 1-bit: the block's mean size is kept; single values may be off by anything.
// NaN: signSGD: all values of the message become NaN. 1-bit: the block does, and for an infinity too. signSGD takes
// the sign of an infinity.
#include "collectives/compress/block_codec.h"

namespace gradrail {
namespace {

constexpr BlockFormat k_signs{Coding::sign, Scaling::none, 1, 1, 2048};
constexpr BlockFormat k_scaled_signs{Coding::sign, Scaling::mean, 1, 1, 2048};

class SignSgd final : public BlockCodec {
 public:
  SignSgd() : BlockCodec("signsgd", CodecId::signsgd, 0, k_signs) {}
  void finish(std::span<float> sum) const override {
    for (float& vote : sum) vote = vote > 0 ? 1.0f : vote < 0 ? -1.0f : vote == 0 ? 0.0f : vote;
  }
};

Result<std::unique_ptr<Codec>> make_signsgd(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("signsgd", parameters, 0, 0));
  return std::make_unique<SignSgd>();
}
Result<std::unique_ptr<Codec>> make_onebit(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("onebit", parameters, 0, 0));
  return std::make_unique<BlockCodec>("onebit", CodecId::onebit, 0, k_scaled_signs);
}

}  // namespace

extern const CodecKind k_signsgd_codec;
extern const CodecKind k_onebit_codec;
const CodecKind k_signsgd_codec{"signsgd", "", "signs, and the majority of ranks", "signsgd", make_signsgd};
const CodecKind k_onebit_codec{"onebit", "", "signs times the mean size of a block", "onebit", make_onebit};

}  // namespace gradrail

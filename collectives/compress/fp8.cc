// 8-bit floats with a scale for each block of 256 values: e4m3 (3 bits of mantissa) and e5m2 (2 bits, wider range).
// The block's largest size becomes the format's largest number, 448 or 57344.
//
// Source: Micikevicius et al., "FP8 formats for deep learning" (2022), sections 3 and 3.2 (scaling).
// Wire: 16 bytes of header, then per block the largest size as float32 and the codes (blocks.h): 260 bytes a block.
// Fixed size. May not be summed: scales differ.
// Error: 2^-4 (e4m3) or 2^-3 (e5m2) of a value, but never less than half a step of the subnormals: 2^-10 / 448 or
// 2^-17 / 57344 of the block's largest size. Encoding what was decoded changes nothing.
// NaN, infinity: the block becomes NaN; the formats' own codes for them never appear.
#include <fmt/format.h>

#include "collectives/compress/block_codec.h"

namespace gradrail {
namespace {

constexpr BlockFormat k_e4m3{Coding::e4m3, Scaling::largest, 8, arithmetic::k_e4m3_largest, 256};
constexpr BlockFormat k_e5m2{Coding::e5m2, Scaling::largest, 8, arithmetic::k_e5m2_largest, 256};

Result<std::unique_ptr<Codec>> make_fp8(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("fp8", parameters, 0, 1));
  if (parameters.empty() || parameters.front() == "e4m3") {
    return std::make_unique<BlockCodec>("fp8:e4m3", CodecId::fp8_e4m3, 0, k_e4m3);
  }
  if (parameters.front() == "e5m2") {
    return std::make_unique<BlockCodec>("fp8:e5m2", CodecId::fp8_e5m2, 0, k_e5m2);
  }
  return fail(Code::bad_usage,
              fmt::format("'fp8:{}' is no format of 8-bit floats; there are e4m3 and e5m2", parameters.front()));
}

}  // namespace

extern const CodecKind k_fp8_codec;
const CodecKind k_fp8_codec{"fp8", "[:e4m3|e5m2]", "8-bit floats scaled by block of 256", "fp8:e4m3", make_fp8};

}  // namespace gradrail

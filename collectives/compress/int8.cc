// int8 and int4 block quantisation. Blocks of 256 values; each value becomes the nearest of 2L + 1 levels between
// minus and plus the block's largest size, with L = 127 (int8) or 7 (int4).
//
// Source: Dettmers, "8-bit approximations for parallelism in deep learning" (ICLR 2016), section 2, in the linear form
// that ZeRO++ sends by blocks (Wang et al., 2023, section 3.1).
// Wire: 16 bytes of header, then per block the largest size as float32 and the codes (blocks.h, arithmetic.h): 260
// bytes a block with int8, 132 with int4. Fixed size. May not be summed: scales differ.
// Error: at most 1/(2L) of the block's largest size, which itself is exact. Encoding what was decoded changes nothing.
// NaN, infinity: the block becomes NaN.
#include "collectives/compress/block_codec.h"

namespace gradrail {
namespace {

constexpr BlockFormat k_int8{Coding::nearest, Scaling::largest, 8, 127, 256};
constexpr BlockFormat k_int4{Coding::nearest, Scaling::largest, 4, 7, 256};

Result<std::unique_ptr<Codec>> make_int8(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("int8", parameters, 0, 0));
  return std::make_unique<BlockCodec>("int8", CodecId::int8, 0, k_int8);
}
Result<std::unique_ptr<Codec>> make_int4(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("int4", parameters, 0, 0));
  return std::make_unique<BlockCodec>("int4", CodecId::int4, 0, k_int4);
}

}  // namespace

extern const CodecKind k_int8_codec;
extern const CodecKind k_int4_codec;
const CodecKind k_int8_codec{"int8", "", "8-bit integers scaled by block of 256", "int8", make_int8};
const CodecKind k_int4_codec{"int4", "", "4-bit integers scaled by block of 256", "int4", make_int4};

}  // namespace gradrail

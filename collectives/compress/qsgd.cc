// QSGD and TernGrad: levels rounded up or down at random, so that the decoded value is right on average and errors of
// ranks and steps cancel. Random numbers are those of random.h: a pure function of the origin and the element.
//
// QSGD: Alistarh et al., "QSGD: communication-efficient SGD via gradient quantization and encoding" (NeurIPS 2017),
// section 3.1; buckets of 256. The scale is the bucket's Euclidean norm, as there, or with `:max` its largest size,
// which gives much less noise and is what its section 5 uses in practice. Levels: 1, 7 or 127 for 2, 4 or 8 bits.
// TernGrad: Wen et al., "TernGrad: ternary gradients to reduce communication in distributed deep learning" (NeurIPS
// 2017), section 3.1: minus, zero or plus the largest size, here of each block of 256. Clipping before it (its section
// 3.3) is the wrapper `clip`.
//
// Wire: 16 bytes of header, then per block the scale as float32 and codes in two's complement of 2, 4 or 8 bits
// (blocks.h). Parameter: bits, plus 256 for `:max`. Fixed size. May not be summed: scales differ.
// Error: less than one level, scale / L; none on average.
// NaN, infinity, and a norm beyond float32's range: the block becomes NaN.
#include <fmt/format.h>

#include "collectives/compress/block_codec.h"

namespace gradrail {
namespace {

Result<std::unique_ptr<Codec>> make_qsgd(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("qsgd", parameters, 0, 2));
  std::string_view bits = "4";
  bool largest = false;
  if (!parameters.empty()) bits = parameters.front();
  if (bits != "2" && bits != "4" && bits != "8") {
    return fail(Code::bad_usage, fmt::format("'qsgd:{}' is not possible; the bits of a value are 2, 4 or 8", bits));
  }
  if (parameters.size() == 2) {
    if (parameters[1] != "max" && parameters[1] != "norm") {
      return fail(Code::bad_usage, fmt::format("'{}' is no scale of qsgd; there are norm and max", parameters[1]));
    }
    largest = parameters[1] == "max";
  }
  const auto number = static_cast<std::uint32_t>(bits.front() - '0');
  const BlockFormat format{Coding::stochastic, largest ? Scaling::largest : Scaling::norm, number,
                           static_cast<float>((1u << (number - 1)) - 1), 256};
  return std::make_unique<BlockCodec>(fmt::format("qsgd:{}{}", bits, largest ? ":max" : ""), CodecId::qsgd,
                                      number + (largest ? 256 : 0), format);
}

constexpr BlockFormat k_terngrad{Coding::stochastic, Scaling::largest, 2, 1, 256};

Result<std::unique_ptr<Codec>> make_terngrad(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("terngrad", parameters, 0, 0));
  return std::make_unique<BlockCodec>("terngrad", CodecId::terngrad, 0, k_terngrad);
}

}  // namespace

extern const CodecKind k_qsgd_codec;
extern const CodecKind k_terngrad_codec;
const CodecKind k_qsgd_codec{"qsgd", "[:BITS[:norm|max]]", "2, 4 or 8 bits, rounded at random", "qsgd:4", make_qsgd};
const CodecKind k_terngrad_codec{"terngrad", "", "minus, zero or plus, rounded at random", "terngrad", make_terngrad};

}  // namespace gradrail

// The one table that names all codecs. A new codec is one file in this folder, which defines the constant, and one line
// here.
#include "collectives/compress/codec.h"

#define GRADRAIL_CODECS(CODEC) \
  CODEC(k_fp16_codec)          \
  CODEC(k_bf16_codec)          \
  CODEC(k_fp8_codec)           \
  CODEC(k_int8_codec)          \
  CODEC(k_int4_codec)          \
  CODEC(k_qsgd_codec)          \
  CODEC(k_terngrad_codec)      \
  CODEC(k_signsgd_codec)       \
  CODEC(k_onebit_codec)        \
  CODEC(k_topk_codec)          \
  CODEC(k_randomk_codec)       \
  CODEC(k_powersgd_codec)      \
  CODEC(k_nonzero_codec)

namespace gradrail {

#define GRADRAIL_DECLARE(codec) extern const CodecKind codec;
GRADRAIL_CODECS(GRADRAIL_DECLARE)
#undef GRADRAIL_DECLARE

std::span<const CodecKind* const> codec_kinds() {
#define GRADRAIL_ENTRY(codec) &codec,
  static constexpr const CodecKind* k_kinds[] = {GRADRAIL_CODECS(GRADRAIL_ENTRY)};
#undef GRADRAIL_ENTRY
  return k_kinds;
}

}  // namespace gradrail

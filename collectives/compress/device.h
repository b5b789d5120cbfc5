// The quantising codecs on a CUDA device: fp16 and bf16, and by one pair of kernels every block format, which are fp8
// (e4m3 and e5m2), int8, int4, qsgd, terngrad, signsgd and onebit. Not here, and so not on a device: codecs that choose
// (topk, randomk, nonzero), powersgd, and the state of wrappers. Messages are the same, byte for byte, as those of the
// host's kernels, because both are made of the functions in arithmetic.h and block_arithmetic.h. Only the bodies of
// messages: the header (message.h) is the host's. All pointers are device memory; launches are asynchronous on `stream`
// (a cudaStream_t) and return its error code, 0 for success. Built where a CUDA toolkit was found (GRADRAIL_HAVE_CUDA).
#pragma once

#include <cstddef>
#include <cstdint>

#include "collectives/compress/blocks.h"

namespace gradrail::device {

enum class Apply : std::uint8_t { store, add, subtract };

// `flag` is set to 1 where encode returns true, or apply false (blocks.h), and is left alone otherwise.
[[nodiscard]] int encode_blocks(const BlockFormat& format, const float* from, std::size_t count, std::byte* to,
                                const RandomKey& key, std::uint32_t* flag, void* stream);
[[nodiscard]] int apply_blocks(const BlockFormat& format, const std::byte* from, float* to, std::size_t count,
                               float scale, Apply how, std::uint32_t* flag, void* stream);

// fp16 if `f16`, else bf16.
[[nodiscard]] int encode_half(bool f16, const float* from, std::size_t count, std::byte* to, std::uint32_t* flag,
                              void* stream);
[[nodiscard]] int apply_half(bool f16, const std::byte* from, float* to, std::size_t count, Apply how, void* stream);

}  // namespace gradrail::device

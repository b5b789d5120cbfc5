// The quantising codecs on a CUDA device: the same messages, byte for byte, as the host's kernels make, because both
// are made of the functions in arithmetic.h and block_arithmetic.h. Only the bodies of messages: the header (message.h)
// is the host's. All pointers are device memory; launches are asynchronous on `stream` (a cudaStream_t) and return its
// error code, 0 for success. Built where a CUDA toolkit was found (GRADRAIL_HAVE_CUDA).
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

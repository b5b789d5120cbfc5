// Block quantisation: values are taken in blocks, each with one float32 scale and a code of a few bits a value. The
// formats differ in what the scale is and how a value becomes a level; int8, int4, fp8, QSGD, TernGrad, 1-bit and
// signSGD are all lines of this one table. Pure functions of spans, for any thread.
//
// In a message, blocks follow each other; a block is its scale (4 bytes, little endian; none for signSGD) and its
// codes, laid out as in arithmetic.h in groups of 128 values. The last group is filled up with zeros.
//
// A block with a NaN or an infinity, or whose scale is not finite, has the quiet NaN as its scale, and all of its
// values are NaN on the other side.
#pragma once

#include <cstddef>
#include <cstdint>

#include "collectives/compress/random.h"

namespace gradrail {

enum class Coding : std::uint8_t {
  nearest,     // two's complement, to nearest even
  stochastic,  // two's complement, up or down at random, unbiased
  e4m3,
  e5m2,
  sign,  // one bit: 1 for negative values, -0 among them
};

// What a block's scale is, and so what its largest level stands for.
enum class Scaling : std::uint8_t {
  largest,  // the largest size
  norm,     // the Euclidean norm
  mean,     // the mean size
  none,     // no scale is sent
};

struct BlockFormat {
  Coding coding = Coding::nearest;
  Scaling scaling = Scaling::largest;
  std::uint32_t bits = 8;
  float levels = 127;         // the largest level
  std::uint32_t block = 256;  // values; a multiple of 128, at most k_largest_block

  [[nodiscard]] constexpr std::size_t scale_bytes() const { return scaling == Scaling::none ? 0 : sizeof(float); }
  // Of a message's body.
  [[nodiscard]] constexpr std::size_t bytes(std::size_t count) const {
    const std::size_t groups = (count + arithmetic::k_group - 1) / arithmetic::k_group;
    return (count + block - 1) / block * scale_bytes() + groups * (arithmetic::k_group / 8) * bits;
  }
};
inline constexpr std::size_t k_largest_block = 2048;

// Writes format.bytes(count) bytes. True if a value was not finite, or became so; of a format without scale, only if
// one was NaN.
using EncodeBlocksFn = bool (*)(const BlockFormat& format, const float* from, std::size_t count, std::byte* to,
                                const RandomKey& key);
// Reads format.bytes(count) bytes. False if a scale is none that encoding writes. `scale`: of formats that send none.
using ApplyBlocksFn = bool (*)(const BlockFormat& format, const std::byte* from, float* to, std::size_t count,
                               float scale);

struct BlockKernels {
  EncodeBlocksFn encode = nullptr;
  ApplyBlocksFn store = nullptr;
  ApplyBlocksFn add = nullptr;
  ApplyBlocksFn subtract = nullptr;
};
// For the CPU this process runs on. Defined for nearest with 4 and 8 bits, stochastic with 2, 4 and 8, e4m3, e5m2 and
// sign; all functions are null for others.
[[nodiscard]] BlockKernels block_kernels(Coding coding, std::uint32_t bits);

}  // namespace gradrail

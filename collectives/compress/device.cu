#include "collectives/compress/block_arithmetic.h"
#include "collectives/compress/device.h"

namespace gradrail::device {
namespace {

namespace ar = arithmetic;

constexpr unsigned k_threads = 128;

__device__ void put(float value, float* at, Apply how) {
  *at = how == Apply::store ? value : how == Apply::add ? *at + value : *at - value;
}

// Where a block begins in a message's body: all blocks before it are whole.
__device__ std::size_t block_offset(const BlockFormat& format, std::size_t block) {
  const std::size_t scale = format.scaling == Scaling::none ? 0 : sizeof(float);
  return block * (scale + std::size_t{format.block} / 8 * format.bits);
}

// One thread block a block of the format.
__global__ void encode_blocks_kernel(BlockFormat format, const float* from, std::size_t count, std::uint8_t* to,
                                     RandomKey key, std::uint32_t* flag) {
  __shared__ std::uint32_t largest;
  __shared__ float sums[ar::k_columns];
  __shared__ std::uint32_t scale;
  const std::size_t at = std::size_t{blockIdx.x} * format.block;
  const std::size_t values = count - at < format.block ? count - at : format.block;
  const float* const x = from + at;
  if (threadIdx.x == 0) largest = 0;
  __syncthreads();
  std::uint32_t mine = 0;
  for (std::size_t i = threadIdx.x; i < values; i += k_threads) {
    const std::uint32_t size = ar::size_bits(x[i]);
    mine = size > mine ? size : mine;
  }
  atomicMax(&largest, mine);
  __syncthreads();
  if (threadIdx.x < ar::k_columns) {
    // One thread a column, over the rows in order: the sum is the host's, bit for bit.
    float sum = 0;
    if (largest < ar::k_infinity && (format.scaling == Scaling::norm || format.scaling == Scaling::mean)) {
      const float pre = ar::power_near(ar::float_of(largest));
      const std::size_t padded = (values + ar::k_group - 1) / ar::k_group * ar::k_group;
      for (std::size_t i = threadIdx.x; i < padded; i += ar::k_columns) {
        const float near = (i < values ? x[i] : 0.0f) * pre;
        sum = sum + (format.scaling == Scaling::norm ? near * near : ar::float_of(ar::size_bits(near)));
      }
    }
    sums[threadIdx.x] = sum;
  }
  __syncthreads();
  std::uint8_t* out = to + block_offset(format, blockIdx.x);
  if (threadIdx.x == 0) {
    scale = ar::scale_from(format.scaling, largest, sums, values);
    const bool none = format.scaling == Scaling::none;
    if (none ? largest > ar::k_infinity : scale == ar::k_quiet_nan) atomicOr(flag, 1u);
    if (!none) {
      for (int i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(scale >> (8 * i));
    }
  }
  __syncthreads();
  const bool none = format.scaling == Scaling::none;
  const bool marked = !none && scale == ar::k_quiet_nan;
  ar::Steps steps;
  if (!none && !marked) steps = ar::steps_of(ar::float_of(scale), format.levels);
  if (!none) out += sizeof(float);
  const std::uint32_t group_bytes = ar::k_group / 8 * format.bits;
  const std::size_t groups = (values + ar::k_group - 1) / ar::k_group;
  const std::uint64_t first_group = std::uint64_t{blockIdx.x} * (format.block / ar::k_group);
  for (std::size_t i = threadIdx.x; i < groups * group_bytes; i += k_threads) {
    const std::size_t group = i / group_bytes, begin = group * ar::k_group;
    out[i] = marked ? 0
                    : ar::encode_byte(format, x + begin, values - begin, static_cast<std::uint32_t>(i % group_bytes),
                                      steps, key, first_group + group);
  }
}

__global__ void apply_blocks_kernel(BlockFormat format, const std::uint8_t* from, float* to, std::size_t count,
                                    float scale, Apply how, std::uint32_t* flag) {
  const std::size_t at = std::size_t{blockIdx.x} * format.block;
  const std::size_t values = count - at < format.block ? count - at : format.block;
  const std::uint8_t* in = from + block_offset(format, blockIdx.x);
  if (format.scaling != Scaling::none) {
    std::uint32_t bits = 0;
    for (int i = 0; i < 4; ++i) bits |= std::uint32_t{in[i]} << (8 * i);
    if (threadIdx.x == 0 && !ar::is_scale(bits)) atomicOr(flag, 1u);
    scale = ar::float_of(bits);
    in += sizeof(float);
  }
  const std::uint32_t group_bytes = ar::k_group / 8 * format.bits;
  for (std::size_t i = threadIdx.x; i < values; i += k_threads) {
    const std::uint32_t code = ar::code_in_group(format, in + i / ar::k_group * group_bytes,
                                                 static_cast<std::uint32_t>(i % ar::k_group));
    put(ar::decode_value(format, code, scale), to + at + i, how);
  }
}

__global__ void encode_half_kernel(bool f16, const float* from, std::size_t count, std::uint8_t* to,
                                   std::uint32_t* flag) {
  const std::size_t i = std::size_t{blockIdx.x} * k_threads + threadIdx.x;
  if (i >= count) return;
  const std::uint16_t code = f16 ? ar::f16_of(from[i]) : ar::bf16_of(from[i]);
  to[2 * i] = static_cast<std::uint8_t>(code);
  to[2 * i + 1] = static_cast<std::uint8_t>(code >> 8);
  if ((code & 0x7FFFu) >= (f16 ? 0x7C00u : 0x7F80u)) atomicOr(flag, 1u);
}

__global__ void apply_half_kernel(bool f16, const std::uint8_t* from, float* to, std::size_t count, Apply how) {
  const std::size_t i = std::size_t{blockIdx.x} * k_threads + threadIdx.x;
  if (i >= count) return;
  const auto code = static_cast<std::uint16_t>(from[2 * i] | from[2 * i + 1] << 8);
  put(f16 ? ar::of_f16(code) : ar::of_bf16(code), to + i, how);
}

unsigned blocks_for(std::size_t count, std::size_t each) { return static_cast<unsigned>((count + each - 1) / each); }

}  // namespace

int encode_blocks(const BlockFormat& format, const float* from, std::size_t count, std::byte* to, const RandomKey& key,
                  std::uint32_t* flag, void* stream) {
  if (count == 0) return 0;
  encode_blocks_kernel<<<blocks_for(count, format.block), k_threads, 0, static_cast<cudaStream_t>(stream)>>>(
      format, from, count, reinterpret_cast<std::uint8_t*>(to), key, flag);
  return static_cast<int>(cudaGetLastError());
}

int apply_blocks(const BlockFormat& format, const std::byte* from, float* to, std::size_t count, float scale, Apply how,
                 std::uint32_t* flag, void* stream) {
  if (count == 0) return 0;
  apply_blocks_kernel<<<blocks_for(count, format.block), k_threads, 0, static_cast<cudaStream_t>(stream)>>>(
      format, reinterpret_cast<const std::uint8_t*>(from), to, count, scale, how, flag);
  return static_cast<int>(cudaGetLastError());
}

int encode_half(bool f16, const float* from, std::size_t count, std::byte* to, std::uint32_t* flag, void* stream) {
  if (count == 0) return 0;
  encode_half_kernel<<<blocks_for(count, k_threads), k_threads, 0, static_cast<cudaStream_t>(stream)>>>(
      f16, from, count, reinterpret_cast<std::uint8_t*>(to), flag);
  return static_cast<int>(cudaGetLastError());
}

int apply_half(bool f16, const std::byte* from, float* to, std::size_t count, Apply how, void* stream) {
  if (count == 0) return 0;
  apply_half_kernel<<<blocks_for(count, k_threads), k_threads, 0, static_cast<cudaStream_t>(stream)>>>(
      f16, reinterpret_cast<const std::uint8_t*>(from), to, count, how);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace gradrail::device

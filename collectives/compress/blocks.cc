#include "collectives/compress/blocks.h"

#include <algorithm>
#include <cstring>

// One binary runs everywhere: each loop below is compiled for several instruction sets and chosen by the CPU.
#include "collectives/exec/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/compress/blocks.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "hwy/cache_control.h"
#include "collectives/compress/block_groups_inl.h"
#include "collectives/compress/block_lines_inl.h"
#include "collectives/compress/outlet_inl.h"
#include "collectives/compress/vectors_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {

using arithmetic::k_group;

// --- A block's scale.

// Memory is asked for so many values ahead by whoever reads them first, because hardware does not look past the end of
// a page.
constexpr std::size_t k_ahead = 2048;

HWY_INLINE std::uint32_t largest_bits(const float* x, std::size_t count) {
  const F32Tag d;
  const U32Tag du;
  const std::size_t n = hn::Lanes(d);
  const auto mask = hn::Set(du, 0x7FFFFFFFu);
  auto a = hn::Zero(du), b = a;
  for (std::size_t i = 0; i < count; i += 2 * n) {
    for (std::size_t line = 0; line < 2 * n; line += 16) hwy::Prefetch(x + i + k_ahead + line);
    a = hn::Max(a, hn::And(hn::BitCast(du, hn::LoadU(d, x + i)), mask));
    b = hn::Max(b, hn::And(hn::BitCast(du, hn::LoadU(d, x + i + n)), mask));
  }
  return hn::GetLane(hn::MaxOfLanes(du, hn::Max(a, b)));
}

// Squares or sizes of x * pre, in the one order that arithmetic.h prescribes.
template <bool k_squares>
HWY_INLINE float sum(const float* x, std::size_t count, float pre) {
  const F32Tag d;
  const std::size_t n = hn::Lanes(d);
  HWY_ALIGN float sums[k_columns];
  const auto by = hn::Set(d, pre);
  for (std::size_t column = 0; column < k_columns; column += n) {
    auto all = hn::Zero(d);
    for (std::size_t i = column; i < count; i += k_columns) {
      const auto near = hn::Mul(hn::LoadU(d, x + i), by);
      all = hn::Add(all, k_squares ? hn::Mul(near, near) : hn::Abs(near));
    }
    hn::StoreU(all, d, sums + column);
  }
  return arithmetic::total(sums);
}

// The bits of a block's scale; `count` values of `padded` are real, the others are zeros.
HWY_INLINE std::uint32_t scale_bits(Scaling scaling, const float* x, std::size_t count, std::size_t padded) {
  const std::uint32_t largest = largest_bits(x, padded);
  if (largest >= arithmetic::k_infinity) return largest;
  if (scaling == Scaling::largest || largest == 0) return largest;
  const float pre = arithmetic::power_near(arithmetic::float_of(largest));
  const float scale = scaling == Scaling::norm ? arithmetic::square_root(sum<true>(x, padded, pre)) / pre
                                               : sum<false>(x, padded, pre) / static_cast<float>(count) / pre;
  return arithmetic::bits_of(scale);
}

// --- Messages.

// From so many bytes on, which a private cache does not hold, a message is written around the caches.
constexpr std::size_t k_around_bytes = std::size_t{1} << 20;

template <class Code>
bool encode_scaled(const BlockFormat& format, const float* from, std::size_t count, std::byte* to,
                   const RandomKey& key) {
  const F32Tag d;
  constexpr std::size_t k_group_bytes = k_group / 8 * Code::bits;
  HWY_ALIGN float padded[k_largest_block];
  Outlet outlet(to, Code::around && format.bytes(count) >= k_around_bytes);
  bool non_finite = false;
  std::uint64_t group = 0;
  for (std::size_t at = 0; at < count; at += format.block) {
    const std::size_t values = std::min<std::size_t>(format.block, count - at);
    const std::size_t groups = (values + k_group - 1) / k_group;
    const float* x = from + at;
    if (values != groups * k_group) {
      std::memset(padded, 0, groups * k_group * sizeof(float));
      std::memcpy(padded, x, values * sizeof(float));
      x = padded;
    }
    std::uint32_t scale = scale_bits(format.scaling, x, values, groups * k_group);
    arithmetic::Steps steps;
    if (scale >= arithmetic::k_infinity) {
      scale = arithmetic::k_quiet_nan;
      non_finite = true;
    } else {
      steps = arithmetic::steps_of(arithmetic::float_of(scale), format.levels);
    }
    std::uint8_t* const out = outlet.room();
    std::memcpy(out, &scale, sizeof scale);
    std::uint8_t* codes = out + sizeof scale;
    if (scale == arithmetic::k_quiet_nan) {  // codes say nothing, and are always the same
      std::memset(codes, 0, groups * k_group_bytes);
      group += groups;
    } else {
      const Scaled by{hn::Set(d, steps.pre), hn::Set(d, steps.factor), hn::Set(d, format.levels)};
      for (std::size_t i = 0; i < groups; ++i, ++group) {
        encode_group<Code>(x + i * k_group, codes + i * k_group_bytes, by, key, group);
      }
    }
    outlet.wrote(sizeof scale + groups * k_group_bytes);
  }
  outlet.finish();
  return non_finite;
}

#if GRADRAIL_WHOLE_LINES
// The bits of the largest size, in all lanes.
HWY_INLINE U32 largest_of_groups(const float* x, std::size_t groups) {
  const U32Tag du;
  const auto mask = hn::Set(du, 0x7FFFFFFFu);
  const auto size = [&](std::size_t row) {
    hwy::Prefetch(x + row * k_columns + k_ahead);
    return hn::And(hn::BitCast(du, hn::LoadU(F32Tag(), x + row * k_columns)), mask);
  };
  auto a = hn::Zero(du), b = a;
  for (std::size_t i = 0; i < groups; ++i, x += k_group) {
    a = hn::Max(hn::Max(a, size(0)), hn::Max(size(1), size(2)));
    b = hn::Max(hn::Max(b, size(3)), hn::Max(size(4), size(5)));
    a = hn::Max(hn::Max(a, size(6)), size(7));
  }
  return largest_everywhere(hn::Max(a, b));
}

// The same of whole numbers in blocks scaled by the largest, in lines.
template <class Code, bool k_around>
bool encode_lines(const BlockFormat& format, const float* from, std::size_t count, std::byte* to,
                  const RandomKey& key) {
  const F32Tag d;
  const U32Tag du;
  const hn::Repartition<std::uint8_t, U32Tag> d8;
  constexpr std::size_t k_group_bytes = k_group / 8 * Code::bits;
  const auto levels = hn::Set(d, format.levels);
  HWY_ALIGN float padded[k_largest_block];
  HWY_ALIGN std::uint8_t codes[k_group_bytes];
  Lines<k_around> lines(to);
  bool non_finite = false;
  for (std::size_t at = 0; at < count; at += format.block) {
    const std::size_t values = std::min<std::size_t>(format.block, count - at);
    const std::size_t groups = (values + k_group - 1) / k_group;
    const float* x = from + at;
    if (HWY_UNLIKELY(values != groups * k_group)) {
      std::memset(padded, 0, groups * k_group * sizeof(float));
      std::memcpy(padded, x, values * sizeof(float));
      x = padded;
    }
    const auto scale = largest_of_groups(x, groups);
    const std::uint32_t largest = hn::GetLane(scale);
    if (HWY_LIKELY(has_one_factor(largest))) {
      const auto factor = factor_of(scale, levels);
      lines.put_word(scale);
      for (std::size_t i = 0; i < groups; ++i) put_group<Code::bits>(lines, x + i * k_group, factor);
      continue;
    }
    const bool marked = largest >= arithmetic::k_infinity;
    non_finite |= marked;
    lines.put_word(hn::Set(du, marked ? arithmetic::k_quiet_nan : largest));
    const auto steps =
        marked ? arithmetic::Steps() : arithmetic::steps_of(arithmetic::float_of(largest), format.levels);
    const Scaled by{hn::Set(d, steps.pre), hn::Set(d, steps.factor), levels};
    for (std::size_t i = 0; i < groups; ++i) {
      if (marked) {
        std::memset(codes, 0, k_group_bytes);
      } else {
        encode_group<Code>(x + i * k_group, codes, by, key, 0);
      }
      for (std::size_t line = 0; line < k_group_bytes; line += 64) {
        lines.put_line(hn::BitCast(du, hn::Load(d8, codes + line)), k_in_order);
      }
    }
  }
  lines.finish();
  return non_finite;
}
#endif

// Signs alone, in one pass: each row's are shifted in from above, so that the first row's end up lowest.
bool encode_signs(const float* from, std::size_t count, std::byte* to) {
  const F32Tag d;
  const U32Tag du;
  const std::size_t n = hn::Lanes(d);
  HWY_ALIGN float padded[k_group] = {};
  const auto sign = hn::Set(du, 0x80000000u), size = hn::Set(du, 0x7FFFFFFFu);
  auto largest = hn::Zero(du);
  auto* out = reinterpret_cast<std::uint8_t*>(to);
  for (std::size_t at = 0; at < count; at += k_group, out += k_columns) {
    const float* x = from + at;
    if (count - at < k_group) {
      std::memcpy(padded, x, (count - at) * sizeof(float));
      x = padded;
    } else {
      for (std::size_t line = 0; line < k_group; line += 16) hwy::Prefetch(x + k_ahead + line);
    }
    for (std::size_t column = 0; column < k_columns; column += n) {
      auto signs = hn::Zero(du);
      for (std::size_t row = 0; row < k_rows; ++row) {
        const auto bits = hn::BitCast(du, hn::LoadU(d, x + row * k_columns + column));
        largest = hn::Max(largest, hn::And(bits, size));
        signs = hn::Or(hn::ShiftRight<1>(signs), hn::And(bits, sign));
      }
      store_bytes(hn::ShiftRight<24>(signs), out + column);
    }
  }
  return hn::GetLane(hn::MaxOfLanes(du, largest)) > arithmetic::k_infinity;
}

template <class Code>
bool encode_blocks(const BlockFormat& format, const float* from, std::size_t count, std::byte* to,
                   const RandomKey& key) {
  if constexpr (Code::bits == 1) {
    if (format.scaling == Scaling::none) return encode_signs(from, count, to);
  }
#if GRADRAIL_WHOLE_LINES
  if constexpr (Code::around) {
    if (format.scaling == Scaling::largest && reinterpret_cast<std::uintptr_t>(to) % sizeof(std::uint32_t) == 0) {
      return format.bytes(count) >= k_around_bytes ? encode_lines<Code, true>(format, from, count, to, key)
                                                   : encode_lines<Code, false>(format, from, count, to, key);
    }
  }
#endif
  return encode_scaled<Code>(format, from, count, to, key);
}

template <class Code, class How>
bool apply_blocks(const BlockFormat& format, const std::byte* from, float* to, std::size_t count, float scale) {
  HWY_ALIGN float padded[k_group] = {};
  const auto* in = reinterpret_cast<const std::uint8_t*>(from);
  const F32Tag d;
  const auto inverse = hn::Set(d, 1.0f / format.levels);
  bool sound = true;
  for (std::size_t at = 0; at < count; at += format.block) {
    const std::size_t values = std::min<std::size_t>(format.block, count - at);
    if (format.scaling != Scaling::none) {
      std::memcpy(&scale, in, sizeof scale);
      in += sizeof scale;
      sound &= arithmetic::is_scale(arithmetic::bits_of(scale));
    }
    const Scaled by{inverse, hn::Set(d, scale), inverse};
    std::size_t done = 0;
    for (; done + k_group <= values; done += k_group, in += k_group / 8 * Code::bits) {
      apply_group<Code, How>(in, to + at + done, by);
    }
    if (done < values) {
      std::memcpy(padded, to + at + done, (values - done) * sizeof(float));
      apply_group<Code, How>(in, padded, by);
      std::memcpy(to + at + done, padded, (values - done) * sizeof(float));
      in += k_group / 8 * Code::bits;
    }
  }
  return sound;
}

template <class Code>
BlockKernels kernels() {
  return {&encode_blocks<Code>, &apply_blocks<Code, Store>, &apply_blocks<Code, Add>, &apply_blocks<Code, Subtract>};
}

// Levels do not depend on how they were chosen: the decoding of one width serves both roundings.
template <class Code, class Same>
BlockKernels kernels_like() {
  auto out = kernels<Same>();
  out.encode = &encode_blocks<Code>;
  return out;
}

}  // namespace

BlockKernels choose_block_kernels(Coding coding, std::uint32_t bits) {
  switch (coding) {
    case Coding::nearest:
      if (bits == 8) return kernels<Nearest<8>>();
      if (bits == 4) return kernels<Nearest<4>>();
      break;
    case Coding::stochastic:
      if (bits == 8) return kernels_like<Stochastic<8>, Nearest<8>>();
      if (bits == 4) return kernels_like<Stochastic<4>, Nearest<4>>();
      if (bits == 2) return kernels<Stochastic<2>>();
      break;
    case Coding::e4m3:
      if (bits == 8) return kernels<SmallFloat<arithmetic::E4m3>>();
      break;
    case Coding::e5m2:
      if (bits == 8) return kernels<SmallFloat<arithmetic::E5m2>>();
      break;
    case Coding::sign:
      if (bits == 1) return kernels<Sign>();
      break;
  }
  return {};
}

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {

HWY_EXPORT(choose_block_kernels);

BlockKernels block_kernels(Coding coding, std::uint32_t bits) {
  return HWY_DYNAMIC_DISPATCH(choose_block_kernels)(coding, bits);
}

}  // namespace gradrail
#endif

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
#include "collectives/compress/block_lines_inl.h"
#include "collectives/compress/outlet_inl.h"
#include "collectives/compress/vectors_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {

using arithmetic::k_columns;
using arithmetic::k_group;
using arithmetic::k_rows;

// --- What a value becomes: code() makes the bits to be packed, in the lowest places; level() the number they stand
// for.

template <int k_bits>
struct Whole {
  static constexpr int bits = k_bits;
  template <int k_shift>  // where the code stands in its byte
  static HWY_INLINE F32 level(U32 raw) {
    const I32Tag d;
    const auto q = hn::ShiftRight<32 - k_bits>(hn::BitCast(d, hn::ShiftLeft<32 - k_bits - k_shift>(raw)));
    return hn::ConvertTo(F32Tag(), q);
  }
};

template <int k_bits>
struct Nearest : Whole<k_bits> {
  static constexpr bool random = false;
  static constexpr bool around = true;  // made fast enough that writing is what takes the time
  static HWY_INLINE U32 code(F32 level) {
    const F32Tag d;
    const U32Tag du;
    // The adder rounds; what is above the code's bits in the sum is masked, or cut off where the code fills its byte.
    const auto sum = hn::BitCast(du, hn::Add(level, hn::Set(d, 12582912.0f)));
    if constexpr (k_bits == 8) return sum;
    return hn::And(sum, hn::Set(du, (1u << k_bits) - 1));
  }
};

template <int k_bits>
struct Stochastic : Whole<k_bits> {
  static constexpr bool random = true;
  static constexpr bool around = false;
  static HWY_INLINE U32 code(F32 level, U32 words, F32 most) {
    const F32Tag d;
    const I32Tag di;
    const U32Tag du;
    const auto size = hn::Abs(level);
    const auto whole = hn::ConvertTo(d, hn::ConvertTo(di, size));
    const auto fraction = hn::Sub(size, whole);
    const auto uniform =
        hn::Mul(hn::ConvertTo(d, hn::BitCast(di, hn::ShiftRight<8>(words))), hn::Set(d, 5.9604644775390625e-8f));
    const auto up = hn::IfThenElseZero(hn::Lt(uniform, fraction), hn::Set(d, 1.0f));
    const auto q = hn::CopySignToAbs(hn::Min(hn::Add(whole, up), most), level);
    return hn::And(hn::BitCast(du, hn::ConvertTo(di, q)), hn::Set(du, (1u << k_bits) - 1));
  }
};

template <class Format>
struct SmallFloat {
  static constexpr int bits = 8;
  static constexpr bool random = false;
  static constexpr bool around = false;
  static HWY_INLINE U32 code(F32 level) {
    const F32Tag d;
    const U32Tag du;
    const auto all = hn::BitCast(du, level), size = hn::And(all, hn::Set(du, 0x7FFFFFFFu));
    const auto adder = hn::Set(du, Format::k_adder);
    const auto small = hn::Sub(hn::BitCast(du, hn::Add(hn::BitCast(d, size), hn::BitCast(d, adder))), adder);
    const auto last = hn::And(hn::ShiftRight<Format::k_drop>(size), hn::Set(du, 1u));
    const auto rounded = hn::Add(hn::Add(size, hn::Set(du, Format::k_half)), last);
    const auto normal = hn::Sub(hn::ShiftRight<Format::k_drop>(rounded), hn::Set(du, Format::k_rebias));
    const auto out = hn::IfThenElse(hn::Lt(size, hn::Set(du, Format::k_least_normal)), small, normal);
    return hn::Or(out, hn::And(hn::ShiftRight<24>(all), hn::Set(du, 0x80u)));
  }
  template <int k_shift>
  static HWY_INLINE F32 level(U32 raw) {
    const F32Tag d;
    const I32Tag di;
    const U32Tag du;
    const auto size = hn::And(raw, hn::Set(du, 0x7Fu));
    const auto small = hn::BitCast(
        du, hn::Mul(hn::ConvertTo(d, hn::BitCast(di, size)), hn::BitCast(d, hn::Set(du, Format::k_subnormal))));
    const auto normal = hn::ShiftLeft<Format::k_drop>(hn::Add(size, hn::Set(du, Format::k_rebias)));
    const auto is_small = hn::Lt(size, hn::Set(du, 1u << (23 - Format::k_drop)));
    const auto sign = hn::ShiftLeft<24>(hn::And(raw, hn::Set(du, 0x80u)));
    return hn::BitCast(d, hn::Or(hn::IfThenElse(is_small, small, normal), sign));
  }
};

struct Sign {
  static constexpr int bits = 1;
  static constexpr bool random = false;
  static constexpr bool around = false;
  static HWY_INLINE U32 code(F32 value) { return hn::ShiftRight<31>(hn::BitCast(U32Tag(), value)); }
  // Plus or minus one.
  template <int k_shift>
  static HWY_INLINE F32 level(U32 raw) {
    const F32Tag d;
    const U32Tag du;
    const auto sign = hn::And(hn::ShiftLeft<31 - k_shift>(raw), hn::Set(du, 0x80000000u));
    return hn::BitCast(d, hn::Or(sign, hn::BitCast(du, hn::Set(d, 1.0f))));
  }
};

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

// --- Groups of 128 values.

HWY_INLINE void store_bytes(U32 v, std::uint8_t* to) {
  const hn::Rebind<std::uint8_t, F32Tag> d8;
  hn::StoreU(hn::TruncateTo(d8, v), d8, to);
}
HWY_INLINE U32 load_bytes(const std::uint8_t* from) {
  return hn::PromoteTo(U32Tag(), hn::LoadU(hn::Rebind<std::uint8_t, F32Tag>(), from));
}

#if HWY_TARGET <= HWY_AVX3
// Codes of four rows, a whole line, in few instructions: bytes of the four are put into one vector, of which each
// column then holds four; which is turned around. What stands above a code's byte is ignored.
constexpr bool k_stores_lines = true;
HWY_INLINE void store_line(U32 a, U32 b, U32 c, U32 e, std::uint8_t* to) {
  const U32Tag d;
  const hn::Repartition<std::uint8_t, U32Tag> d8;
  alignas(16) static constexpr std::uint8_t k_in_block[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  alignas(64) static constexpr std::uint32_t k_across[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  const auto ab = hn::IfVecThenElse(hn::Set(d, 0xFFu), a, hn::ShiftLeft<8>(b));
  const auto ce = hn::IfVecThenElse(hn::Set(d, 0xFF0000u), hn::ShiftLeft<16>(c), hn::ShiftLeft<24>(e));
  const auto all = hn::BitCast(d8, hn::IfVecThenElse(hn::Set(d, 0xFFFFu), ab, ce));
  const auto blocks = hn::BitCast(d, hn::TableLookupBytes(all, hn::LoadDup128(d8, k_in_block)));
  hn::StoreU(hn::BitCast(d8, hn::TableLookupLanes(blocks, hn::SetTableIndices(d, k_across))), d8, to);
}
#else
constexpr bool k_stores_lines = false;
[[maybe_unused]] HWY_INLINE void store_line(U32, U32, U32, U32, std::uint8_t*) {}
#endif

struct Scaled {
  F32 pre, factor, most;
};

// The codes of one row's vector. `words`: the random numbers of all rows, if the code takes some.
template <class Code>
HWY_INLINE U32 code_row(const float* x, const Scaled& by, const U32* words, std::size_t row) {
  const auto value = hn::LoadU(F32Tag(), x + row * k_columns);
  if constexpr (Code::bits == 1) {
    return Code::code(value);
  } else if constexpr (Code::random) {
    return Code::code(hn::Mul(hn::Mul(value, by.pre), by.factor), words[row], by.most);
  } else {
    return Code::code(hn::Mul(hn::Mul(value, by.pre), by.factor));
  }
}

template <class Code>
HWY_INLINE void encode_group(const float* x, std::uint8_t* to, const Scaled& by, const RandomKey& key,
                             std::uint64_t group) {
  const std::size_t n = hn::Lanes(F32Tag());
  constexpr int k_per_byte = 8 / Code::bits;
  constexpr std::size_t k_bytes = k_rows / k_per_byte;
  for (std::size_t column = 0; column < k_columns; column += n) {
    U32 words[k_rows];
    if constexpr (Code::random) random_rows(key, group, column, words);
    const float* const at = x + column;
    U32 bytes[k_bytes];
    for (std::size_t byte = 0; byte < k_bytes; ++byte) {
      const std::size_t row = byte * k_per_byte;
      auto packed = code_row<Code>(at, by, words, row);
      if constexpr (k_per_byte >= 2) {
        packed = hn::Or(packed, hn::ShiftLeft<Code::bits>(code_row<Code>(at, by, words, row + 1)));
      }
      if constexpr (k_per_byte >= 4) {
        packed = hn::Or(packed, hn::ShiftLeft<2 * Code::bits>(code_row<Code>(at, by, words, row + 2)));
        packed = hn::Or(packed, hn::ShiftLeft<3 * Code::bits>(code_row<Code>(at, by, words, row + 3)));
      }
      if constexpr (k_per_byte == 8) {
        packed = hn::Or(packed, hn::ShiftLeft<4>(code_row<Code>(at, by, words, 4)));
        packed = hn::Or(packed, hn::ShiftLeft<5>(code_row<Code>(at, by, words, 5)));
        packed = hn::Or(packed, hn::ShiftLeft<6>(code_row<Code>(at, by, words, 6)));
        packed = hn::Or(packed, hn::ShiftLeft<7>(code_row<Code>(at, by, words, 7)));
      }
      bytes[byte] = packed;
    }
    if constexpr (k_stores_lines && k_bytes >= 4) {
      for (std::size_t byte = 0; byte < k_bytes; byte += 4) {
        store_line(bytes[byte], bytes[byte + 1], bytes[byte + 2], bytes[byte + 3], to + byte * k_columns);
      }
    } else {
      for (std::size_t byte = 0; byte < k_bytes; ++byte) store_bytes(bytes[byte], to + byte * k_columns + column);
    }
  }
}

template <class Code, class How, int k_part>
HWY_INLINE void apply_row(U32 raw, float* to, const Scaled& by) {
  const auto level = Code::template level<k_part * Code::bits>(raw);
  How::to(F32Tag(), hn::Mul(hn::Mul(level, by.pre), by.factor), to + k_part * k_columns);
}

// `by`: the inverse of the levels, then the scale.
template <class Code, class How>
HWY_INLINE void apply_group(const std::uint8_t* from, float* to, const Scaled& by) {
  const std::size_t n = hn::Lanes(F32Tag());
  constexpr int k_per_byte = 8 / Code::bits;
  for (std::size_t column = 0; column < k_columns; column += n) {
    for (std::size_t byte = 0; byte < k_rows / k_per_byte; ++byte) {
      const auto raw = load_bytes(from + byte * k_columns + column);
      float* const at = to + byte * k_per_byte * k_columns + column;
      apply_row<Code, How, 0>(raw, at, by);
      if constexpr (k_per_byte >= 2) apply_row<Code, How, 1>(raw, at, by);
      if constexpr (k_per_byte >= 4) {
        apply_row<Code, How, 2>(raw, at, by);
        apply_row<Code, How, 3>(raw, at, by);
      }
      if constexpr (k_per_byte == 8) {
        apply_row<Code, How, 4>(raw, at, by);
        apply_row<Code, How, 5>(raw, at, by);
        apply_row<Code, How, 6>(raw, at, by);
        apply_row<Code, How, 7>(raw, at, by);
      }
    }
  }
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

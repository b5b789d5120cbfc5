// What a value of a block becomes, and groups of 128 values turned into codes and back.
// Compiled once for each instruction set; included only by files that use Highway's foreach_target.h.

#if defined(GRADRAIL_BLOCK_GROUPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADRAIL_BLOCK_GROUPS_INL_H_
#undef GRADRAIL_BLOCK_GROUPS_INL_H_
#else
#define GRADRAIL_BLOCK_GROUPS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/vectors_inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using arithmetic::k_columns;
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

}  // namespace
}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard

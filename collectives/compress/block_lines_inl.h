// Blocks of whole-number codes encoded a line of 64 bytes at a time, where vectors are that wide. A block's scale puts
// what follows four bytes further, so that its lines lie across the message's; they are turned in registers until they
// do not. The message is then written in aligned lines, each once, also around the caches. It begins at a multiple of
// four bytes; the first and last line, which are not its alone, are written in part.
// Compiled once for each instruction set; included only by files that use Highway's foreach_target.h.

#if defined(GRADRAIL_BLOCK_LINES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADRAIL_BLOCK_LINES_INL_H_
#undef GRADRAIL_BLOCK_LINES_INL_H_
#else
#define GRADRAIL_BLOCK_LINES_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/vectors_inl.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET <= HWY_AVX3
#undef GRADRAIL_WHOLE_LINES
#define GRADRAIL_WHOLE_LINES 1

// In which order the words of a line come, twice; so that from any place on there are 16 in turn.
using LineOrder = std::uint32_t[32];
alignas(64) inline constexpr LineOrder k_in_order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                                     0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
// As they leave gather_line().
alignas(64) inline constexpr LineOrder k_gathered = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
                                                     0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

// Four rows of whole numbers that fit into a byte with their sign: each word of the outcome holds those of four columns
// of a row. By intrinsics, as Highway has neither narrowing to bytes nor a conversion that leaves large numbers to the
// caller.
HWY_INLINE U32 gather_line(I32 a, I32 b, I32 c, I32 e) {
  return U32{_mm512_packs_epi16(_mm512_packs_epi32(a.raw, b.raw), _mm512_packs_epi32(c.raw, e.raw))};
}
HWY_INLINE I32 nearest_whole(F32 value) { return I32{_mm512_cvtps_epi32(value.raw)}; }

// In all lanes.
HWY_INLINE U32 largest_everywhere(U32 v) {
  v = hn::Max(v, hn::ReverseBlocks(U32Tag(), v));
  v = hn::Max(v, hn::SwapAdjacentBlocks(v));
  v = hn::Max(v, hn::Shuffle1032(v));
  return hn::Max(v, hn::Shuffle2301(v));
}

template <bool k_around>
class Lines {
 public:
  explicit Lines(std::byte* to)
      : used_(reinterpret_cast<std::uintptr_t>(to) % k_line / sizeof(std::uint32_t)),
        to_(reinterpret_cast<std::uint32_t*>(to) - used_),
        foreign_(used_),
        pending_(hn::Zero(U32Tag())) {}
  Lines(const Lines&) = delete;
  Lines& operator=(const Lines&) = delete;

  // One word, the same in all lanes.
  HWY_INLINE void put_word(U32 word) {
    const U32Tag d;
    pending_ = hn::IfThenElse(hn::FirstN(d, used_), pending_, word);
    if (++used_ == k_words) {
      write(pending_);
      used_ = 0;
    }
  }
  HWY_INLINE void put_line(U32 line, const LineOrder& order) {
    const U32Tag d;
    const auto turned = hn::TableLookupLanes(line, hn::IndicesFromVec(d, hn::LoadU(d, order + k_words - used_)));
    write(hn::IfThenElse(hn::FirstN(d, used_), pending_, turned));
    pending_ = turned;
  }
  HWY_INLINE void finish() {
    const U32Tag d;
    hn::BlendedStore(pending_, hn::AndNot(hn::FirstN(d, foreign_), hn::FirstN(d, used_)), d, to_);
    if (k_around) hwy::FlushStream();
  }

 private:
  static constexpr std::size_t k_line = 64, k_words = k_line / sizeof(std::uint32_t);

  HWY_INLINE void write(U32 line) {
    const U32Tag d;
    if (HWY_UNLIKELY(foreign_ > 0)) {
      hn::BlendedStore(line, hn::Not(hn::FirstN(d, foreign_)), d, to_);
      foreign_ = 0;
    } else if (k_around) {
      hn::Stream(line, d, to_);
    } else {
      hn::Store(line, d, to_);
    }
    to_ += k_words;
  }

  std::size_t used_;  // words of the line at to_ that stand in pending_
  std::uint32_t* to_;
  std::size_t foreign_;  // words at its front that are not the message's
  U32 pending_;
};

// What blocks with a scale of this size, as bits, are multiplied by in one step: the two steps of arithmetic.h, the
// first of which is exact, and their product is finite. Levels that were below 2^-100 may come out otherwise, which
// rounding to whole numbers does not show.
HWY_INLINE bool has_one_factor(std::uint32_t scale) { return (scale >> 23) - 7 <= 252 - 7; }
HWY_INLINE F32 factor_of(U32 scale, F32 levels) {
  const F32Tag d;
  const U32Tag du;
  const auto pre = hn::BitCast(d, hn::ShiftLeft<23>(hn::Sub(hn::Set(du, 254), hn::ShiftRight<23>(scale))));
  return hn::Mul(pre, hn::Div(levels, hn::Mul(hn::BitCast(d, scale), pre)));
}

HWY_INLINE I32 whole_level(const float* x, F32 factor) {
  return nearest_whole(hn::Mul(hn::LoadU(F32Tag(), x), factor));
}

// A group of 128 values.
template <int k_bits, bool k_around>
HWY_INLINE void put_group(Lines<k_around>& lines, const float* x, F32 factor) {
  using arithmetic::k_columns;
  const auto row = [&](std::size_t i) { return whole_level(x + i * k_columns, factor); };
  if constexpr (k_bits == 8) {
    lines.put_line(gather_line(row(0), row(1), row(2), row(3)), k_gathered);
    lines.put_line(gather_line(row(4), row(5), row(6), row(7)), k_gathered);
  } else {
    static_assert(k_bits == 4);
    const auto pair = [&](std::size_t i) {
      return hn::IfVecThenElse(hn::Set(I32Tag(), 0xF), row(i), hn::ShiftLeft<4>(row(i + 1)));
    };
    lines.put_line(gather_line(pair(0), pair(2), pair(4), pair(6)), k_gathered);
  }
}

#else
#undef GRADRAIL_WHOLE_LINES
#define GRADRAIL_WHOLE_LINES 0
#endif

}  // namespace
}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard

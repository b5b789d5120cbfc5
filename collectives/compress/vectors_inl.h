// Vectors as the codecs' kernels use them: at most 16 floats wide, because messages are laid out in columns of 16.
// Compiled once for each instruction set; included only by files that use Highway's foreach_target.h.

#if defined(GRADRAIL_VECTORS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADRAIL_VECTORS_INL_H_
#undef GRADRAIL_VECTORS_INL_H_
#else
#define GRADRAIL_VECTORS_INL_H_
#endif

#include <cstddef>
#include <cstdint>

#include "collectives/compress/random.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using F32Tag = hn::CappedTag<float, 16>;
using U32Tag = hn::RebindToUnsigned<F32Tag>;
using I32Tag = hn::RebindToSigned<F32Tag>;
using F32 = hn::Vec<F32Tag>;
using U32 = hn::Vec<U32Tag>;
using I32 = hn::Vec<I32Tag>;

// What decoding does with a value.
struct Store {
  template <class D>
  static HWY_INLINE void to(D d, hn::Vec<D> value, float* at) {
    hn::StoreU(value, d, at);
  }
};
struct Add {
  template <class D>
  static HWY_INLINE void to(D d, hn::Vec<D> value, float* at) {
    hn::StoreU(hn::Add(hn::LoadU(d, at), value), d, at);
  }
};
struct Subtract {
  template <class D>
  static HWY_INLINE void to(D d, hn::Vec<D> value, float* at) {
    hn::StoreU(hn::Sub(hn::LoadU(d, at), value), d, at);
  }
};

// High and low halves of 32-bit products.
HWY_INLINE void multiply_wide(U32 x, U32 by, U32& high, U32& low) {
  const U32Tag d;
  const hn::Repartition<std::uint64_t, U32Tag> d64;
  const auto even = hn::MulEven(x, by);
  const auto odd = hn::MulEven(hn::BitCast(d, hn::ShiftRight<32>(hn::BitCast(d64, x))), by);
  high = hn::OddEven(hn::BitCast(d, odd), hn::BitCast(d, hn::ShiftRight<32>(even)));
  low = hn::OddEven(hn::BitCast(d, hn::ShiftLeft<32>(odd)), hn::BitCast(d, even));
}

// The random words of all 8 rows of a group, for the columns from `column` on.
HWY_INLINE void random_rows(const RandomKey& key, std::uint64_t group, std::size_t column, U32 (&words)[8]) {
  const U32Tag d;
  // 16 consecutive counters, the first a multiple of 16: their upper halves are the same.
  const std::uint64_t block = (key.first_group + group) * 2 * arithmetic::k_columns;
  for (int half = 0; half < 2; ++half) {
    const std::uint64_t first = block + static_cast<std::uint64_t>(half) * arithmetic::k_columns;
    words[4 * half] = hn::Iota(d, static_cast<std::uint32_t>(first + column));
    words[4 * half + 1] = hn::Set(d, static_cast<std::uint32_t>(first >> 32));
    words[4 * half + 2] = hn::Set(d, key.step);
    words[4 * half + 3] = hn::Set(d, key.tensor);
  }
  std::uint32_t key0 = key.key[0], key1 = key.key[1];
  const auto m0 = hn::Set(d, philox::k_multiplier[0]), m1 = hn::Set(d, philox::k_multiplier[1]);
  for (int round = 0; round < philox::k_rounds; ++round) {
    const auto k0 = hn::Set(d, key0), k1 = hn::Set(d, key1);
    for (int half = 0; half < 2; ++half) {
      U32* const x = words + 4 * half;
      U32 high_a, low_a, high_b, low_b;
      multiply_wide(x[0], m0, high_a, low_a);
      multiply_wide(x[2], m1, high_b, low_b);
      const auto x0 = hn::Xor(hn::Xor(high_b, x[1]), k0);
      const auto x2 = hn::Xor(hn::Xor(high_a, x[3]), k1);
      x[0] = x0;
      x[1] = low_b;
      x[2] = x2;
      x[3] = low_a;
    }
    key0 += philox::k_weyl[0];
    key1 += philox::k_weyl[1];
  }
}

}  // namespace
}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard

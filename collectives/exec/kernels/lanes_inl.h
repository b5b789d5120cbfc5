// How one vector of each element type is combined: the arithmetic that reduce.cc and reduce_many.cc put into loops.
// Compiled once for each instruction set; included only by files that use Highway's foreach_target.h.
//
// A Lanes class has the type of a vector in memory (Raw: bytes, so that any alignment is fine), and combine<Op>(a, b).
// Op is one of Sum, Prod, Min, Max below, each defined on vectors of floats and of integers.

#if defined(GRADRAIL_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADRAIL_LANES_INL_H_
#undef GRADRAIL_LANES_INL_H_
#else
#define GRADRAIL_LANES_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "collectives/types.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Hardware conversion between f16 and f32 that rounds to nearest even and keeps subnormals.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL || \
    (HWY_TARGET == HWY_NEON && HWY_ARCH_ARM_A64)
inline constexpr bool k_native_f16 = true;
#else
inline constexpr bool k_native_f16 = false;
#endif

// Comparing and choosing lanes are one instruction each.
inline constexpr bool k_native_masks = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL;

template <class D>
constexpr bool is_float = std::is_floating_point_v<hn::TFromD<D>>;

// Operations on floats give some NaN where they give one; the Lanes then make it the same for all, so that a op b and
// b op a have the same bits whatever the payloads were.
template <class D, class V>
HWY_INLINE V same_nan([[maybe_unused]] D d, V v) {
  if constexpr (is_float<D>) {
    return hn::IfThenElse(hn::IsNaN(v), hn::Set(d, std::numeric_limits<hn::TFromD<D>>::quiet_NaN()), v);
  } else {
    return v;
  }
}

struct Sum {
  template <class D, class V>
  static HWY_INLINE V apply(D, V a, V b) {
    return hn::Add(a, b);
  }
};

struct Prod {
  template <class D, class V>
  static HWY_INLINE V apply([[maybe_unused]] D d, V a, V b) {
    if constexpr (sizeof(hn::TFromD<D>) == 1) {
      // No instruction multiplies bytes: the even ones as the low half of 16-bit products, the odd ones as the high
      // half.
      const hn::RepartitionToWide<D> d16;
      const auto a16 = hn::BitCast(d16, a), b16 = hn::BitCast(d16, b);
      const auto low = hn::Set(d16, 0x00FF), high = hn::Set(d16, 0xFF00);
      const auto even = hn::And(hn::Mul(a16, b16), low);
      const auto odd = hn::Mul(hn::ShiftRight<8>(a16), hn::And(b16, high));
      return hn::BitCast(d, hn::Or(even, odd));
    } else {
      return hn::Mul(a, b);
    }
  }
};

struct Min {
  template <class D, class V>
  static HWY_INLINE V apply([[maybe_unused]] D d, V a, V b) {
    if constexpr (is_float<D>) {
      // Where neither is smaller they are equal, and the union of their bits is the value, -0 for zeros of both signs;
      // or one is a NaN, and so is the union.
      return hn::IfThenElse(hn::Lt(a, b), a, hn::IfThenElse(hn::Lt(b, a), b, hn::Or(a, b)));
    } else {
      return hn::Min(a, b);
    }
  }
};

struct Max {
  template <class D, class V>
  static HWY_INLINE V apply([[maybe_unused]] D d, V a, V b) {
    if constexpr (is_float<D>) {
      const auto sign = hn::SignBit(d);
      return hn::Xor(sign, Min::apply(d, hn::Xor(sign, a), hn::Xor(sign, b)));
    } else {
      return hn::Max(a, b);
    }
  }
};

template <class T>
struct PlainLanes {
  static constexpr std::size_t k_element = sizeof(T);
  using Tag = hn::ScalableTag<T>;
  using RawTag = hn::Repartition<std::uint8_t, Tag>;
  using Raw = hn::Vec<RawTag>;

  template <class Op>
  static HWY_INLINE Raw combine(Raw a, Raw b) {
    const Tag d;
    return hn::BitCast(RawTag(), same_nan(d, Op::apply(d, hn::BitCast(d, a), hn::BitCast(d, b))));
  }
  template <class F>
  static HWY_INLINE Raw map(Raw a, F f) {
    const Tag d;
    return hn::BitCast(RawTag(), f(d, hn::BitCast(d, a)));
  }
};

// bf16 is the upper half of an f32. A vector of pairs becomes two f32 vectors by a shift and a mask, and goes back the
// same way: nothing moves between lanes.
struct Bf16Lanes {
  static constexpr std::size_t k_element = 2;
  using Tag = hn::ScalableTag<float>;
  using BitsTag = hn::RebindToUnsigned<Tag>;
  using RawTag = hn::Repartition<std::uint8_t, Tag>;
  using Raw = hn::Vec<RawTag>;
  using Bits = hn::Vec<BitsTag>;
  using Floats = hn::Vec<Tag>;

  static HWY_INLINE Floats even(Raw a) { return hn::BitCast(Tag(), hn::ShiftLeft<16>(hn::BitCast(BitsTag(), a))); }
  static HWY_INLINE Floats odd(Raw a) {
    return hn::BitCast(Tag(), hn::And(hn::BitCast(BitsTag(), a), hn::Set(BitsTag(), 0xFFFF0000u)));
  }
  // Adds half a unit of the last kept place, a little less where that place is even; the carry may run into the
  // exponent, up to infinity. A NaN that came from bf16 has zeros in the places that are dropped, and stays one.
  static HWY_INLINE Bits rounded(Floats v) {
    const BitsTag d;
    const auto bits = hn::BitCast(d, v);
    if constexpr (k_native_masks) {
      const auto odd = hn::TestBit(bits, hn::Set(d, 0x10000u));
      return hn::Add(bits, hn::IfThenElse(odd, hn::Set(d, 0x8000u), hn::Set(d, 0x7FFFu)));
    } else {
      const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u));
      return hn::Add(hn::Add(bits, hn::Set(d, 0x7FFFu)), last);
    }
  }
  static HWY_INLINE Raw join(Floats even, Floats odd) {
    const hn::Repartition<std::uint16_t, Tag> d;
    const auto all = hn::OddEven(hn::BitCast(d, rounded(odd)), hn::BitCast(d, hn::ShiftRight<16>(rounded(even))));
    const auto nan = hn::Gt(hn::And(all, hn::Set(d, 0x7FFF)), hn::Set(d, 0x7F80));
    return hn::BitCast(RawTag(), hn::IfThenElse(nan, hn::Set(d, 0x7FC0), all));
  }

  template <class Op>
  static HWY_INLINE Raw combine(Raw a, Raw b) {
    const Tag d;
    return join(Op::apply(d, even(a), even(b)), Op::apply(d, odd(a), odd(b)));
  }
  template <class F>
  static HWY_INLINE Raw map(Raw a, F f) {
    const Tag d;
    return join(f(d, even(a)), f(d, odd(a)));
  }
};

// f16 is converted a half vector at a time: that is what the conversion instructions take from memory.
struct F16Lanes {
  static constexpr std::size_t k_element = 2;
  using Tag = hn::ScalableTag<float>;
  using BitsTag = hn::RebindToUnsigned<Tag>;
  using HalfTag = hn::Rebind<std::uint16_t, Tag>;
  using RawTag = hn::Repartition<std::uint8_t, HalfTag>;
  using Raw = hn::Vec<RawTag>;
  using Floats = hn::Vec<Tag>;

  static HWY_INLINE Floats widen(Raw a) {
    const Tag d;
    if constexpr (k_native_f16) {
      return hn::PromoteTo(d, hn::BitCast(hn::Rebind<hwy::float16_t, Tag>(), a));
    } else {
      const BitsTag db;
      const auto bits = hn::PromoteTo(db, hn::BitCast(HalfTag(), a));
      const auto size = hn::And(bits, hn::Set(db, 0x7FFFu));
      // The exponents' biases differ by 112: scaling by that power of two is exact, subnormals included.
      const auto scaled = hn::Mul(hn::BitCast(d, hn::ShiftLeft<13>(size)), hn::Set(d, 0x1p112f));
      const auto special = hn::Gt(size, hn::Set(db, 0x7BFFu));  // infinities and NaNs take the largest exponent
      const auto value = hn::Or(hn::BitCast(db, scaled), hn::IfThenElseZero(special, hn::Set(db, 0x7F800000u)));
      return hn::BitCast(d, hn::Or(value, hn::ShiftLeft<16>(hn::And(bits, hn::Set(db, 0x8000u)))));
    }
  }
  static HWY_INLINE Raw narrow(Floats v) {
    if constexpr (k_native_f16) {
      return hn::BitCast(RawTag(), hn::DemoteTo(hn::Rebind<hwy::float16_t, Tag>(), v));
    } else {
      const Tag d;
      const BitsTag db;
      const auto bits = hn::BitCast(db, v);
      const auto size = hn::And(bits, hn::Set(db, 0x7FFFFFFFu));
      // Normal results: rebias, then round as bf16 does; a carry past the largest number makes infinity.
      const auto last = hn::And(hn::ShiftRight<13>(size), hn::Set(db, 1u));
      const auto normal = hn::ShiftRight<13>(hn::Add(hn::Add(size, hn::Set(db, 0xFFFu - (112u << 23))), last));
      // Subnormal results: a float at 1/2 has its last place at 2^-24, where f16's subnormals have theirs; the adder
      // rounds.
      const auto half = hn::Set(d, 0.5f);
      const auto small = hn::Sub(hn::BitCast(db, hn::Add(hn::BitCast(d, size), half)), hn::BitCast(db, half));
      auto out = hn::IfThenElse(hn::Lt(size, hn::Set(db, 0x38800000u)), small, normal);
      out = hn::IfThenElse(hn::Gt(size, hn::Set(db, 0x477FFFFFu)), hn::Set(db, 0x7C00u), out);
      out = hn::IfThenElse(hn::Gt(size, hn::Set(db, 0x7F800000u)), hn::Set(db, 0x7E00u), out);
      out = hn::Or(out, hn::ShiftRight<16>(hn::And(bits, hn::Set(db, 0x80000000u))));
      return hn::BitCast(RawTag(), hn::DemoteTo(HalfTag(), hn::BitCast(hn::RebindToSigned<BitsTag>(), out)));
    }
  }

  template <class Op>
  static HWY_INLINE Raw combine(Raw a, Raw b) {
    const Tag d;
    return narrow(same_nan(d, Op::apply(d, widen(a), widen(b))));
  }
  template <class F>
  static HWY_INLINE Raw map(Raw a, F f) {
    const Tag d;
    return narrow(f(d, widen(a)));
  }
};

template <class Lanes>
HWY_INLINE typename Lanes::Raw load(const std::byte* at) {
  return hn::LoadU(typename Lanes::RawTag(), reinterpret_cast<const std::uint8_t*>(at));
}
template <class Lanes>
HWY_INLINE void store(typename Lanes::Raw v, std::byte* at) {
  hn::StoreU(v, typename Lanes::RawTag(), reinterpret_cast<std::uint8_t*>(at));
}
// `at` is aligned to the vector. Not ordered among other stores until hwy::FlushStream().
template <class Lanes>
HWY_INLINE void store_around(typename Lanes::Raw v, std::byte* at) {
  if constexpr (hn::MaxLanes(typename Lanes::RawTag()) >= 16) {
    hn::Stream(v, typename Lanes::RawTag(), reinterpret_cast<std::uint8_t*>(at));
  } else {
    store<Lanes>(v, at);  // half a vector of 16 bytes, and such stores write all of it
  }
}
inline bool is_aligned(const std::byte* at, std::size_t step) {
  return reinterpret_cast<std::uintptr_t>(at) % step == 0;
}
template <class Lanes>
HWY_INLINE std::size_t vector_bytes() {
  return hn::Lanes(typename Lanes::RawTag());
}

// Where the loop over whole vectors begins so that it writes aligned ones: 0 if elements are not aligned themselves.
template <class Lanes>
HWY_INLINE std::size_t aligned_start(const std::byte* to, std::size_t step) {
  const auto past = reinterpret_cast<std::uintptr_t>(to) % step;
  return past % Lanes::k_element == 0 && past != 0 ? step - past : 0;
}

// Calls pick.template operator()<Lanes, Op>() for the type and operation. Sums and products of integers do not depend
// on their sign, so each width has one.
template <class Pick>
auto dispatch(Type type, ReduceOp op, Pick pick) {
  const auto by_op = [&]<class Lanes, class Unsigned>() {
    switch (op) {
      case ReduceOp::prod: return pick.template operator()<Unsigned, Prod>();
      case ReduceOp::min: return pick.template operator()<Lanes, Min>();
      case ReduceOp::max: return pick.template operator()<Lanes, Max>();
      case ReduceOp::sum:
      case ReduceOp::avg: break;
    }
    return pick.template operator()<Unsigned, Sum>();
  };
  using U8 = PlainLanes<std::uint8_t>;
  using U32 = PlainLanes<std::uint32_t>;
  using U64 = PlainLanes<std::uint64_t>;
  using F32 = PlainLanes<float>;
  using F64 = PlainLanes<double>;
  switch (type) {
    case Type::i8: return by_op.template operator()<PlainLanes<std::int8_t>, U8>();
    case Type::u8: return by_op.template operator()<U8, U8>();
    case Type::i32: return by_op.template operator()<PlainLanes<std::int32_t>, U32>();
    case Type::u32: return by_op.template operator()<U32, U32>();
    case Type::i64: return by_op.template operator()<PlainLanes<std::int64_t>, U64>();
    case Type::u64: return by_op.template operator()<U64, U64>();
    case Type::f16: return by_op.template operator()<F16Lanes, F16Lanes>();
    case Type::bf16: return by_op.template operator()<Bf16Lanes, Bf16Lanes>();
    case Type::f32: return by_op.template operator()<F32, F32>();
    case Type::f64: break;
  }
  return by_op.template operator()<F64, F64>();
}

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard

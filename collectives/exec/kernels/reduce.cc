#include "collectives/exec/kernels/reduce.h"

#include <cstdint>
#include <cstring>
#include <limits>

// One binary runs everywhere: each loop below is compiled for several instruction sets and chosen by the CPU.
#include "collectives/exec/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/exec/kernels/reduce.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "collectives/exec/kernels/lanes_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {

template <class Lanes, class Op>
void reduce(std::byte* to, const std::byte* a, const std::byte* b, std::size_t count) {
  const std::size_t bytes = count * Lanes::k_element;
  const std::size_t step = vector_bytes<Lanes>();
  const auto at = [&](std::size_t i)
                      HWY_ATTR { return Lanes::template combine<Op>(load<Lanes>(a + i), load<Lanes>(b + i)); };
  if (bytes < step) {
    if (bytes == 0) return;
    HWY_ALIGN std::byte x[HWY_MAX_BYTES] = {}, y[HWY_MAX_BYTES] = {};
    std::memcpy(x, a, bytes);
    std::memcpy(y, b, bytes);
    store<Lanes>(Lanes::template combine<Op>(load<Lanes>(x), load<Lanes>(y)), x);
    std::memcpy(to, x, bytes);
    return;
  }
  // The first and the last vector may overlap the loop's: they are computed before anything is written, because `to`
  // may be an operand, and written last.
  const auto first = at(0), last = at(bytes - step);
  std::size_t i = aligned_start<Lanes>(to, step);
  for (; i + 4 * step <= bytes; i += 4 * step) {
    const auto r0 = at(i), r1 = at(i + step), r2 = at(i + 2 * step), r3 = at(i + 3 * step);
    store<Lanes>(r0, to + i);
    store<Lanes>(r1, to + i + step);
    store<Lanes>(r2, to + i + 2 * step);
    store<Lanes>(r3, to + i + 3 * step);
  }
  for (; i + step <= bytes; i += step) store<Lanes>(at(i), to + i);
  store<Lanes>(first, to);
  store<Lanes>(last, to + bytes - step);
}

ReduceFn choose_reduce(Type type, ReduceOp op) {
  return dispatch(type, op, []<class Lanes, class Op>() -> ReduceFn { return &reduce<Lanes, Op>; });
}

template <class Lanes>
void divide_floats(std::byte* data, std::size_t count, int ranks) {
  const std::size_t bytes = count * Lanes::k_element;
  const std::size_t step = vector_bytes<Lanes>();
  const auto quotient = [&](const std::byte* at) HWY_ATTR {
    return Lanes::map(load<Lanes>(at), [ranks](auto d, auto v) HWY_ATTR {
      return hn::Div(v, hn::Set(d, static_cast<hn::TFromD<decltype(d)>>(ranks)));
    });
  };
  std::size_t i = 0;
  for (; i + step <= bytes; i += step) store<Lanes>(quotient(data + i), data + i);
  if (i == bytes) return;
  HWY_ALIGN std::byte x[HWY_MAX_BYTES] = {};
  std::memcpy(x, data + i, bytes - i);
  store<Lanes>(quotient(x), x);
  std::memcpy(data + i, x, bytes - i);
}

// In 64 bits, so that any number of ranks divides any element.
template <class T>
void divide_integers(std::byte* data, std::size_t count, int ranks) {
  using Wide = std::conditional_t<std::is_signed_v<T>, std::int64_t, std::uint64_t>;
  for (std::size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, data + i * sizeof(T), sizeof(T));
    value = static_cast<T>(static_cast<Wide>(value) / static_cast<Wide>(ranks));
    std::memcpy(data + i * sizeof(T), &value, sizeof(T));
  }
}

DivideFn choose_divide(Type type) {
  switch (type) {
    case Type::i8: return &divide_integers<std::int8_t>;
    case Type::u8: return &divide_integers<std::uint8_t>;
    case Type::i32: return &divide_integers<std::int32_t>;
    case Type::u32: return &divide_integers<std::uint32_t>;
    case Type::i64: return &divide_integers<std::int64_t>;
    case Type::u64: return &divide_integers<std::uint64_t>;
    case Type::f16: return &divide_floats<F16Lanes>;
    case Type::bf16: return &divide_floats<Bf16Lanes>;
    case Type::f32: return &divide_floats<PlainLanes<float>>;
    case Type::f64: break;
  }
  return &divide_floats<PlainLanes<double>>;
}

const char* this_target() { return hwy::TargetName(HWY_TARGET); }

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {

HWY_EXPORT(choose_reduce);
HWY_EXPORT(choose_divide);
HWY_EXPORT(this_target);

ReduceFn reduce_function(Type type, ReduceOp op) { return HWY_DYNAMIC_DISPATCH(choose_reduce)(type, op); }
DivideFn divide_function(Type type) { return HWY_DYNAMIC_DISPATCH(choose_divide)(type); }
const char* simd_target() { return HWY_DYNAMIC_DISPATCH(this_target)(); }

}  // namespace gradrail
#endif

#include <cstdint>
#include <cstring>
#include <limits>

#include "collectives/exec/kernels/reduce.h"
#include "collectives/exec/kernels/targets.h"
#include "transports/base/check.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/exec/kernels/reduce_many.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "collectives/exec/kernels/lanes_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {

template <class Lanes, class Op>
void reduce_many(std::span<std::byte* const> to, std::span<const std::byte* const> from, std::size_t count,
                 std::size_t around) {
  GRADRAIL_CHECK(!from.empty());
  const std::size_t bytes = count * Lanes::k_element;
  const std::size_t step = vector_bytes<Lanes>();
  const auto chain = [&](std::size_t i) HWY_ATTR {
    auto sum = load<Lanes>(from[0] + i);
    for (const std::byte* next : from.subspan(1)) sum = Lanes::template combine<Op>(sum, load<Lanes>(next + i));
    return sum;
  };
  if (bytes < step) {
    if (bytes == 0) return;
    HWY_ALIGN std::byte x[HWY_MAX_BYTES] = {}, y[HWY_MAX_BYTES] = {};
    std::memcpy(x, from[0], bytes);
    for (const std::byte* next : from.subspan(1)) {
      std::memcpy(y, next, bytes);
      store<Lanes>(Lanes::template combine<Op>(load<Lanes>(x), load<Lanes>(y)), x);
    }
    for (std::byte* out : to) std::memcpy(out, x, bytes);
    return;
  }
  // As in reduce(): outputs may be inputs, so what overlaps the loop is computed first and written last.
  const auto first = chain(0), last = chain(bytes - step);
  // Buffers mostly lie alike, so what aligns one output aligns the others and the inputs.
  std::size_t i = to.empty() ? 0 : aligned_start<Lanes>(to[0], step);
  for (std::size_t j = 0; j < around; ++j)
    if (!is_aligned(to[j] + i, step)) around = 0;
  for (; i + 4 * step <= bytes; i += 4 * step) {
    const std::byte* at = from[0] + i;
    auto r0 = load<Lanes>(at), r1 = load<Lanes>(at + step);
    auto r2 = load<Lanes>(at + 2 * step), r3 = load<Lanes>(at + 3 * step);
    for (const std::byte* next : from.subspan(1)) {
      at = next + i;
      r0 = Lanes::template combine<Op>(r0, load<Lanes>(at));
      r1 = Lanes::template combine<Op>(r1, load<Lanes>(at + step));
      r2 = Lanes::template combine<Op>(r2, load<Lanes>(at + 2 * step));
      r3 = Lanes::template combine<Op>(r3, load<Lanes>(at + 3 * step));
    }
    for (std::byte* out : to.first(around)) {
      store_around<Lanes>(r0, out + i);
      store_around<Lanes>(r1, out + i + step);
      store_around<Lanes>(r2, out + i + 2 * step);
      store_around<Lanes>(r3, out + i + 3 * step);
    }
    for (std::byte* out : to.subspan(around)) {
      store<Lanes>(r0, out + i);
      store<Lanes>(r1, out + i + step);
      store<Lanes>(r2, out + i + 2 * step);
      store<Lanes>(r3, out + i + 3 * step);
    }
  }
  for (; i + step <= bytes; i += step) {
    const auto r = chain(i);
    for (std::byte* out : to) store<Lanes>(r, out + i);
  }
  for (std::byte* out : to) {
    store<Lanes>(first, out);
    store<Lanes>(last, out + bytes - step);
  }
  if (around > 0) hwy::FlushStream();
}

ReduceManyFn choose_reduce_many(Type type, ReduceOp op) {
  return dispatch(type, op, []<class Lanes, class Op>() -> ReduceManyFn { return &reduce_many<Lanes, Op>; });
}

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {

HWY_EXPORT(choose_reduce_many);

ReduceManyFn reduce_many_function(Type type, ReduceOp op) { return HWY_DYNAMIC_DISPATCH(choose_reduce_many)(type, op); }

}  // namespace gradrail
#endif

#include "collectives/compress/feedback.h"

#include <cstddef>
#include <cstdint>

#include "collectives/compress/arithmetic.h"

// One binary runs everywhere: each loop below is compiled for several instruction sets and chosen by the CPU.
#include "collectives/exec/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/compress/feedback.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "hwy/cache_control.h"
#include "collectives/compress/vectors_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {

// Hardware does not look past the end of a page for what is read next.
constexpr std::size_t k_ahead = 1024;

}  // namespace

void add(float* to, const float* from, std::size_t count) {
  const F32Tag d;
  const std::size_t n = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + 2 * n <= count; i += 2 * n) {
    for (std::size_t line = 0; line < 2 * n; line += 16) {
      hwy::Prefetch(from + i + k_ahead + line);
      hwy::Prefetch(to + i + k_ahead + line);
    }
    hn::StoreU(hn::Add(hn::LoadU(d, to + i), hn::LoadU(d, from + i)), d, to + i);
    hn::StoreU(hn::Add(hn::LoadU(d, to + i + n), hn::LoadU(d, from + i + n)), d, to + i + n);
  }
  for (; i < count; ++i) to[i] += from[i];
}

bool non_finite(const float* values, std::size_t count) {
  const F32Tag d;
  const U32Tag du;
  const std::size_t n = hn::Lanes(d);
  const auto size = hn::Set(du, 0x7FFFFFFFu);
  auto a = hn::Zero(du), b = a;
  std::size_t i = 0;
  for (; i + 2 * n <= count; i += 2 * n) {
    for (std::size_t line = 0; line < 2 * n; line += 16) hwy::Prefetch(values + i + k_ahead + line);
    a = hn::Max(a, hn::And(hn::BitCast(du, hn::LoadU(d, values + i)), size));
    b = hn::Max(b, hn::And(hn::BitCast(du, hn::LoadU(d, values + i + n)), size));
  }
  bool found = hn::GetLane(hn::MaxOfLanes(du, hn::Max(a, b))) >= arithmetic::k_infinity;
  for (; i < count; ++i) found |= arithmetic::size_bits(values[i]) >= arithmetic::k_infinity;
  return found;
}

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {

HWY_EXPORT(add);
HWY_EXPORT(non_finite);

void add_values(std::span<float> to, std::span<const float> from) {
  HWY_DYNAMIC_DISPATCH(add)(to.data(), from.data(), to.size());
}

bool holds_non_finite(std::span<const float> values) {
  return HWY_DYNAMIC_DISPATCH(non_finite)(values.data(), values.size());
}

void drop_non_finite(std::span<float> values) {
  for (float& value : values) value = arithmetic::size_bits(value) < arithmetic::k_infinity ? value : 0.0f;
}

}  // namespace gradrail
#endif

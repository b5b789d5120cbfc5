// Where kernels put the bytes of a message, piece after piece: straight into it, or around the caches. Long messages
// have left the private cache by the time they are sent, and writing them through it first reads, line by line, what is
// overwritten. A message may begin anywhere; its first and last bytes are then written as any other.
// Compiled once for each instruction set; included only by files that use Highway's foreach_target.h.

#if defined(GRADRAIL_OUTLET_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADRAIL_OUTLET_INL_H_
#undef GRADRAIL_OUTLET_INL_H_
#else
#define GRADRAIL_OUTLET_INL_H_
#endif

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

class Outlet {
 public:
  static constexpr std::size_t k_piece = 2304;  // the most that may be wrote() at once

  Outlet(std::byte* to, bool around) : to_(reinterpret_cast<std::uint8_t*>(to)), around_(around) {
    if (around_) used_ = missing_ = reinterpret_cast<std::uintptr_t>(to) % k_line;
  }
  Outlet(const Outlet&) = delete;
  Outlet& operator=(const Outlet&) = delete;

  // The next bytes go there.
  [[nodiscard]] HWY_INLINE std::uint8_t* room() { return around_ ? gathered_ + used_ : to_; }
  HWY_INLINE void wrote(std::size_t bytes) {
    if (!around_) {
      to_ += bytes;
      return;
    }
    used_ += bytes;
    if (used_ >= k_full) write_lines();
  }
  void finish() {
    if (!around_) return;
    if (used_ >= k_line) write_lines();
    std::memcpy(to_, gathered_ + missing_, used_ - missing_);
    hwy::FlushStream();
  }

 private:
  static constexpr std::size_t k_line = 64;
  static constexpr std::size_t k_full = 256;  // a few lines at a time: stores keep pace with what makes the bytes

  // All whole lines; what is left moves to the front.
  void write_lines() {
    const hn::CappedTag<std::uint8_t, k_line> d;
    std::size_t at = 0;
    if (missing_ > 0) {  // the first line is not this message's alone
      std::memcpy(to_, gathered_ + missing_, k_line - missing_);
      to_ += k_line - missing_;
      at = k_line;
      missing_ = 0;
    }
    const std::size_t end = used_ / k_line * k_line, n = hn::Lanes(d);
    for (; at < end; at += n, to_ += n) hn::Stream(hn::Load(d, gathered_ + at), d, to_);
    used_ -= end;
    std::memcpy(gathered_, gathered_ + end, used_);
  }

  // Lies in its lines as the message does.
  alignas(k_line) std::uint8_t gathered_[k_full + k_piece];
  std::uint8_t* to_;
  bool around_;
  std::size_t used_ = 0;     // of gathered_
  std::size_t missing_ = 0;  // bytes at its front that are not this message's
};

}  // namespace
}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggled include guard

// fp16 and bf16: every value rounded to the nearest 16-bit float, ties to even.
//
// Source: IEEE 754-2019, binary16; bfloat16 as in Kalamkar et al., "A study of bfloat16 for deep learning training"
// (2019), section 3.
// Wire: 16 bytes of header, then 2 bytes a value, little endian. Fixed size. May be summed as f16 or bf16, which rounds
// after every addition; decode_add sums in float32.
// Error: 2^-11 (fp16) or 2^-8 (bf16) of a value; fp16's subnormals half of 2^-24. Encoding what was decoded changes
// nothing.
// NaN and infinity are carried one by one (NaN as the one quiet NaN); what is too large for fp16 becomes infinite, and
// that is reported.
#include <algorithm>
#include <cstring>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/codec.h"
#include "collectives/compress/feedback.h"
#include "collectives/compress/message.h"

// One binary runs everywhere: each loop below is compiled for several instruction sets and chosen by the CPU.
#include "collectives/exec/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/compress/half.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "collectives/compress/vectors_inl.h"
#include "collectives/exec/kernels/lanes_inl.h"
// clang-format on

#ifndef GRADRAIL_HALF_KERNELS
#define GRADRAIL_HALF_KERNELS
namespace gradrail {
namespace {
// True if what was written holds a NaN or an infinity.
using EncodeHalfFn = bool (*)(const float* from, std::size_t count, std::byte* to);
using ApplyHalfFn = void (*)(const std::byte* from, float* to, std::size_t count);
struct HalfKernels {
  EncodeHalfFn encode = nullptr;
  ApplyHalfFn store = nullptr;
  ApplyHalfFn add = nullptr;
  ApplyHalfFn subtract = nullptr;
};
}  // namespace
}  // namespace gradrail
#endif

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {

using HalfTag = hn::Rebind<std::uint16_t, F32Tag>;
using Half = hn::Vec<HalfTag>;

struct Bf16 {
  // The least size that is not finite any more.
  static constexpr std::uint32_t k_too_large = 0x7F7F8000u;
  static HWY_INLINE Half code(F32 v) {
    const U32Tag du;
    const auto bits = hn::BitCast(du, same_nan(F32Tag(), v));
    const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    return hn::TruncateTo(HalfTag(), hn::ShiftRight<16>(hn::Add(hn::Add(bits, hn::Set(du, 0x7FFFu)), last)));
  }
  static HWY_INLINE F32 value(Half code) {
    return hn::BitCast(F32Tag(), hn::ShiftLeft<16>(hn::PromoteTo(U32Tag(), code)));
  }
};

struct F16 {
  static constexpr std::uint32_t k_too_large = 0x477FF000u;
  static HWY_INLINE Half code(F32 v) { return hn::BitCast(HalfTag(), F16Lanes::narrow(same_nan(F32Tag(), v))); }
  static HWY_INLINE F32 value(Half code) { return F16Lanes::widen(hn::BitCast(F16Lanes::RawTag(), code)); }
};

template <class Format>
bool encode_half(const float* from, std::size_t count, std::byte* to) {
  const F32Tag d;
  const U32Tag du;
  const HalfTag dh;
  const std::size_t n = hn::Lanes(d);
  auto* out = reinterpret_cast<std::uint16_t*>(to);
  const auto mask = hn::Set(du, 0x7FFFFFFFu);
  auto largest = hn::Zero(du);
  std::size_t i = 0;
  for (; i + n <= count; i += n) {
    const auto v = hn::LoadU(d, from + i);
    largest = hn::Max(largest, hn::And(hn::BitCast(du, v), mask));
    hn::StoreU(Format::code(v), dh, out + i);
  }
  if (i < count) {
    HWY_ALIGN float last[16] = {};
    HWY_ALIGN std::uint16_t codes[16];
    std::memcpy(last, from + i, (count - i) * sizeof(float));
    const auto v = hn::LoadU(d, last);
    largest = hn::Max(largest, hn::And(hn::BitCast(du, v), mask));
    hn::StoreU(Format::code(v), dh, codes);
    std::memcpy(out + i, codes, (count - i) * sizeof(std::uint16_t));
  }
  return hn::GetLane(hn::MaxOfLanes(du, largest)) >= Format::k_too_large;
}

template <class Format, class How>
void apply_half(const std::byte* from, float* to, std::size_t count) {
  const F32Tag d;
  const HalfTag dh;
  const std::size_t n = hn::Lanes(d);
  const auto* in = reinterpret_cast<const std::uint16_t*>(from);
  std::size_t i = 0;
  for (; i + n <= count; i += n) How::to(d, Format::value(hn::LoadU(dh, in + i)), to + i);
  if (i < count) {
    HWY_ALIGN float last[16] = {};
    HWY_ALIGN std::uint16_t codes[16] = {};
    std::memcpy(last, to + i, (count - i) * sizeof(float));
    std::memcpy(codes, in + i, (count - i) * sizeof(std::uint16_t));
    How::to(d, Format::value(hn::LoadU(dh, codes)), last);
    std::memcpy(to + i, last, (count - i) * sizeof(float));
  }
}

template <class Format>
HalfKernels half_kernels() {
  return {&encode_half<Format>, &apply_half<Format, Store>, &apply_half<Format, Add>, &apply_half<Format, Subtract>};
}

}  // namespace

HalfKernels choose_half_kernels(Type type) { return type == Type::f16 ? half_kernels<F16>() : half_kernels<Bf16>(); }

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {
namespace {

HWY_EXPORT(choose_half_kernels);

class HalfCodec final : public Codec {
 public:
  explicit HalfCodec(Type type) : type_(type), kernels_(HWY_DYNAMIC_DISPATCH(choose_half_kernels)(type)) {}

  [[nodiscard]] std::string name() const override { return type_ == Type::f16 ? "fp16" : "bf16"; }
  [[nodiscard]] CodecTraits traits() const override {
    return {.fixed_size = true, .sums = type_, .header_bytes = k_message_header_bytes};
  }
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override { return k_message_header_bytes + 2 * count; }

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to, const Origin&) override {
    const std::size_t bytes = max_bytes(from.size());
    GRADRAIL_TRY(expect_room(to, bytes, name()));
    write_message_header(to, id(), 0, from.size());
    return Encoded{bytes, kernels_.encode(from.data(), from.size(), to.data() + k_message_header_bytes)};
  }

  // Stretch by stretch, each while it is in cache.
  [[nodiscard]] Result<Encoded> encode_feedback(std::span<const float> from, std::span<float> residual,
                                                std::span<std::byte> to, const Origin&) override {
    constexpr std::size_t k_stretch = 4096;  // values
    const std::size_t bytes = max_bytes(from.size());
    GRADRAIL_TRY(expect_room(to, bytes, name()));
    write_message_header(to, id(), 0, from.size());
    std::byte* code = to.data() + k_message_header_bytes;
    bool non_finite = false;
    for (std::size_t at = 0; at < from.size(); at += k_stretch, code += 2 * k_stretch) {
      const auto sums = residual.subspan(at, std::min(k_stretch, from.size() - at));
      add_values(sums, from.subspan(at, sums.size()));
      non_finite |= kernels_.encode(sums.data(), sums.size(), code);
      kernels_.subtract(code, sums.data(), sums.size());
    }
    if (non_finite) drop_non_finite(residual);
    return Encoded{bytes, non_finite};
  }

 private:
  [[nodiscard]] CodecId id() const { return type_ == Type::f16 ? CodecId::fp16 : CodecId::bf16; }

  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override {
    GRADRAIL_ASSIGN(const OpenMessage open, open_message(message, id(), to.size(), name()));
    if (open.parameter != 0) return fail(Code::malformed, name() + ": the header of the message is damaged");
    GRADRAIL_TRY(expect_body(open.body, 2 * to.size(), name()));
    const ApplyHalfFn function = how == Apply::store ? kernels_.store
                                 : how == Apply::add ? kernels_.add
                                                     : kernels_.subtract;
    function(open.body.data(), to.data(), to.size());
    return {};
  }

  Type type_;
  HalfKernels kernels_;
};

Result<std::unique_ptr<Codec>> make_fp16(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("fp16", parameters, 0, 0));
  return std::make_unique<HalfCodec>(Type::f16);
}
Result<std::unique_ptr<Codec>> make_bf16(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("bf16", parameters, 0, 0));
  return std::make_unique<HalfCodec>(Type::bf16);
}

}  // namespace

extern const CodecKind k_fp16_codec;
extern const CodecKind k_bf16_codec;
const CodecKind k_fp16_codec{"fp16", "", "16-bit floats", "fp16", make_fp16};
const CodecKind k_bf16_codec{"bf16", "", "16-bit floats with the range of 32-bit ones", "bf16", make_bf16};

}  // namespace gradrail
#endif

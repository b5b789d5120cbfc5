// Random-k: values at random places, which all ranks draw alike, so that no indices are sent and messages may be
// summed.
//
// Source: Stich et al., "Sparsified SGD with memory" (NeurIPS 2018), definition 2.2; here the tensor is cut into k
// parts of (nearly) the same length and one place is drawn in each, so that places come in order. Every value is sent
// with the probability 1 over the length of its part. `:unbiased` multiplies by that length: right on average, noisy.
// Without it, error feedback makes up for what is not sent (`randomk:0.01+ef`). Wire: 16 bytes of header (parameter 0,
// or 1 if unbiased), then u64 the key that places are drawn with, a function of Origin's seed, step, tensor and first
// but not of the rank; u32 k, u32 zero; then f32[k]. Size: 32 + 4k bytes, fixed as long as the ratio is. May be summed
// as f32 after 32 bytes. NaN, infinity: carried where they are drawn, reported wherever they are.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/codec.h"
#include "collectives/compress/feedback.h"
#include "collectives/compress/message.h"
#include "collectives/compress/random.h"
#include "transports/base/bytes.h"

namespace gradrail {
namespace {

constexpr std::size_t k_front = 16;

// Where part i of k begins in `count` values.
std::uint64_t part_begin(std::uint64_t count, std::uint64_t parts, std::uint64_t i) {
  return count / parts * i + count % parts * i / parts;
}

// Calls take(i, place, length of its part) for each place drawn.
template <class Take>
void for_places(std::uint64_t key, std::uint64_t count, std::uint32_t parts, Take take) {
  std::uint64_t begin = 0;
  for (std::uint32_t i = 0; i < parts; ++i) {
    const std::uint64_t end = part_begin(count, parts, std::uint64_t{i} + 1), length = end - begin;
    const std::uint64_t random = spread(key + (std::uint64_t{i} + 1) * 0x9E3779B97F4A7C15u) >> 32;
    take(i, static_cast<std::size_t>(begin + (random * length >> 32)), length);
    begin = end;
  }
}

class RandomK final : public Codec {
 public:
  RandomK(double ratio, bool unbiased)
      : ratio_(ratio),
        unbiased_(unbiased),
        name_(fmt::format("randomk:{}{}", shortest(ratio), unbiased ? ":unbiased" : "")) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] CodecTraits traits() const override {
    return {.fixed_size = true,
            .stochastic = unbiased_,
            .sparse = true,
            .sums = Type::f32,
            .header_bytes = k_message_header_bytes + k_front};
  }
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override {
    return k_message_header_bytes + k_front + 4 * std::size_t{parts_of(count)};
  }
  [[nodiscard]] double ratio() const override { return ratio_; }
  bool set_ratio(double ratio) override {
    ratio_ = ratio;
    return true;
  }

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override {
    const std::size_t bytes = max_bytes(from.size());
    GRADRAIL_TRY(expect_room(to, bytes, name_));
    if (from.size() > 0xFFFFFFFFu) {
      return fail(Code::unsupported, fmt::format("{}: a tensor of {} values is too long; cut it", name_, from.size()));
    }
    const std::uint64_t key =
        spread(spread(spread(spread(origin.seed + 1) + origin.step) + origin.tensor) + origin.first);
    const std::uint32_t parts = parts_of(from.size());
    write_message_header(to, CodecId::randomk, unbiased_ ? 1 : 0, from.size());
    std::byte* at = to.data() + k_message_header_bytes;
    const std::uint64_t second = parts;
    std::memcpy(at, &key, sizeof key);
    std::memcpy(at + 8, &second, sizeof second);
    at += k_front;
    bool non_finite = holds_non_finite(from);
    for_places(key, from.size(), parts, [&](std::uint32_t i, std::size_t place, std::uint64_t length) {
      const float value = unbiased_ ? from[place] * static_cast<float>(length) : from[place];
      non_finite |= arithmetic::size_bits(value) >= arithmetic::k_infinity;
      std::memcpy(at + std::size_t{4} * i, &value, sizeof value);
    });
    return Encoded{bytes, non_finite};
  }

 private:
  [[nodiscard]] std::uint32_t parts_of(std::size_t count) const {
    const auto wanted = static_cast<std::size_t>(std::llround(ratio_ * static_cast<double>(count)));
    return static_cast<std::uint32_t>(std::min(count, std::max<std::size_t>(wanted, 1)));
  }

  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override {
    GRADRAIL_ASSIGN(const OpenMessage open, open_message(message, CodecId::randomk, to.size(), name_));
    ByteReader reader(open.body);
    const auto key = reader.get<std::uint64_t>();
    const auto parts = reader.get<std::uint64_t>();
    if (!reader.ok() || open.parameter > 1 || parts > to.size() || (parts == 0) != to.empty()) {
      return fail(Code::malformed, fmt::format("{}: the front of a message is damaged", name_));
    }
    GRADRAIL_TRY(expect_body(open.body, k_front + 4 * parts, name_));
    if (how == Apply::store) std::fill(to.begin(), to.end(), 0.0f);
    const std::byte* const values = open.body.data() + k_front;
    for_places(key, to.size(), static_cast<std::uint32_t>(parts),
               [&](std::uint32_t i, std::size_t place, std::uint64_t) {
                 float value = 0;
                 std::memcpy(&value, values + std::size_t{4} * i, sizeof value);
                 to[place] = how == Apply::store ? value : how == Apply::add ? to[place] + value : to[place] - value;
               });
    return {};
  }

  double ratio_;
  bool unbiased_;
  std::string name_;
};

Result<std::unique_ptr<Codec>> make_randomk(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("randomk", parameters, 1, 2));
  GRADRAIL_ASSIGN(const double ratio, parse_ratio("randomk", parameters[0]));
  if (parameters.size() == 2 && parameters[1] != "unbiased") {
    return fail(Code::bad_usage, fmt::format("'{}' means nothing to randomk; there is unbiased", parameters[1]));
  }
  return std::make_unique<RandomK>(ratio, parameters.size() == 2);
}

}  // namespace

extern const CodecKind k_randomk_codec;
const CodecKind k_randomk_codec{"randomk", ":RATIO[:unbiased]", "values at random places, the same on all ranks",
                                "randomk:0.01", make_randomk};

}  // namespace gradrail

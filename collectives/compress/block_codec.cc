#include "collectives/compress/block_codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "collectives/compress/feedback.h"
#include "transports/base/check.h"

namespace gradrail {
namespace {
// Of formats without scales: where a NaN was met, all values of the message are NaN.
constexpr std::uint32_t k_met_nan = 0x80000000u;
}  // namespace

BlockCodec::BlockCodec(std::string name, CodecId id, std::uint32_t parameter, const BlockFormat& format)
    : name_(std::move(name)),
      id_(id),
      parameter_(parameter),
      format_(format),
      kernels_(block_kernels(format.coding, format.bits)) {
  GRADRAIL_CHECK(kernels_.encode != nullptr);
  GRADRAIL_CHECK(format.block % arithmetic::k_group == 0 && format.block <= k_largest_block &&
                 k_largest_block % format.block == 0);
}

CodecTraits BlockCodec::traits() const {
  return {.fixed_size = true,
          .stochastic = format_.coding == Coding::stochastic,
          .block = format_.block,
          .header_bytes = k_message_header_bytes};
}

Result<Encoded> BlockCodec::encode(std::span<const float> from, std::span<std::byte> to, const Origin& origin) {
  const std::size_t bytes = max_bytes(from.size());
  GRADRAIL_TRY(expect_room(to, bytes, name_));
  const RandomKey key = random_key(origin.seed, origin.step, origin.tensor, origin.rank, origin.first);
  const bool non_finite = kernels_.encode(format_, from.data(), from.size(), to.data() + k_message_header_bytes, key);
  return close(from.size(), to, non_finite);
}

Encoded BlockCodec::close(std::size_t count, std::span<std::byte> to, bool non_finite) const {
  const bool marked = non_finite && format_.scaling == Scaling::none;
  write_message_header(to, id_, marked ? parameter_ | k_met_nan : parameter_, count);
  return {max_bytes(count), non_finite};
}

// Stretch by stretch, each while it is in cache: memory sees gradient, residual and message once.
Result<Encoded> BlockCodec::encode_feedback(std::span<const float> from, std::span<float> residual,
                                            std::span<std::byte> to, const Origin& origin) {
  constexpr std::size_t k_stretch = 2 * k_largest_block;  // values; blocks divide it
  GRADRAIL_TRY(expect_room(to, max_bytes(from.size()), name_));
  std::byte* const body = to.data() + k_message_header_bytes;
  bool non_finite = false;
  for (std::size_t at = 0; at < from.size(); at += k_stretch) {
    const std::size_t count = std::min(k_stretch, from.size() - at);
    const auto sums = residual.subspan(at, count);
    add_values(sums, from.subspan(at, count));
    const RandomKey key = random_key(origin.seed, origin.step, origin.tensor, origin.rank, origin.first + at);
    std::byte* const codes = body + format_.bytes(at);
    non_finite |= kernels_.encode(format_, sums.data(), count, codes, key);
    GRADRAIL_CHECK(kernels_.subtract(format_, codes, sums.data(), count, 1.0f));
  }
  // A mark is of all values, also of those before the one that made it.
  if (non_finite && format_.scaling == Scaling::none) std::fill(residual.begin(), residual.end(), 0.0f);
  if (non_finite) drop_non_finite(residual);
  return close(from.size(), to, non_finite);
}

Result<void> BlockCodec::apply(std::span<const std::byte> message, std::span<float> to, Apply how) const {
  GRADRAIL_ASSIGN(const OpenMessage open, open_message(message, id_, to.size(), name_));
  const bool marked = open.parameter == (parameter_ | k_met_nan) && format_.scaling == Scaling::none;
  if (open.parameter != parameter_ && !marked) {
    return fail(Code::malformed, fmt::format("{}: the message was encoded with parameter {} where {} is expected",
                                             name_, open.parameter, parameter_));
  }
  GRADRAIL_TRY(expect_body(open.body, format_.bytes(to.size()), name_));
  const ApplyBlocksFn function = how == Apply::store ? kernels_.store
                                 : how == Apply::add ? kernels_.add
                                                     : kernels_.subtract;
  const float scale = marked ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
  if (!function(format_, open.body.data(), to.data(), to.size(), scale)) {
    return fail(Code::malformed, fmt::format("{}: the scale of a block is negative or infinite", name_));
  }
  return {};
}

}  // namespace gradrail

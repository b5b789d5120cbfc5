// The blocks of values that are not all zero, as gradients of embeddings have few of.
//
// Source: Fei et al., "Efficient sparse collective communication and its application to accelerate distributed deep
// learning" (OmniReduce, SIGCOMM 2021), section 3: only non-zero blocks travel, and whoever owns a part of the vector
// sums them. Wire: pairs as in sparse.h, of blocks; at most 24 bytes and 4 more a block than the values. The size
// depends on the data. May not be summed as it is, but cut and merged. Error: none, but that the sign of a zero in a
// block of zeros is lost. NaN, infinity: carried; reported.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/codec.h"
#include "collectives/compress/message.h"
#include "collectives/compress/sparse.h"

namespace gradrail {
namespace {

constexpr std::size_t k_most_width = 65536;

class Nonzero final : public Codec {
 public:
  explicit Nonzero(std::size_t width) : width_(width), name_(fmt::format("nonzero:{}", width)) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] CodecTraits traits() const override { return {.sparse = true, .pair_width = width_, .block = width_}; }
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override {
    return sparse_max_bytes(sparse_places(count, width_), width_);
  }

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to, const Origin&) override {
    GRADRAIL_TRY(expect_room(to, max_bytes(from.size()), name_));
    if (from.size() > 0xFFFFFFFFu) {
      return fail(Code::unsupported, fmt::format("{}: a tensor of {} values is too long; cut it", name_, from.size()));
    }
    const std::size_t places = sparse_places(from.size(), width_);
    if (indices_.size() < places) {
      indices_.resize(places);
      values_.resize(places * width_);
    }
    bool non_finite = false;
    std::size_t found = 0;
    for (std::size_t place = 0; place < places; ++place) {
      const auto block = from.subspan(place * width_, std::min(width_, from.size() - place * width_));
      std::uint32_t largest = 0;
      for (const float value : block) largest = std::max(largest, arithmetic::size_bits(value));
      if (largest == 0) continue;
      non_finite |= largest >= arithmetic::k_infinity;
      indices_[found] = static_cast<std::uint32_t>(place);
      float* const at = values_.data() + found++ * width_;
      std::memcpy(at, block.data(), block.size_bytes());
      std::fill(at + block.size(), at + width_, 0.0f);
    }
    const SparseView pairs{std::span(indices_).first(found), std::span(values_).first(found * width_), width_};
    return Encoded{write_sparse(pairs, from.size(), to), non_finite};
  }

 private:
  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override {
    GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(message, to.size(), name_, width_));
    if (how == Apply::store) std::fill(to.begin(), to.end(), 0.0f);
    return apply_sparse(open, to,
                        how == Apply::store ? SparseApply::store
                        : how == Apply::add ? SparseApply::add
                                            : SparseApply::subtract,
                        name_);
  }

  std::size_t width_;
  std::string name_;
  std::vector<std::uint32_t> indices_;
  std::vector<float> values_;
};

Result<std::unique_ptr<Codec>> make_nonzero(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("nonzero", parameters, 0, 1));
  double width = 256;
  if (parameters.size() == 1) {
    GRADRAIL_ASSIGN(width, parse_number("nonzero", parameters[0], 2, double{k_most_width}));
  }
  if (width != std::floor(width)) {
    return fail(Code::bad_usage, fmt::format("'nonzero:{}' is no whole number of values", parameters[0]));
  }
  return std::make_unique<Nonzero>(static_cast<std::size_t>(width));
}

}  // namespace

extern const CodecKind k_nonzero_codec;
const CodecKind k_nonzero_codec{"nonzero", "[:BLOCK]", "blocks of values that are not all zero, unchanged",
                                "nonzero:256", make_nonzero};

}  // namespace gradrail

// Top-k: the values of largest size, exactly or by a threshold from a sample.
//
// Source: Aji and Heafield, "Sparse communication for distributed gradient descent" (EMNLP 2017), section 3; the
// sampled threshold is DGC's, Lin et al., "Deep gradient compression" (ICLR 2018), section 3.1. Wants error feedback
// (`topk:0.01+ef`) or momentum correction.
// Wire: 16 bytes of header, then pairs as in sparse.h; at most 24 + 8 bytes a pair. The size depends on the data. May
// not be summed as it is: merge_sparse() sums pairs. Error: what is sent is exact; what is not is no larger than what
// is (exact selection). The number of values sent is the ratio of the count, rounded, and at least 1; with `:sampled`
// between nine and eleven tenths of it. Encoding what was decoded changes nothing. NaN, infinity: larger than all
// numbers, and so carried as they are, as many as there is room for; reported.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "collectives/compress/codec.h"
#include "collectives/compress/feedback.h"
#include "collectives/compress/message.h"
#include "collectives/compress/select.h"
#include "collectives/compress/sparse.h"

namespace gradrail {
namespace {

class TopK final : public Codec {
 public:
  TopK(double ratio, bool sampled)
      : ratio_(ratio), sampled_(sampled), name_(fmt::format("topk:{}{}", shortest(ratio), sampled ? ":sampled" : "")) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] CodecTraits traits() const override { return {.sparse = true, .pair_width = 1}; }
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override {
    const std::size_t wanted = wanted_of(count);
    return sparse_max_bytes(sampled_ ? std::min(count, wanted + wanted / 10 + 1) : wanted);
  }
  [[nodiscard]] double ratio() const override { return ratio_; }
  bool set_ratio(double ratio) override {
    ratio_ = ratio;
    return true;
  }

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to, const Origin&) override {
    GRADRAIL_TRY(check(from.size(), to));
    const std::size_t wanted = wanted_of(from.size());
    sampled_ ? selection_.sampled(from, wanted) : selection_.exact(from, wanted);
    return written(from.size(), to);
  }
  // What is sent is exact, so that nothing is left where it was: sums and choice in one pass, then zeros.
  [[nodiscard]] Result<Encoded> encode_feedback(std::span<const float> from, std::span<float> residual,
                                                std::span<std::byte> to, const Origin&) override {
    GRADRAIL_TRY(check(from.size(), to));
    const std::size_t wanted = wanted_of(from.size());
    sampled_ ? selection_.sampled_sums(residual, from, wanted) : selection_.exact_sums(residual, from, wanted);
    selection_.zero(residual);
    const Encoded encoded = written(from.size(), to);
    if (encoded.non_finite) drop_non_finite(residual);
    return encoded;
  }

 private:
  [[nodiscard]] std::size_t wanted_of(std::size_t count) const {
    const auto wanted = static_cast<std::size_t>(std::llround(ratio_ * static_cast<double>(count)));
    return std::min(count, std::max<std::size_t>(wanted, 1));
  }
  [[nodiscard]] Result<void> check(std::size_t count, std::span<const std::byte> to) const {
    GRADRAIL_TRY(expect_room(to, max_bytes(count), name_));
    if (count <= 0xFFFFFFFFu) return {};
    return fail(Code::unsupported,
                fmt::format("{}: a tensor of {} values is too long for 32-bit indices; cut it", name_, count));
  }
  [[nodiscard]] Encoded written(std::size_t count, std::span<std::byte> to) const {
    return {write_sparse(selection_.pairs(), count, to), selection_.non_finite()};
  }

  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override {
    GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(message, to.size(), name_));
    if (how == Apply::store) std::fill(to.begin(), to.end(), 0.0f);
    return apply_sparse(open, to,
                        how == Apply::subtract ? SparseApply::subtract
                        : how == Apply::add    ? SparseApply::add
                                               : SparseApply::store,
                        name_);
  }

  double ratio_;
  bool sampled_;
  std::string name_;
  Selection selection_;
};

Result<std::unique_ptr<Codec>> make_topk(Parameters parameters, TensorShape) {
  GRADRAIL_TRY(expect_parameters("topk", parameters, 1, 2));
  GRADRAIL_ASSIGN(const double ratio, parse_ratio("topk", parameters[0]));
  if (parameters.size() == 2 && parameters[1] != "sampled" && parameters[1] != "exact") {
    return fail(Code::bad_usage,
                fmt::format("'{}' is no way of choosing in topk; there are exact and sampled", parameters[1]));
  }
  return std::make_unique<TopK>(ratio, parameters.size() == 2 && parameters[1] == "sampled");
}

}  // namespace

extern const CodecKind k_topk_codec;
const CodecKind k_topk_codec{"topk", ":RATIO[:exact|sampled]", "the largest values and their indices", "topk:0.01",
                             make_topk};

}  // namespace gradrail

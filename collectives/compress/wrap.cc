#include "collectives/compress/wrap.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/feedback.h"
#include "collectives/compress/sparse.h"
#include "transports/base/check.h"

namespace gradrail {
namespace {

// Passes everything on to the codec inside, but for encode().
class Wrapper : public Codec {
 public:
  Wrapper(std::unique_ptr<Codec> inner, std::string suffix)
      : inner_(std::move(inner)), name_(inner_->name() + "+" + std::move(suffix)) {}

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] CodecTraits traits() const override { return inner_->traits(); }
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override { return inner_->max_bytes(count); }
  void finish(std::span<float> sum) const override { inner_->finish(sum); }
  bool set_ratio(double ratio) override { return inner_->set_ratio(ratio); }
  [[nodiscard]] double ratio() const override { return inner_->ratio(); }
  void give_back(std::span<const std::uint32_t> indices, std::span<const float> values) override {
    inner_->give_back(indices, values);
  }

 protected:
  [[nodiscard]] Codec& inner() const { return *inner_; }
  // Makes state of `count` zeros at the first call; later ones must be of that count.
  [[nodiscard]] Result<void> hold(std::vector<float>& state, std::size_t count) const {
    if (state.empty()) state.assign(count, 0.0f);
    if (state.size() == count) return {};
    return fail(Code::unsupported, fmt::format("{}: keeps the state of {} values and was given {}; a codec belongs to "
                                               "one tensor",
                                               name_, state.size(), count));
  }

 private:
  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override {
    switch (how) {
      case Apply::add: return inner_->decode_add(message, to);
      case Apply::subtract: return inner_->decode_subtract(message, to);
      case Apply::store: break;
    }
    return inner_->decode(message, to);
  }

  std::unique_ptr<Codec> inner_;
  std::string name_;
};

// Adds pairs to what was not sent yet; of numbers only.
void add_pairs(std::span<float> state, std::span<const std::uint32_t> indices, std::span<const float> values) {
  const std::size_t width = indices.empty() ? 1 : values.size() / indices.size();
  for (std::size_t i = 0; i < indices.size(); ++i) {
    const std::size_t first = indices[i] * width, end = std::min(first + width, state.size());
    for (std::size_t at = first; at < end; ++at) {
      const float value = values[i * width + at - first];
      if (arithmetic::size_bits(value) < arithmetic::k_infinity) state[at] += value;
    }
  }
}

class ErrorFeedback final : public Wrapper, private Rounds {
 public:
  explicit ErrorFeedback(std::unique_ptr<Codec> inner) : Wrapper(std::move(inner), "ef") {}

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override {
    GRADRAIL_TRY(hold(residual_, from.size()));
    return inner().encode_feedback(from, residual_, to, origin);
  }
  void give_back(std::span<const std::uint32_t> indices, std::span<const float> values) override {
    add_pairs(residual_, indices, values);
  }
  [[nodiscard]] Rounds* rounds() override { return inner().rounds() == nullptr ? nullptr : this; }

 private:
  [[nodiscard]] bool suits(std::size_t count) const override { return inner().rounds()->suits(count); }
  [[nodiscard]] Result<std::span<float>> first(std::span<const float> from, const Origin& origin) override {
    GRADRAIL_TRY(hold(residual_, from.size()));
    add_values(residual_, from);
    return inner().rounds()->first(residual_, origin);
  }
  [[nodiscard]] std::span<float> second() override { return inner().rounds()->second(); }
  // Each rank has given an equal part of the result.
  void apply_rounds(std::span<float> to, int ranks) override {
    inner().rounds()->apply_rounds(to, ranks);
    const float part = 1.0f / static_cast<float>(ranks);
    for (std::size_t i = 0; i < to.size(); ++i) residual_[i] -= part * to[i];
    drop_non_finite(residual_);
  }

  std::vector<float> residual_;
};

class MomentumCorrection final : public Wrapper {
 public:
  MomentumCorrection(std::unique_ptr<Codec> inner, double momentum)
      : Wrapper(std::move(inner), "momentum:" + shortest(momentum)), momentum_(static_cast<float>(momentum)) {}

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override {
    GRADRAIL_TRY(hold(velocity_, from.size()));
    GRADRAIL_TRY(hold(accumulated_, from.size()));
    for (std::size_t i = 0; i < from.size(); ++i) velocity_[i] = momentum_ * velocity_[i] + from[i];
    GRADRAIL_ASSIGN(const Encoded encoded, inner().encode_feedback(velocity_, accumulated_, to, origin));
    GRADRAIL_TRY(mask(to.first(encoded.bytes)));
    if (encoded.non_finite) drop_non_finite(velocity_);
    return encoded;
  }
  void give_back(std::span<const std::uint32_t> indices, std::span<const float> values) override {
    add_pairs(accumulated_, indices, values);
  }

 private:
  // Momentum factor masking: where a sparse codec sent a value, the velocity begins again.
  [[nodiscard]] Result<void> mask(std::span<const std::byte> message) {
    const CodecTraits traits = inner().traits();
    if (!traits.sparse) return {};
    const std::size_t count = velocity_.size(), width = traits.pair_width;
    if (width == 0) {
      sent_.resize(count);
      GRADRAIL_TRY(inner().decode(message, sent_));
      for (std::size_t i = 0; i < count; ++i) velocity_[i] = sent_[i] != 0 ? 0.0f : velocity_[i];
      return {};
    }
    GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(message, count, name(), width));
    SparseReader reader(open);
    GRADRAIL_CHECK(reader.take_below(open.places, [&](std::uint32_t index, const std::byte* values) {
      const std::size_t first = index * width, end = std::min(first + width, count);
      for (std::size_t at = first; at < end; ++at, values += sizeof(float)) {
        float value = 0;
        std::memcpy(&value, values, sizeof value);
        if (value != 0) velocity_[at] = 0.0f;
      }
    }));
    return {};
  }

  float momentum_;
  std::vector<float> velocity_, accumulated_, sent_;
};

class Clip final : public Wrapper {
 public:
  Clip(std::unique_ptr<Codec> inner, double norm) : Wrapper(std::move(inner), "clip:" + shortest(norm)), norm_(norm) {}

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override {
    // In double, whose range holds the square of any float.
    std::array<double, 16> sums{};
    std::size_t i = 0;
    for (; i + sums.size() <= from.size(); i += sums.size()) {
      for (std::size_t j = 0; j < sums.size(); ++j) sums[j] += double{from[i + j]} * double{from[i + j]};
    }
    for (std::size_t j = 0; i < from.size(); ++i, ++j) sums[j] += double{from[i]} * double{from[i]};
    double all = 0;
    for (const double sum : sums) all += sum;
    const double size = std::sqrt(all);
    if (!(size > norm_) || std::isinf(size)) return inner().encode(from, to, origin);  // NaN goes on as it is
    const auto factor = static_cast<float>(norm_ / size);
    clipped_.resize(from.size());
    for (std::size_t j = 0; j < from.size(); ++j) clipped_[j] = from[j] * factor;
    return inner().encode(clipped_, to, origin);
  }

 private:
  double norm_;
  std::vector<float> clipped_;
};

class WarmUp final : public Wrapper {
 public:
  WarmUp(std::unique_ptr<Codec> inner, std::uint64_t steps, double first)
      : Wrapper(std::move(inner), fmt::format("warmup:{}:{}", steps, shortest(first))),
        steps_(steps),
        first_(first),
        last_(this->inner().ratio()) {}

  [[nodiscard]] CodecTraits traits() const override {
    CodecTraits traits = inner().traits();
    traits.fixed_size = false;
    return traits;
  }
  // Room for the first steps, which send most.
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override {
    Codec& codec = inner();
    const double now = codec.ratio();
    (void)codec.set_ratio(std::max(first_, last_));
    const std::size_t bytes = codec.max_bytes(count);
    (void)codec.set_ratio(now);
    return bytes;
  }
  bool set_ratio(double ratio) override {
    last_ = ratio;
    return true;
  }
  [[nodiscard]] double ratio() const override { return last_; }

  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override {
    set_ratio_at(origin.step);
    return inner().encode(from, to, origin);
  }
  [[nodiscard]] Result<Encoded> encode_feedback(std::span<const float> from, std::span<float> residual,
                                                std::span<std::byte> to, const Origin& origin) override {
    set_ratio_at(origin.step);
    return inner().encode_feedback(from, residual, to, origin);
  }

 private:
  void set_ratio_at(std::uint64_t step) {
    const double done = step >= steps_ ? 1.0 : static_cast<double>(step) / static_cast<double>(steps_);
    (void)inner().set_ratio(done == 1.0 ? last_ : first_ * std::pow(last_ / first_, done));
  }

  std::uint64_t steps_;
  double first_;
  double last_;
};

}  // namespace

Result<std::unique_ptr<Codec>> wrap(std::unique_ptr<Codec> codec, std::string_view word, Parameters parameters) {
  if (word == "ef") {
    GRADRAIL_TRY(expect_parameters(word, parameters, 0, 0));
    return std::make_unique<ErrorFeedback>(std::move(codec));
  }
  if (word == "momentum") {
    GRADRAIL_TRY(expect_parameters(word, parameters, 1, 1));
    GRADRAIL_ASSIGN(const double momentum, parse_number(word, parameters[0], 0, 1));
    return std::make_unique<MomentumCorrection>(std::move(codec), momentum);
  }
  if (word == "clip") {
    GRADRAIL_TRY(expect_parameters(word, parameters, 1, 1));
    GRADRAIL_ASSIGN(const double norm, parse_number(word, parameters[0], 1e-30, 1e30));
    return std::make_unique<Clip>(std::move(codec), norm);
  }
  if (word == "warmup") {
    GRADRAIL_TRY(expect_parameters(word, parameters, 1, 2));
    GRADRAIL_ASSIGN(const double steps, parse_number(word, parameters[0], 1, 1e9));
    if (steps != std::floor(steps)) {
      return fail(Code::bad_usage, fmt::format("'warmup:{}' is no whole number of steps", parameters[0]));
    }
    double first = 0.25;
    if (parameters.size() == 2) {
      GRADRAIL_ASSIGN(first, parse_ratio(word, parameters[1]));
    }
    if (codec->ratio() == 0) {
      return fail(Code::bad_usage, fmt::format("'{}' sends no share of its values that could be warmed up; 'warmup' "
                                               "goes with topk and randomk",
                                               codec->name()));
    }
    return std::make_unique<WarmUp>(std::move(codec), static_cast<std::uint64_t>(steps), first);
  }
  return fail(Code::bad_usage, fmt::format("there is no wrapper '{}'; known are ef, momentum:M, clip:NORM, "
                                           "warmup:STEPS[:FIRST]",
                                           word));
}

}  // namespace gradrail

#include "bench/measure/gradient.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "collectives/compress/codec.h"

namespace gradrail {

namespace {

constexpr double k_deviation = 0.01;  // about that of a gradient's values
constexpr double k_slack = 1.5;       // of one encoding against another
constexpr double k_rounding = 1e-5;   // of sums in float32

std::uint64_t mixed(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  return x ^ x >> 31;
}

// Box and Muller's way from two uniform numbers.
float normal_at(std::uint64_t seed, std::uint64_t rank, std::uint64_t index) {
  const std::uint64_t random = mixed(mixed(seed * 1'000'003 + rank) + index);
  const double u = (static_cast<double>(random >> 32) + 1) / 4294967297.0;
  const double v = static_cast<double>(random & 0xFFFFFFFFu) / 4294967296.0;
  return static_cast<float>(k_deviation * std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
}

double norm(const auto& values) {
  double sum = 0;
  for (const auto value : values) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum);
}

}  // namespace

bool Gradient::fits(const Call& call) {
  const bool carried = call.collective == Collective::allreduce || call.collective == Collective::reduce_scatter ||
                       call.collective == Collective::all_gather;
  return carried && call.type == Type::f32 &&
         (!reduces(call.collective) || call.op == ReduceOp::sum || call.op == ReduceOp::avg);
}

Gradient::Gradient(const Call& call, int ranks, std::uint64_t seed)
    : collective_(call.collective),
      count_(call.count),
      period_(static_cast<std::size_t>(std::clamp<std::uint64_t>(
          call.count * (is_blocked(call.collective) ? static_cast<std::uint64_t>(ranks) : 1), 1, k_period))),
      ranks_(ranks),
      averaged_(reduces(call.collective) && call.op == ReduceOp::avg) {
  patterns_.resize(static_cast<std::size_t>(ranks));
  sum_.assign(period_, 0.0);
  for (std::size_t rank = 0; rank < patterns_.size(); ++rank) {
    auto& pattern = patterns_[rank];
    pattern.resize(period_);
    for (std::size_t i = 0; i < period_; ++i) {
      pattern[i] = normal_at(seed, rank, i);
      sum_[i] += double{pattern[i]};
    }
  }
}

void Gradient::fill(int rank, std::span<std::byte> input) const {
  const auto& pattern = patterns_[static_cast<std::size_t>(rank)];
  // The only input that is a block of the data: this rank's.
  std::size_t phase = collective_ == Collective::all_gather
                          ? static_cast<std::size_t>(static_cast<std::uint64_t>(rank) * count_ % period_)
                          : 0;
  for (std::size_t at = 0; at < input.size(); phase = 0) {
    const std::size_t run = std::min((period_ - phase) * sizeof(float), input.size() - at);
    std::memcpy(input.data() + at, pattern.data() + phase, run);
    at += run;
  }
}

double Gradient::exact(std::uint64_t element) const {
  const auto i = static_cast<std::size_t>(element % period_);
  if (collective_ == Collective::all_gather) return double{patterns_[static_cast<std::size_t>(element / count_)][i]};
  return averaged_ ? sum_[i] / ranks_ : sum_[i];
}

Gradient::Seen Gradient::look(int rank, std::span<const std::byte> output) const {
  Seen seen;
  const std::uint64_t first = collective_ == Collective::reduce_scatter ? static_cast<std::uint64_t>(rank) * count_ : 0;
  const std::size_t count = output.size() / sizeof(float);
  std::uint64_t hash = count;
  for (std::size_t i = 0; i < count; ++i) {
    std::uint32_t bits = 0;
    std::memcpy(&bits, output.data() + i * sizeof bits, sizeof bits);
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    hash = (hash ^ bits) * 0x100000001B3u;
    const double due = exact(first + i);
    const double off = std::abs(double{value} - due);
    seen.non_finite |= !std::isfinite(value);
    seen.off_squared += off * off;
    seen.exact_squared += due * due;
    seen.most_off = std::max(seen.most_off, off);
    seen.most_exact = std::max(seen.most_exact, std::abs(due));
  }
  if (collective_ != Collective::reduce_scatter) seen.bits = hash;
  return seen;
}

Result<double> Gradient::error_of_one(std::string_view name, int rank) const {
  GRADRAIL_ASSIGN(const auto codec, make_codec(name));
  const auto& values = patterns_[static_cast<std::size_t>(rank)];
  std::vector<std::byte> message(codec->max_bytes(period_));
  Origin origin;
  origin.rank = static_cast<std::uint32_t>(rank);
  GRADRAIL_ASSIGN(const Encoded encoded, codec->encode(values, message, origin));
  std::vector<float> back(period_);
  GRADRAIL_TRY(codec->decode(std::span(message).first(encoded.bytes), back));
  std::vector<double> off(period_);
  for (std::size_t i = 0; i < period_; ++i) off[i] = double{back[i]} - double{values[i]};
  const double size = norm(values);
  return size > 0 ? norm(off) / size : 0;
}

double Gradient::allowed(double of_one, int encodings) const {
  if (collective_ == Collective::all_gather) return std::pow(1 + k_slack * of_one, encodings) - 1 + k_rounding;
  double sizes = 0;
  for (const auto& pattern : patterns_) sizes += norm(pattern);
  const double exact_size = norm(sum_);
  const double share = exact_size > 0 ? sizes / exact_size : 1;
  return share * (std::pow(1 + k_slack * of_one, encodings) - 1 + k_rounding);
}

}  // namespace gradrail

#include "bench/measure/payload.h"

#include <algorithm>
#include <cstring>

#include "collectives/exec/kernels/reduce.h"

namespace gradrail {

namespace {

// A counter-based random number: the same for the same arguments, whatever was drawn before.
std::uint64_t random_at(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter) {
  std::uint64_t z = seed + stream * 0xD1B54A32D192ED03ull + counter * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

bool is_signed(Type type) { return type != Type::u8 && type != Type::u32 && type != Type::u64; }

// Sums of `ranks` values up to this stay exact: bf16 has 8 significant bits, f16 has 11. Integers wrap, which is exact.
std::int64_t largest(Type type, int ranks) {
  switch (type) {
    case Type::bf16: return std::max(1, 256 / ranks);
    case Type::f16: return std::max(1, 2048 / ranks);
    case Type::i8:
    case Type::u8: return 100;
    default: return 1000;
  }
}

void store(Type type, std::int64_t value, std::byte* at) {
  const auto put = [&](auto v) { std::memcpy(at, &v, sizeof v); };
  switch (type) {
    case Type::i8:
    case Type::u8: put(static_cast<std::uint8_t>(value)); break;
    case Type::i32:
    case Type::u32: put(static_cast<std::uint32_t>(value)); break;
    case Type::i64:
    case Type::u64: put(static_cast<std::uint64_t>(value)); break;
    case Type::f64: put(static_cast<double>(value)); break;
    case Type::f32: put(static_cast<float>(value)); break;
    case Type::bf16: {
      // Small integers have no bits below bf16's, so cutting is exact.
      const auto single = static_cast<float>(value);
      std::uint32_t bits;
      std::memcpy(&bits, &single, sizeof bits);
      put(static_cast<std::uint16_t>(bits >> 16));
      break;
    }
    case Type::f16: {
      // Integers up to 2048 are exact in f16: sign, exponent biased by 15, ten fraction bits.
      const std::uint64_t magnitude = static_cast<std::uint64_t>(value < 0 ? -value : value);
      std::uint16_t bits = value < 0 ? 0x8000 : 0;
      if (magnitude != 0) {
        const int exponent = 63 - __builtin_clzll(magnitude);
        const std::uint64_t fraction = (magnitude << 10 >> exponent) & 0x3FF;
        bits = static_cast<std::uint16_t>(bits | (exponent + 15) << 10 | static_cast<int>(fraction));
      }
      put(bits);
      break;
    }
  }
}

}  // namespace

Payload::Payload(Collective collective, std::uint64_t count, Type type, ReduceOp op, int ranks, int root,
                 std::uint64_t seed)
    : collective_(collective),
      count_(count),
      // Data shorter than the period needs no more of the pattern.
      period_(static_cast<std::size_t>(std::clamp<std::uint64_t>(
          count * (is_blocked(collective) ? static_cast<std::uint64_t>(ranks) : 1), 1, k_period))),
      type_(type),
      op_(op),
      ranks_(ranks),
      root_(root),
      seed_(seed),
      element_bytes_(size_of(type)) {
  if (reduces(collective)) reduced_ = make_reduced();
}

Payload::Pattern Payload::make_pattern(int rank) const {
  Pattern pattern(period_ * element_bytes_);
  const std::int64_t bound = largest(type_, ranks_);
  for (std::size_t i = 0; i < period_; ++i) {
    const std::uint64_t random = random_at(seed_, static_cast<std::uint64_t>(rank) + 1, i);
    std::int64_t value;
    if (op_ == ReduceOp::prod && reduces(collective_)) {
      // One rank, another for each element, contributes 2 or 3; the others 1 or -1: no product leaves any type's range.
      const auto chosen = static_cast<int>(random_at(seed_, 0, i) % static_cast<std::uint64_t>(ranks_));
      value = chosen == rank ? 2 + static_cast<std::int64_t>(random & 1) : 1;
      if (is_signed(type_) && (random & 2) != 0) value = -value;
    } else {
      value = static_cast<std::int64_t>(random % static_cast<std::uint64_t>(bound + 1));
      if (is_signed(type_) && (random >> 63) != 0) value = -value;
    }
    store(type_, value, pattern.data() + i * element_bytes_);
  }
  return pattern;
}

Payload::Pattern Payload::make_reduced() const {
  // Exact values make the order of the ranks irrelevant, so the pairwise kernel (tested against scalar code on its own)
  // gives the one right answer.
  Pattern sum = make_pattern(0);
  const ReduceFn reduce = reduce_function(type_, op_);
  for (int rank = 1; rank < ranks_; ++rank) reduce(sum.data(), sum.data(), make_pattern(rank).data(), period_);
  if (op_ == ReduceOp::avg && ranks_ > 1) divide_function(type_)(sum.data(), period_, ranks_);
  return sum;
}

void Payload::fill(int rank, std::span<std::byte> input) const {
  const Pattern pattern = make_pattern(rank);
  for (std::size_t at = 0; at < input.size(); at += pattern.size())
    std::memcpy(input.data() + at, pattern.data(), std::min(pattern.size(), input.size() - at));
}

std::uint64_t Payload::differences(const Pattern& pattern, std::uint64_t first,
                                   std::span<const std::byte> bytes) const {
  std::uint64_t wrong = 0;
  std::size_t phase = static_cast<std::size_t>(first % period_) * element_bytes_;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t run = std::min(pattern.size() - phase, bytes.size() - at);
    if (std::memcmp(bytes.data() + at, pattern.data() + phase, run) != 0)
      for (std::size_t i = 0; i < run; i += element_bytes_)
        wrong += std::memcmp(bytes.data() + at + i, pattern.data() + phase + i, element_bytes_) != 0;
    at += run;
    phase = 0;
  }
  return wrong;
}

std::uint64_t Payload::count_wrong(int rank, std::span<const std::byte> output) const {
  const auto block = [&](int index) {
    const std::size_t size = count_ * element_bytes_;
    return output.subspan(static_cast<std::size_t>(index) * size, size);
  };
  const auto of = [&](int owner) { return make_pattern(owner); };
  const std::uint64_t my_block = static_cast<std::uint64_t>(rank) * count_;
  std::uint64_t wrong = 0;
  switch (collective_) {
    case Collective::allreduce: return differences(reduced_, 0, output);
    case Collective::reduce: return rank == root_ ? differences(reduced_, 0, output) : 0;
    case Collective::reduce_scatter: return differences(reduced_, my_block, output);
    case Collective::broadcast: return differences(of(root_), 0, output);
    case Collective::send_recv: return differences(of((rank + ranks_ - 1) % ranks_), 0, output);
    case Collective::scatter: return differences(of(root_), my_block, output);
    case Collective::gather:
      if (rank != root_) return 0;
      [[fallthrough]];
    case Collective::all_gather:
      for (int owner = 0; owner < ranks_; ++owner) wrong += differences(of(owner), 0, block(owner));
      return wrong;
    case Collective::all_to_all:
      for (int owner = 0; owner < ranks_; ++owner) wrong += differences(of(owner), my_block, block(owner));
      return wrong;
  }
  return wrong;
}

}  // namespace gradrail

#include "collectives/compress/powersgd.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/message.h"
#include "collectives/compress/random.h"
#include "transports/base/bytes.h"

namespace gradrail {
namespace {

constexpr std::size_t k_front = 8;
constexpr std::uint32_t k_most = 256;

bool all_finite(std::span<const float> values) {
  bool finite = true;
  for (const float value : values) finite &= arithmetic::size_bits(value) < arithmetic::k_infinity;
  return finite;
}

// Factors may lie at any address in a message; the kernels want floats.
std::vector<float> floats_of(std::span<const std::byte> bytes) {
  std::vector<float> out(bytes.size() / sizeof(float));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

}  // namespace

PowerSgd::PowerSgd(std::uint32_t rank, TensorShape shape)
    : rank_(rank), given_(shape), name_(fmt::format("powersgd:{}", rank)), kernels_(low_rank_kernels()) {}

CodecTraits PowerSgd::traits() const {
  return {.fixed_size = true, .whole = true, .header_bytes = k_message_header_bytes};
}

MatrixShape PowerSgd::shape_of(std::size_t count) const {
  if (given_.rows != 0 && given_.columns != 0) return {given_.rows, given_.columns};
  if (count == 0) return {};
  const auto root = static_cast<std::size_t>(std::ceil(std::sqrt(static_cast<double>(count))));
  const std::size_t columns = (root + 15) / 16 * 16;
  return {(count + columns - 1) / columns, columns};
}

bool PowerSgd::worth_it(std::size_t count) const {
  const MatrixShape shape = shape_of(count);
  return rank_ * (shape.rows + shape.columns) < count;
}

std::size_t PowerSgd::max_bytes(std::size_t count) const {
  const MatrixShape shape = shape_of(count);
  const std::size_t values = worth_it(count) ? rank_ * (shape.rows + shape.columns) : count;
  return k_message_header_bytes + k_front + sizeof(float) * values;
}

Result<void> PowerSgd::begin(std::size_t count, const Origin& origin) {
  if (q_.empty()) {
    shape_ = shape_of(count);
    count_ = count;
    if (shape_.rows > 0xFFFFFFFFu || shape_.columns > 0xFFFFFFFFu ||
        (given_.rows != 0 && given_.columns != 0 && given_.rows * given_.columns != count)) {
      return fail(Code::unsupported,
                  fmt::format("{}: {} values are no matrix of {} times {}", name_, count, shape_.rows, shape_.columns));
    }
    p_.assign(rank_ * shape_.rows, 0.0f);
    q_.assign(rank_ * shape_.columns, 0.0f);
  }
  if (count_ != count) {
    return fail(Code::unsupported, fmt::format("{}: keeps the state of {} values and was given {}; a codec belongs to "
                                               "one tensor",
                                               name_, count_, count));
  }
  // A vector to start from where there is none, or where it was lost: the same on all ranks.
  const RandomKey key = random_key(origin.seed, origin.step, origin.tensor, 0, origin.first);
  const bool finite = all_finite(q_);
  for (std::size_t j = 0; j < rank_; ++j) {
    float* const column = q_.data() + j * shape_.columns;
    if (finite && std::any_of(column, column + shape_.columns, [](float value) { return value != 0; })) continue;
    for (std::size_t i = 0; i < shape_.columns; ++i) {
      const std::uint64_t at = j * shape_.columns + i;
      const auto in_group = static_cast<std::uint32_t>(at % arithmetic::k_group);
      column[i] = 2 * arithmetic::uniform(random_word(key, at / arithmetic::k_group, in_group / arithmetic::k_columns,
                                                      in_group % arithmetic::k_columns)) -
                  1;
    }
  }
  return {};
}

Result<std::span<float>> PowerSgd::first(std::span<const float> from, const Origin& origin) {
  if (!worth_it(from.size())) {
    return fail(Code::unsupported,
                fmt::format("{}: factors of {} values are no smaller than the values", name_, from.size()));
  }
  GRADRAIL_TRY(begin(from.size(), origin));
  kernels_.project(from, shape_, q_.data(), rank_, p_.data());
  from_ = from;
  return std::span(p_);
}

std::span<float> PowerSgd::second() {
  orthonormalise(p_, shape_.rows);
  kernels_.back_project(from_, shape_, p_.data(), rank_, q_.data());
  return q_;
}

void PowerSgd::apply_rounds(std::span<float> to, int /*ranks*/) {
  kernels_.store(to, shape_, p_.data(), q_.data(), rank_);
}

Result<Encoded> PowerSgd::encode(std::span<const float> from, std::span<std::byte> to, const Origin& origin) {
  const std::size_t bytes = max_bytes(from.size());
  GRADRAIL_TRY(expect_room(to, bytes, name_));
  std::byte* const body = to.data() + k_message_header_bytes;
  std::uint32_t front[2] = {};
  if (!worth_it(from.size())) {
    write_message_header(to, CodecId::powersgd, 0, from.size());
    std::memcpy(body, front, k_front);
    if (!from.empty()) std::memcpy(body + k_front, from.data(), from.size_bytes());
    return Encoded{bytes, !all_finite(from)};
  }
  GRADRAIL_ASSIGN(const std::span<float> p, first(from, origin));
  const std::span<float> q = second();
  write_message_header(to, CodecId::powersgd, rank_, from.size());
  front[0] = static_cast<std::uint32_t>(shape_.rows);
  front[1] = static_cast<std::uint32_t>(shape_.columns);
  std::memcpy(body, front, k_front);
  std::memcpy(body + k_front, p.data(), p.size_bytes());
  std::memcpy(body + k_front + p.size_bytes(), q.data(), q.size_bytes());
  return Encoded{bytes, !all_finite(p) || !all_finite(q)};
}

Result<void> PowerSgd::apply(std::span<const std::byte> message, std::span<float> to, Apply how) const {
  GRADRAIL_ASSIGN(const OpenMessage open, open_message(message, CodecId::powersgd, to.size(), name_));
  ByteReader reader(open.body);
  const std::size_t rows = reader.get<std::uint32_t>(), columns = reader.get<std::uint32_t>();
  const std::size_t rank = open.parameter;
  // Rows and columns must hold the count, with no row to spare.
  const bool raw = rank == 0 && rows == 0 && columns == 0;
  const bool matrix = rank != 0 && rank <= k_most && columns != 0 && rows == (to.size() + columns - 1) / columns &&
                      rank * (rows + columns) < to.size();
  if (!reader.ok() || (!raw && !matrix)) {
    return fail(Code::malformed, fmt::format("{}: the front of a message is damaged", name_));
  }
  GRADRAIL_TRY(expect_body(open.body, k_front + sizeof(float) * (raw ? to.size() : rank * (rows + columns)), name_));
  if (raw) {
    const std::byte* const values = open.body.data() + k_front;
    for (std::size_t i = 0; i < to.size(); ++i) {
      float value = 0;
      std::memcpy(&value, values + sizeof(float) * i, sizeof value);
      to[i] = how == Apply::store ? value : how == Apply::add ? to[i] + value : to[i] - value;
    }
    return {};
  }
  const std::vector<float> p = floats_of(reader.get_bytes(sizeof(float) * rank * rows));
  const std::vector<float> q = floats_of(reader.get_bytes(sizeof(float) * rank * columns));
  const auto function = how == Apply::store ? kernels_.store : how == Apply::add ? kernels_.add : kernels_.subtract;
  function(to, {rows, columns}, p.data(), q.data(), rank);
  return {};
}

namespace {

Result<std::unique_ptr<Codec>> make_powersgd(Parameters parameters, TensorShape shape) {
  GRADRAIL_TRY(expect_parameters("powersgd", parameters, 1, 1));
  GRADRAIL_ASSIGN(const double rank, parse_number("powersgd", parameters[0], 1, k_most));
  if (rank != std::floor(rank)) {
    return fail(Code::bad_usage, fmt::format("'powersgd:{}' is no whole rank", parameters[0]));
  }
  return std::make_unique<PowerSgd>(static_cast<std::uint32_t>(rank), shape);
}

}  // namespace

extern const CodecKind k_powersgd_codec;
const CodecKind k_powersgd_codec{"powersgd", ":RANK", "two narrow matrices whose product is near", "powersgd:4",
                                 make_powersgd};

}  // namespace gradrail

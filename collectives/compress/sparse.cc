#include "collectives/compress/sparse.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "collectives/compress/message.h"
#include "transports/base/bytes.h"
#include "transports/base/check.h"

namespace gradrail {
namespace {

constexpr std::size_t k_front = 8;  // pairs, encoding

std::size_t varint_bytes(std::span<const std::uint32_t> indices) {
  std::size_t bytes = indices.size();
  std::uint32_t before = 0xFFFFFFFFu;
  for (const std::uint32_t index : indices) {
    const std::uint32_t gap = index - before - 1;
    bytes += std::size_t{gap >= 1u << 7} + std::size_t{gap >= 1u << 14} + std::size_t{gap >= 1u << 21} +
             std::size_t{gap >= 1u << 28};
    before = index;
  }
  return bytes;
}

void write_varints(std::span<const std::uint32_t> indices, std::byte* to) {
  std::uint32_t before = 0xFFFFFFFFu;
  for (const std::uint32_t index : indices) {
    std::uint32_t gap = index - before - 1;
    for (; gap >= 128; gap >>= 7) *to++ = static_cast<std::byte>(gap | 128);
    *to++ = static_cast<std::byte>(gap);
    before = index;
  }
}

tl::unexpected<Error> damaged(std::string_view name, std::string_view how) {
  return fail(Code::malformed, fmt::format("{}: the indices of a message {}", name, how));
}

Result<void> read_varints(const SparseMessage& message, std::span<std::uint32_t> to, std::string_view name) {
  const auto bytes = message.indices;
  std::size_t at = 0;
  std::uint64_t next = 0;  // the least index that may come now
  for (std::uint32_t& index : to) {
    std::uint64_t gap = 0;
    for (int shift = 0;; shift += 7) {
      if (at == bytes.size() || shift > 28) return damaged(name, "end within a number, or hold one that is too long");
      const auto byte = static_cast<std::uint8_t>(bytes[at++]);
      gap |= std::uint64_t{byte & 127u} << shift;
      if (byte < 128) break;
    }
    next += gap;
    if (next >= message.places) return damaged(name, "lie beyond its values");
    index = static_cast<std::uint32_t>(next++);
  }
  if (at != bytes.size()) return damaged(name, "are followed by more bytes");
  return {};
}

Result<void> read_bitmap(const SparseMessage& message, std::span<std::uint32_t> to, std::string_view name) {
  std::size_t found = 0;
  for (std::size_t at = 0; at < message.indices.size(); at += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, message.indices.data() + at, std::min<std::size_t>(8, message.indices.size() - at));
    if (static_cast<std::size_t>(std::popcount(word)) > to.size() - found) return damaged(name, "are too many");
    for (; word != 0; word &= word - 1) {
      to[found++] = static_cast<std::uint32_t>(at * 8) + static_cast<std::uint32_t>(std::countr_zero(word));
    }
  }
  if (found != to.size()) return damaged(name, "are too few");
  if (found != 0 && to[found - 1] >= message.places) return damaged(name, "lie beyond its values");
  return {};
}

}  // namespace

std::size_t sparse_max_bytes(std::size_t pairs, std::size_t width) {
  return k_message_header_bytes + k_front + 4 * (width + 1) * pairs;
}
std::size_t sparse_max_pairs(std::size_t bytes, std::size_t width) {
  return bytes < sparse_max_bytes(0) ? 0 : (bytes - sparse_max_bytes(0)) / (4 * (width + 1));
}

std::size_t write_sparse(SparseView pairs, std::uint64_t count, std::span<std::byte> to) {
  GRADRAIL_CHECK(pairs.indices.size() * pairs.width == pairs.values.size() && count <= 0xFFFFFFFFu);
  write_message_header(to, CodecId::sparse, pairs.width == 1 ? 0 : static_cast<std::uint32_t>(pairs.width), count);
  std::byte* at = to.data() + k_message_header_bytes;
  const std::size_t raw = 4 * pairs.size(), varint = varint_bytes(pairs.indices),
                    bitmap = (sparse_places(count, pairs.width) + 7) / 8;
  const IndexEncoding encoding = varint <= raw && varint <= bitmap ? IndexEncoding::varint
                                 : raw <= bitmap                   ? IndexEncoding::raw
                                                                   : IndexEncoding::bitmap;
  const std::array<std::uint32_t, 2> front = {static_cast<std::uint32_t>(pairs.size()),
                                              static_cast<std::uint32_t>(encoding)};
  std::memcpy(at, front.data(), k_front);
  at += k_front;
  if (pairs.size() != 0) std::memcpy(at, pairs.values.data(), 4 * pairs.values.size());
  at += 4 * pairs.values.size();
  switch (encoding) {
    case IndexEncoding::raw:
      if (raw != 0) std::memcpy(at, pairs.indices.data(), raw);
      at += raw;
      break;
    case IndexEncoding::varint:
      write_varints(pairs.indices, at);
      at += varint;
      break;
    case IndexEncoding::bitmap:
      std::memset(at, 0, bitmap);
      for (const std::uint32_t index : pairs.indices) at[index / 8] |= static_cast<std::byte>(1u << index % 8);
      at += bitmap;
      break;
  }
  return static_cast<std::size_t>(at - to.data());
}

Result<SparseMessage> open_sparse(std::span<const std::byte> message, std::uint64_t count, std::string_view name,
                                  std::size_t width) {
  GRADRAIL_ASSIGN(const OpenMessage open, open_message(message, CodecId::sparse, count, name));
  ByteReader reader(open.body);
  SparseMessage out;
  out.places = sparse_places(count, width);
  out.width = width;
  out.pairs = reader.get<std::uint32_t>();
  const auto encoding = reader.get<std::uint32_t>();
  if (!reader.ok() || open.parameter != (width == 1 ? 0 : width) || encoding > 2 || out.pairs > out.places ||
      count > 0xFFFFFFFFu) {
    return fail(Code::malformed, fmt::format("{}: the front of a sparse message is damaged", name));
  }
  out.encoding = static_cast<IndexEncoding>(encoding);
  out.values = reader.get_bytes(std::size_t{4} * width * out.pairs);
  if (!reader.ok()) {
    return fail(Code::malformed,
                fmt::format("{}: a sparse message of {} pairs ends within its values", name, out.pairs));
  }
  out.indices = reader.get_bytes(reader.left());
  const std::size_t due = out.encoding == IndexEncoding::raw      ? std::size_t{4} * out.pairs
                          : out.encoding == IndexEncoding::bitmap ? static_cast<std::size_t>((out.places + 7) / 8)
                                                                  : out.indices.size();
  if (out.indices.size() != due) return damaged(name, "have another length than their number says");
  return out;
}

Result<void> read_indices(const SparseMessage& message, std::span<std::uint32_t> to, std::string_view name) {
  GRADRAIL_CHECK(to.size() == message.pairs);
  switch (message.encoding) {
    case IndexEncoding::varint: return read_varints(message, to, name);
    case IndexEncoding::bitmap: return read_bitmap(message, to, name);
    case IndexEncoding::raw: break;
  }
  if (to.empty()) return {};
  std::memcpy(to.data(), message.indices.data(), message.indices.size());
  bool ascending = true;
  for (std::size_t i = 1; i < to.size(); ++i) ascending &= to[i - 1] < to[i];
  if (!ascending) return damaged(name, "do not ascend");
  if (to.back() >= message.places) return damaged(name, "lie beyond its values");
  return {};
}

float sparse_value(const SparseMessage& message, std::size_t pair) {
  float value = 0;
  std::memcpy(&value, message.values.data() + 4 * message.width * pair, sizeof value);
  return value;
}

void SparseReader::start() {
  switch (message_.encoding) {
    case IndexEncoding::raw: return advance<IndexEncoding::raw>();
    case IndexEncoding::varint: return advance<IndexEncoding::varint>();
    case IndexEncoding::bitmap: return advance<IndexEncoding::bitmap>();
  }
}

void SparseReader::end() {
  index_ = k_end;
  switch (message_.encoding) {
    case IndexEncoding::raw: break;  // its length was checked
    case IndexEncoding::varint: sound_ &= at_ == message_.indices.size(); break;
    case IndexEncoding::bitmap:
      for (; word_ == 0 && at_ < message_.indices.size();) read_word();
      sound_ &= word_ == 0;
      break;
  }
}

Result<void> apply_sparse(const SparseMessage& message, std::span<float> to, SparseApply how, std::string_view name) {
  SparseReader reader(message);
  const auto read = [&](auto combine) {
    const std::size_t width = message.width;
    return reader.take_below(message.places, [&](std::uint32_t index, const std::byte* values) {
      const std::size_t first = std::size_t{index} * width, end = std::min(first + width, to.size());
      for (std::size_t i = first; i < end; ++i, values += 4) {
        float value = 0;
        std::memcpy(&value, values, sizeof value);
        to[i] = combine(to[i], value);
      }
    });
  };
  const bool sound = how == SparseApply::store ? read([](float, float value) { return value; })
                     : how == SparseApply::add ? read([](float old, float value) { return old + value; })
                                               : read([](float old, float value) { return old - value; });
  if (!sound)
    return damaged(name, "do not ascend, lie beyond its values, or have another length than their number says");
  return {};
}

std::size_t merge_sparse(SparseView a, SparseView b, std::uint32_t* indices, float* values) {
  const std::uint32_t* const ia = a.indices.data();
  const std::uint32_t* const ib = b.indices.data();
  const float* const va = a.values.data();
  const float* const vb = b.values.data();
  const std::size_t count_a = a.size(), count_b = b.size();
  std::size_t i = 0, j = 0, out = 0;
  // Which list comes next cannot be foretold, so nothing here branches on it: both values are read, and the one that is
  // not taken becomes -0, which changes no value that it is added to.
  while (i < count_a && j < count_b) {
    const std::uint32_t x = ia[i], y = ib[j];
    // Signs of differences, because a compiler makes a branch of a comparison.
    const std::uint64_t difference = std::uint64_t{x} - std::uint64_t{y};
    const std::uint64_t take_a = (difference - 1) >> 63, take_b = ~difference >> 63;
    const std::uint32_t mask_a = 0u - static_cast<std::uint32_t>(take_a);
    const std::uint32_t mask_b = 0u - static_cast<std::uint32_t>(take_b);
    const std::uint32_t from_a = std::bit_cast<std::uint32_t>(va[i]), from_b = std::bit_cast<std::uint32_t>(vb[j]);
    indices[out] = (x & mask_a) | (y & ~mask_a);
    values[out] = std::bit_cast<float>((from_a & mask_a) | (~mask_a & 0x80000000u)) +
                  std::bit_cast<float>((from_b & mask_b) | (~mask_b & 0x80000000u));
    i += take_a;
    j += take_b;
    ++out;
  }
  const auto rest = [&](SparseView of, std::size_t at) {
    const std::size_t left = of.size() - at;
    if (left == 0) return;
    std::memcpy(indices + out, of.indices.data() + at, 4 * left);
    std::memcpy(values + out, of.values.data() + at, 4 * left);
    out += left;
  };
  rest(a, i);
  rest(b, j);
  return out;
}

}  // namespace gradrail

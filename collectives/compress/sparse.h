// Sparse vectors: pairs of an index and a value, in ascending order of their indices, no index twice. Their form on the
// wire, and their sum.
//
// Body of a message (after the header of message.h; the codec is CodecId::sparse whoever chose the pairs):
//
//   0  u32          pairs
//   4  u8           encoding of the indices, then three zeros
//   8  f32[pairs]   values
//      indices      0 raw: u32 each
//                   1 varint: the distance to the index before, less one (of the first, the index itself), in bytes of
//                   7
//                     bits each, the lowest first, all but the last with the highest bit set
//                   2 bitmap: one bit for each of the count values, the lowest bit of the first byte first
//
// The smallest of the three is written. A tensor has at most 2^32 - 1 values. Functions keep no state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "transports/base/result.h"

namespace gradrail {

struct SparseView {
  std::span<const std::uint32_t> indices;
  std::span<const float> values;  // as many
  [[nodiscard]] std::size_t size() const { return indices.size(); }
};

enum class IndexEncoding : std::uint8_t { raw = 0, varint = 1, bitmap = 2 };

// The largest message for so many pairs.
[[nodiscard]] std::size_t sparse_max_bytes(std::size_t pairs);
// Writes a whole message; `to` holds sparse_max_bytes(). Returns its length.
[[nodiscard]] std::size_t write_sparse(SparseView pairs, std::uint64_t count, std::span<std::byte> to);

// A message whose lengths were checked; its indices are checked as they are read.
struct SparseMessage {
  std::uint64_t count = 0;
  std::uint32_t pairs = 0;
  IndexEncoding encoding = IndexEncoding::raw;
  std::span<const std::byte> values;
  std::span<const std::byte> indices;
};
// Errors: malformed.
[[nodiscard]] Result<SparseMessage> open_sparse(std::span<const std::byte> message, std::uint64_t count,
                                                std::string_view name);
// All indices, ascending and below count; `to` holds message.pairs. Errors: malformed.
[[nodiscard]] Result<void> read_indices(const SparseMessage& message, std::span<std::uint32_t> to,
                                        std::string_view name);
[[nodiscard]] float sparse_value(const SparseMessage& message, std::size_t pair);

// The sum of two: an index in both has the sum of its values. `indices` and `values` hold a.size() + b.size() pairs and
// are none of the inputs. Returns how many were written.
[[nodiscard]] std::size_t merge_sparse(SparseView a, SparseView b, std::uint32_t* indices, float* values);

}  // namespace gradrail

// Sparse vectors: pairs of an index and a value, in ascending order of their indices, no index twice. Their form on the
// wire, and their sum. Instead of single values, a pair may hold a block of `width` values: its index then counts
// blocks, and what the last block has beyond the vector's end is zero, and ignored.
//
// Body of a message (after the header of message.h; the codec is CodecId::sparse whoever chose the pairs; the parameter
// is the width, and 0 for single values):
//
//   0  u32          pairs
//   4  u8           encoding of the indices, then three zeros
//   8  f32[pairs * width]   values
//      indices      0 raw: u32 each
//                   1 varint: the distance to the index before, less one (of the first, the index itself), in bytes of
//                     7 bits each, the lowest first, all but the last with the highest bit set
//                   2 bitmap: one bit for each place an index may name, the lowest bit of the first byte first
//
// The smallest of the three is written. A tensor has at most 2^32 - 1 values. Functions keep no state.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "transports/base/result.h"

namespace gradrail {

struct SparseView {
  std::span<const std::uint32_t> indices;
  std::span<const float> values;  // `width` for each index
  std::size_t width = 1;
  [[nodiscard]] std::size_t size() const { return indices.size(); }
};

enum class IndexEncoding : std::uint8_t { raw = 0, varint = 1, bitmap = 2 };

// Indices of a vector of `count` values are below this.
[[nodiscard]] constexpr std::uint64_t sparse_places(std::uint64_t count, std::size_t width) {
  return (count + width - 1) / width;
}
// The largest message for so many pairs, and how many fit into a message of so many bytes.
[[nodiscard]] std::size_t sparse_max_bytes(std::size_t pairs, std::size_t width = 1);
[[nodiscard]] std::size_t sparse_max_pairs(std::size_t bytes, std::size_t width = 1);
// Writes a whole message; `to` holds sparse_max_bytes(). Returns its length.
[[nodiscard]] std::size_t write_sparse(SparseView pairs, std::uint64_t count, std::span<std::byte> to);

// A message whose lengths were checked; its indices are checked as they are read.
struct SparseMessage {
  std::uint64_t places = 0;
  std::size_t width = 1;
  std::uint32_t pairs = 0;
  IndexEncoding encoding = IndexEncoding::raw;
  std::span<const std::byte> values;
  std::span<const std::byte> indices;
};
// Errors: malformed.
[[nodiscard]] Result<SparseMessage> open_sparse(std::span<const std::byte> message, std::uint64_t count,
                                                std::string_view name, std::size_t width = 1);
// All indices, ascending and below the places; `to` holds message.pairs. Errors: malformed.
[[nodiscard]] Result<void> read_indices(const SparseMessage& message, std::span<std::uint32_t> to,
                                        std::string_view name);
// The first value of a pair.
[[nodiscard]] float sparse_value(const SparseMessage& message, std::size_t pair);

// Walks through a message's pairs, checking each index as it comes. Allocates nothing; the message must stay.
class SparseReader {
 public:
  SparseReader() = default;
  explicit SparseReader(const SparseMessage& message) : message_(message) { start(); }

  // Calls take(index, bytes of its values) for the next pairs, as long as their index is below `limit`. False once the
  // message has turned out to be damaged.
  template <class Take>
  [[nodiscard]] bool take_below(std::uint64_t limit, Take take) {
    switch (message_.encoding) {
      case IndexEncoding::raw: walk<IndexEncoding::raw>(limit, take); break;
      case IndexEncoding::varint: walk<IndexEncoding::varint>(limit, take); break;
      case IndexEncoding::bitmap: walk<IndexEncoding::bitmap>(limit, take); break;
    }
    return sound_;
  }
  // Of the next pair; k_end when there is none.
  [[nodiscard]] std::uint64_t index() const { return index_; }
  [[nodiscard]] bool sound() const { return sound_; }
  static constexpr std::uint64_t k_end = ~std::uint64_t{0};

 private:
  void start();
  template <IndexEncoding k_encoding, class Take>
  void walk(std::uint64_t limit, Take& take) {
    const std::size_t bytes = 4 * message_.width;
    while (index_ < limit) {
      take(static_cast<std::uint32_t>(index_), message_.values.data() + pair_ * bytes);
      ++pair_;
      advance<k_encoding>();
    }
  }
  // To the index of pair_.
  template <IndexEncoding k_encoding>
  void advance() {
    if (pair_ == message_.pairs) return end();
    if constexpr (k_encoding == IndexEncoding::raw) {
      std::uint32_t index = 0;
      std::memcpy(&index, message_.indices.data() + 4 * pair_, sizeof index);
      if (index < least_) return damage();
      least_ = index;
    } else if constexpr (k_encoding == IndexEncoding::varint) {
      std::uint64_t gap = 0;
      for (int shift = 0;; shift += 7) {
        if (at_ == message_.indices.size() || shift > 28) return damage();
        const auto byte = static_cast<std::uint8_t>(message_.indices[at_++]);
        gap |= std::uint64_t{byte & 127u} << shift;
        if (byte < 128) break;
      }
      least_ += gap;
    } else {
      while (word_ == 0) {
        if (at_ >= message_.indices.size()) return damage();
        read_word();
      }
      least_ = base_ + static_cast<std::uint64_t>(std::countr_zero(word_));
      word_ &= word_ - 1;
    }
    if (least_ >= message_.places) return damage();
    index_ = least_++;
  }
  void read_word() {
    base_ = at_ * 8;
    word_ = 0;
    std::memcpy(&word_, message_.indices.data() + at_, std::min<std::size_t>(8, message_.indices.size() - at_));
    at_ += 8;
  }
  void end();  // nothing may follow the last pair
  void damage() {
    sound_ = false;
    index_ = k_end;
  }

  SparseMessage message_;
  std::size_t pair_ = 0;
  std::uint64_t index_ = k_end;
  std::uint64_t least_ = 0;  // that the next index may be
  std::size_t at_ = 0;       // bytes of the indices read
  std::uint64_t word_ = 0;   // bits of a bitmap not taken yet, from base_ on
  std::uint64_t base_ = 0;
  bool sound_ = true;
};

// What is to be done with the values that a message holds; those it does not hold are left alone.
enum class SparseApply : std::uint8_t { store, add, subtract };
// Errors: malformed.
[[nodiscard]] Result<void> apply_sparse(const SparseMessage& message, std::span<float> to, SparseApply how,
                                        std::string_view name);

// The sum of two vectors of single values: an index in both has the sum of its values. `indices` and `values` hold
// a.size() + b.size() pairs and are none of the inputs. Returns how many were written.
[[nodiscard]] std::size_t merge_sparse(SparseView a, SparseView b, std::uint32_t* indices, float* values);

}  // namespace gradrail

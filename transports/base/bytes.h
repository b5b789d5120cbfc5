// Little-endian writing, and bounds-checked reading, of bytes that cross a process border. A reader never reads past
// its span: the first short or oversized field makes it fail, and every later read fails too, so a parser may read a
// whole message and ask ok() once.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace gradrail {

static_assert(std::endian::native == std::endian::little, "gradrail's wire formats assume a little-endian host");

using Bytes = std::vector<std::byte>;

class ByteWriter {
 public:
  template <class T>
  requires std::is_arithmetic_v<T>
  void put(T value) {
    const auto at = bytes_.size();
    bytes_.resize(at + sizeof value);
    std::memcpy(bytes_.data() + at, &value, sizeof value);
  }
  void put_bytes(std::span<const std::byte> value) { bytes_.insert(bytes_.end(), value.begin(), value.end()); }
  // A 32-bit length, then the bytes.
  void put_block(std::span<const std::byte> value) {
    put(static_cast<std::uint32_t>(value.size()));
    put_bytes(value);
  }
  void put_string(std::string_view value) { put_block(std::as_bytes(std::span(value))); }

  [[nodiscard]] Bytes take() && { return std::move(bytes_); }

 private:
  Bytes bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : rest_(bytes) {}

  template <class T>
  requires std::is_arithmetic_v<T>
  [[nodiscard]] T get() {
    T value{};
    if (const auto raw = get_bytes(sizeof value); ok_) std::memcpy(&value, raw.data(), sizeof value);
    return value;
  }
  [[nodiscard]] std::span<const std::byte> get_bytes(std::size_t count) {
    if (!ok_ || count > rest_.size()) {
      ok_ = false;
      return {};
    }
    const auto out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }
  [[nodiscard]] std::span<const std::byte> get_block() { return get_bytes(get<std::uint32_t>()); }
  [[nodiscard]] std::string get_string() {
    const auto raw = get_block();
    return {reinterpret_cast<const char*>(raw.data()), raw.size()};
  }

  [[nodiscard]] bool ok() const { return ok_; }
  [[nodiscard]] std::size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace gradrail

// Memory as transports see it. A Buffer is a plain description and owns nothing. A Region is one transport's
// registration of a buffer: it is made by Transport::register_memory or Transport::allocate, is known to that transport
// only, and deregisters (and frees, if allocated) when it is destroyed. Every operation names memory by a Slice of a
// Region; the Region must outlive the operations that use it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradrail {

enum class Space : std::uint8_t { host, cuda };

struct Buffer {
  std::byte* data = nullptr;
  std::size_t size = 0;
  Space space = Space::host;
  int device = -1;  // CUDA ordinal, -1 for host memory
};

class Transport;

class Region {
 public:
  Region(const Transport& owner, Buffer buffer, bool direct) : owner_(&owner), buffer_(buffer), direct_(direct) {}
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  virtual ~Region() = default;

  [[nodiscard]] const Transport& owner() const { return *owner_; }
  [[nodiscard]] const Buffer& buffer() const { return buffer_; }
  // True if peers (or the NIC) reach this memory without an intermediate copy.
  [[nodiscard]] bool direct() const { return direct_; }

 private:
  const Transport* owner_;
  Buffer buffer_;
  bool direct_;
};

struct Slice {
  const Region* region = nullptr;
  std::size_t offset = 0;
  std::size_t size = 0;

  [[nodiscard]] std::byte* data() const { return region->buffer().data + offset; }
  [[nodiscard]] bool within(const Transport& owner) const {
    return region != nullptr && &region->owner() == &owner && offset <= region->buffer().size &&
           size <= region->buffer().size - offset;
  }
};

}  // namespace gradrail

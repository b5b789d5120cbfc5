// Shared memory without a name: a memfd and its mapping, sealed against shrinking, so that no peer can make a reader
// fault. It exists while a process holds the descriptor or a mapping, and so leaves nothing behind however a rank dies.
// A Mapping owns both; a mapping of a peer's memory gives its descriptor up at once.
#pragma once

#include <cstddef>
#include <span>

#include "transports/base/fd.h"
#include "transports/base/result.h"

namespace gradrail::shm {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept : fd_(std::move(other.fd_)), bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping();

  // Zeroed memory of at least `bytes`, present (no page fault comes later). Errors: exhausted, system.
  [[nodiscard]] static Result<Mapping> create(const char* name, std::size_t bytes);
  // Maps a peer's memory. Errors: malformed unless it is sealed and has at least `bytes`; exhausted.
  [[nodiscard]] static Result<Mapping> open(const Fd& fd, std::size_t bytes);

  [[nodiscard]] std::byte* data() const { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] int fd() const { return fd_.get(); }
  void close_fd() { fd_.reset(); }

 private:
  Fd fd_;
  std::span<std::byte> bytes_;
};

}  // namespace gradrail::shm

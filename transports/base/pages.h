// Anonymous memory of whole pages, zeroed, private to the process; large ones ask for huge pages. Unmapped with the
// object. Empty where nothing was mapped.
#pragma once

#include <cstddef>
#include <utility>

#include "transports/base/result.h"

namespace gradrail {

class Pages {
 public:
  Pages() = default;
  // Room for `bytes`, at least a page. Errors: exhausted.
  [[nodiscard]] static Result<Pages> map(std::size_t bytes);
  // The same of huge pages (2 MiB) that the system has reserved. Errors: exhausted.
  [[nodiscard]] static Result<Pages> map_huge(std::size_t bytes);
  Pages(Pages&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), mapped_(std::exchange(other.mapped_, 0)) {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(mapped_, other.mapped_);
    return *this;
  }
  ~Pages();

  [[nodiscard]] std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t mapped_ = 0;
};

}  // namespace gradrail

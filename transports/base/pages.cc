#include "transports/base/pages.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

namespace gradrail {

namespace {
constexpr std::size_t k_huge_page = 2 << 20;
}

Result<Pages> Pages::map(std::size_t bytes) {
  const std::size_t mapped = std::max<std::size_t>(bytes, 1);
  void* memory = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return fail(Code::exhausted, fmt::format("{} bytes of memory are not to be had", bytes), Error::k_no_peer, errno);
  if (bytes >= k_huge_page) ::madvise(memory, mapped, MADV_HUGEPAGE);  // a wish; nothing depends on it
  Pages pages;
  pages.data_ = static_cast<std::byte*>(memory);
  pages.mapped_ = mapped;
  return pages;
}

Pages::~Pages() {
  if (mapped_ > 0) ::munmap(data_, mapped_);
}

}  // namespace gradrail

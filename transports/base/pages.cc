#include "transports/base/pages.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

namespace gradrail {

namespace {
constexpr int k_huge_page_bits = 21;
constexpr std::size_t k_huge_page = std::size_t(1) << k_huge_page_bits;
}  // namespace

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

Result<Pages> Pages::map_huge(std::size_t bytes) {
  const std::size_t count = std::max<std::size_t>(1, (bytes + k_huge_page - 1) / k_huge_page);
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | k_huge_page_bits << MAP_HUGE_SHIFT;
  void* memory = ::mmap(nullptr, count * k_huge_page, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED)
    return fail(Code::exhausted,
                fmt::format("{} huge pages of 2 MiB are not to be had for {} bytes; reserve enough for all ranks of "
                            "the host (sysctl -w vm.nr_hugepages=N), or use memory of ordinary pages",
                            count, bytes),
                Error::k_no_peer, errno);
  Pages pages;
  pages.data_ = static_cast<std::byte*>(memory);
  pages.mapped_ = count * k_huge_page;
  return pages;
}

Pages::~Pages() {
  if (mapped_ > 0) ::munmap(data_, mapped_);
}

}  // namespace gradrail

#include "tests/contract/allocations.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace gradrail::testing {
namespace {
thread_local std::uint64_t count = 0;
}  // namespace

std::uint64_t allocations() { return count; }

void* counted(std::size_t bytes, std::size_t alignment) {
  ++count;
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  if (void* at = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded)) return at;
  std::abort();
}

}  // namespace gradrail::testing

void* operator new(std::size_t bytes) { return gradrail::testing::counted(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return gradrail::testing::counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return gradrail::testing::counted(bytes, static_cast<std::size_t>(alignment));
}
void* operator new[](std::size_t bytes, std::align_val_t alignment) {
  return gradrail::testing::counted(bytes, static_cast<std::size_t>(alignment));
}
// The system's own would call those above, but a sanitizer's do not, and what they give must not reach the free()
// below.
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return operator new[](bytes); }
void* operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return operator new(bytes, alignment);
}
void* operator new[](std::size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return operator new[](bytes, alignment);
}
void operator delete(void* at) noexcept { std::free(at); }
void operator delete[](void* at) noexcept { std::free(at); }
void operator delete(void* at, std::size_t) noexcept { std::free(at); }
void operator delete[](void* at, std::size_t) noexcept { std::free(at); }
void operator delete(void* at, std::align_val_t) noexcept { std::free(at); }
void operator delete[](void* at, std::align_val_t) noexcept { std::free(at); }
void operator delete(void* at, std::size_t, std::align_val_t) noexcept { std::free(at); }
void operator delete[](void* at, std::size_t, std::align_val_t) noexcept { std::free(at); }

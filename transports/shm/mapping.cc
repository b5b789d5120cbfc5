#include "transports/shm/mapping.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace gradrail::shm {
namespace {

constexpr std::size_t k_page = 4096;
constexpr std::size_t k_huge_page = 2 << 20;

Result<std::byte*> map(int fd, std::size_t bytes) {
  void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    const int error = errno;
    return fail(Code::exhausted,
                fmt::format("cannot map {} bytes of shared memory; free memory or raise its limit", bytes),
                Error::k_no_peer, error);
  }
  // A wish only: most kernels give huge pages to shared memory only if shmem_enabled says so.
  if (bytes >= k_huge_page) ::madvise(at, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(at);
}

}  // namespace

Mapping::~Mapping() {
  if (bytes_.data() != nullptr) ::munmap(bytes_.data(), bytes_.size());
}

Result<Mapping> Mapping::create(const char* name, std::size_t bytes) {
  if (bytes > SIZE_MAX / 2) return fail(Code::exhausted, fmt::format("cannot allocate {} bytes", bytes));
  bytes = (std::max<std::size_t>(bytes, 1) + k_page - 1) / k_page * k_page;
  Mapping made;
  made.fd_ = Fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!made.fd_) return fail_errno("creating shared memory (memfd_create)", errno);
  if (::ftruncate(made.fd(), static_cast<off_t>(bytes)) != 0) return fail_errno("sizing shared memory", errno);
  if (::fcntl(made.fd(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0)
    return fail_errno("sealing shared memory", errno);
  GRADRAIL_ASSIGN(auto* at, map(made.fd(), bytes));
  made.bytes_ = {at, bytes};
#ifdef MADV_POPULATE_WRITE
  // Better an error here than a bus error at the first touch. Kernels before 5.14 do not know it (EINVAL).
  if (::madvise(at, bytes, MADV_POPULATE_WRITE) != 0 && errno != EINVAL) {
    return fail(Code::exhausted, fmt::format("there is no memory for {} bytes of shared memory", bytes),
                Error::k_no_peer, errno);
  }
#endif
  return made;
}

Result<Mapping> Mapping::open(const Fd& fd, std::size_t bytes) {
  struct stat about {};
  if (!fd || ::fstat(fd.get(), &about) != 0) return fail(Code::malformed, "a peer passed no shared memory");
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) return fail(Code::malformed, "a peer passed memory that can shrink");
  const auto size = static_cast<std::size_t>(about.st_size);
  if (size == 0 || bytes > size) {
    return fail(Code::malformed,
                fmt::format("a peer passed {} bytes of shared memory where {} are needed", size, bytes));
  }
  GRADRAIL_ASSIGN(auto* at, map(fd.get(), size));
  Mapping made;
  made.bytes_ = {at, size};
#ifdef MADV_POPULATE_WRITE
  ::madvise(at, size, MADV_POPULATE_WRITE);  // the pages exist: this only fills the page table
#endif
  return made;
}

}  // namespace gradrail::shm

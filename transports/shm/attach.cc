#include "transports/shm/attach.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace gradrail::shm {
namespace {

// As in linux/fs.h since 6.7, which is newer than the headers that we build with.
struct PageRegion {
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t categories;
};
struct PageScan {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t regions;
  std::uint64_t regions_size;
  std::uint64_t max_pages;
  std::uint64_t category_inverted;
  std::uint64_t category_mask;
  std::uint64_t category_anyof_mask;
  std::uint64_t return_mask;
};
constexpr unsigned long k_page_scan = _IOWR('f', 16, PageScan);
constexpr std::uint64_t k_is_huge = 1 << 6;

constexpr std::uint64_t k_page = 4096;
constexpr std::uint64_t k_looked_at = 8 << 20;

}  // namespace

std::int64_t process_behind(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? peer.pid : 0;
}

bool can_read(std::int64_t process, std::uint64_t address, std::uint64_t token) {
  std::uint64_t found = 0;
  return process > 0 && address != 0 &&
         read_memory_of(process, address, std::as_writable_bytes(std::span(&found, 1))) && found == token;
}

namespace {

template <class Byte, class Call>
Result<void> move_all(const char* name, Call call, std::int64_t process, std::uint64_t address, std::span<Byte> ours) {
  while (!ours.empty()) {
    const iovec here{const_cast<std::byte*>(ours.data()), ours.size()};
    const iovec there{reinterpret_cast<void*>(address), ours.size()};
    const auto moved = call(static_cast<pid_t>(process), &here, 1, &there, 1, 0);
    if (moved <= 0) {
      const int error = moved < 0 ? errno : EFAULT;
      if (error == EINTR) continue;
      if (error == ESRCH) return fail(Code::peer_gone, "the process has ended", Error::k_no_peer, error);
      return fail_errno(name, error);
    }
    address += static_cast<std::size_t>(moved);
    ours = ours.subspan(static_cast<std::size_t>(moved));
  }
  return {};
}

}  // namespace

Result<void> read_memory_of(std::int64_t process, std::uint64_t address, std::span<std::byte> to) {
  return move_all("process_vm_readv", &::process_vm_readv, process, address, to);
}

Result<void> write_memory_of(std::int64_t process, std::uint64_t address, std::span<const std::byte> from) {
  return move_all("process_vm_writev", &::process_vm_writev, process, address, from);
}

Fd open_page_map() { return Fd(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)); }

bool mostly_huge_pages(const Fd& page_map, std::span<const std::byte> memory) {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.data()) / k_page * k_page;
  const auto bytes = (std::min<std::uint64_t>(memory.size(), k_looked_at) + k_page - 1) / k_page * k_page;
  std::array<PageRegion, 64> found{};
  PageScan scan{};
  scan.size = sizeof scan;
  scan.start = begin;
  scan.end = begin + bytes;
  scan.regions = reinterpret_cast<std::uintptr_t>(found.data());
  scan.regions_size = found.size();
  scan.category_mask = k_is_huge;
  scan.return_mask = k_is_huge;
  const int count = ::ioctl(page_map.get(), k_page_scan, &scan);
  std::uint64_t huge = 0;
  for (int i = 0; i < count; ++i) huge += found[std::size_t(i)].end - found[std::size_t(i)].start;
  return huge > bytes / 4 * 3;
}

}  // namespace gradrail::shm

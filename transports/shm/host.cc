#include "transports/shm/host.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>

#include "transports/base/fd.h"

namespace gradrail::shm {

Result<std::string> host_id() {
  constexpr const char* k_boot_id = "/proc/sys/kernel/random/boot_id";
  constexpr const char* k_network = "/proc/self/ns/net";
  std::array<char, 36> boot{};
  const Fd fd(::open(k_boot_id, O_RDONLY | O_CLOEXEC));
  if (!fd || ::read(fd.get(), boot.data(), boot.size()) != static_cast<ssize_t>(boot.size()))
    return fail(Code::unavailable,
                fmt::format("the shm transport needs {} to tell hosts apart; mount /proc", k_boot_id), Error::k_no_peer,
                errno);
  struct stat network {};
  if (::stat(k_network, &network) != 0)
    return fail(Code::unavailable, fmt::format("the shm transport needs {}; mount /proc", k_network), Error::k_no_peer,
                errno);
  return fmt::format("{}/{}", std::string_view(boot.data(), boot.size()), network.st_ino);
}

}  // namespace gradrail::shm

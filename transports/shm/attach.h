// Cross-memory attach: the kernel copies out of another process's memory into ours, or the other way (process_vm_readv,
// process_vm_writev), so that a message in plain memory is copied once. Who may, the kernel decides by the rules of
// ptrace; containers and seccomp filters may refuse it too. So it is tried when a pipe opens: each side reads the
// other's token, which also shows that the process is the right one. Calls do not wait for the other process, which may
// be stopped. A process that has ended is not found; its number is not given to another before all others were.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "transports/base/fd.h"
#include "transports/base/result.h"

namespace gradrail::shm {

// The process at the other end of a unix socket, as we must call it; 0 if it has no name here.
[[nodiscard]] std::int64_t process_behind(int socket);
// Whether its memory at `address` can be read and holds `token`.
[[nodiscard]] bool can_read(std::int64_t process, std::uint64_t address, std::uint64_t token);
// Errors: peer_gone if the process has ended; system.
[[nodiscard]] Result<void> read_memory_of(std::int64_t process, std::uint64_t address, std::span<std::byte> to);
// The other way. Who may read may write.
[[nodiscard]] Result<void> write_memory_of(std::int64_t process, std::uint64_t address,
                                           std::span<const std::byte> from);

// The page map of this process; not open where /proc has none.
[[nodiscard]] Fd open_page_map();
// Whether most of these bytes of ours (or of the first few MiB of them) lie in huge pages; false where the kernel does
// not tell (before Linux 6.7).
[[nodiscard]] bool mostly_huge_pages(const Fd& page_map, std::span<const std::byte> memory);

}  // namespace gradrail::shm

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "bench/doctor/readers.h"

namespace gradrail::doctor {

namespace {

constexpr int k_may_lock = 14;  // CAP_IPC_LOCK

// The last mount on /dev/shm is the one in force. Without a size of its own a tmpfs holds half of the memory.
std::optional<std::int64_t> shm_bytes(const Files& files) {
  constexpr std::string_view k_mounts = "proc/self/mountinfo";
  std::optional<std::int64_t> out;
  for (const std::string& line : files.lines(k_mounts)) {
    if (line.find(" /dev/shm ") == line.npos || line.find(" - tmpfs ") == line.npos) continue;
    files.keep(k_mounts, line + "\n");
    const auto total = number_in(files.value("proc/meminfo", "MemTotal", ':'));
    out = total ? std::optional(*total / 2) : std::nullopt;
    const auto options = line.rfind(' ');
    const auto size = line.find("size=", options);
    if (size == line.npos) continue;
    const std::string text = line.substr(size + 5, line.find(',', size) - size - 5);
    if (const auto bytes = number_in(text); bytes && *bytes >= 0) out = bytes;
  }
  return out;
}

std::string chosen(std::string_view text) {  // "always [never]"
  const auto open = text.find('['), close = text.find(']');
  return open == text.npos || close == text.npos || close < open ? std::string()
                                                                 : std::string(text.substr(open + 1, close - open - 1));
}

// Memory devices of the System Management BIOS (DSP0134, section 7.18). Serial numbers stand behind the bytes read.
MemoryModules modules(const Files& files) {
  constexpr std::size_t k_bytes = 34, k_data_width = 0x0a, k_size = 0x0c, k_speed = 0x15, k_configured = 0x20;
  MemoryModules out;
  for (const std::string& entry : files.entries("sys/firmware/dmi/entries", "17-")) {
    const std::string raw = files.bytes(fmt::format("sys/firmware/dmi/entries/{}/raw", entry), k_bytes);
    if (raw.size() < k_configured + 2) continue;
    const auto word = [&](std::size_t at) {
      return static_cast<unsigned char>(raw[at]) + (static_cast<unsigned char>(raw[at + 1]) << 8);
    };
    const int size = word(k_size), width = word(k_data_width);
    const int speed = word(k_configured) != 0 ? word(k_configured) : word(k_speed);
    if (size == 0 || size == 0xffff || width < 8 || width > 512 || speed == 0 || speed == 0xffff) continue;
    ++out.populated;
    out.sum_gbs += speed * 1e6 * (width / 8.0) * 1e-9;
  }
  return out;
}

}  // namespace

MemoryFacts read_memory(const Files& files) {
  MemoryFacts out;
  out.locked_bytes = soft_limit(files, "Max locked memory");
  out.may_lock_all = capable(files, k_may_lock);
  out.shm_bytes = shm_bytes(files);
  out.huge_pages =
      std::max<std::int64_t>(0, number_in(files.value("proc/meminfo", "HugePages_Total", ':')).value_or(0));
  out.huge_page_bytes =
      std::max<std::int64_t>(0, number_in(files.value("proc/meminfo", "Hugepagesize", ':')).value_or(0));
  out.shmem_huge = chosen(files.line("sys/kernel/mm/transparent_hugepage/shmem_enabled"));
  out.modules = modules(files);
  return out;
}

}  // namespace gradrail::doctor

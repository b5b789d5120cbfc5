#include "bench/doctor/gpu_direct.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace gradrail::doctor {
namespace {

// Drivers of devices that were never taught to take dma-bufs.
constexpr std::array k_without_dma_buf{std::string_view("mlx4_core"), std::string_view("hfi1"),
                                       std::string_view("ib_qib"), std::string_view("iw_cxgb4")};

// Major and minor number of the kernel's version.
std::pair<int, int> version_of(const std::string& text) {
  int major = 0, minor = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), major);
  if (read.ec == std::errc() && read.ptr != text.data() + text.size() && *read.ptr == '.')
    std::from_chars(read.ptr + 1, text.data() + text.size(), minor);
  return {major, minor};
}

// Why not by dma-buf; empty where nothing speaks against it.
std::string against_dma_buf(const Facts& facts, const RdmaDevice& device) {
  const std::string& kernel = facts.machine.kernel;
  const std::string& driver = device.pci.driver;
  if (device.software ||
      std::find(k_without_dma_buf.begin(), k_without_dma_buf.end(), driver) != k_without_dma_buf.end())
    return fmt::format("the driver of {} takes none", device.name);
  if (version_of(kernel) < std::pair(5, 12))
    return fmt::format("it takes Linux 5.12 or later, and this is {}", kernel.empty() ? "unknown" : kernel);
  if (!facts.gpu.open_module) return "NVIDIA's kernel modules are not the open ones, so they do not export it";
  return {};
}

}  // namespace

std::optional<PathChoice> expected_gpu_path(const Facts& facts, const RdmaDevice& device) {
  if (facts.gpu.driver_version.empty() && facts.gpu.peer_memory.empty() && !facts.gpu.open_module) return std::nullopt;
  PathChoice out;
  out.path = MemoryPath::dma_buf;
  if (auto why = against_dma_buf(facts, device); !why.empty()) {
    out.against.push_back({out.path, std::move(why)});
    out.path = MemoryPath::peer_memory;
    if (facts.gpu.peer_memory.empty()) {
      out.against.push_back({out.path, "the module is not loaded"});
      out.path = MemoryPath::staged;
    }
  }
  return out;
}

}  // namespace gradrail::doctor

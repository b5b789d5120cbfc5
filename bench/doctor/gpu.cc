#include <fmt/format.h>

#include "bench/doctor/readers.h"

namespace gradrail::doctor {

namespace {

constexpr int k_display = 0x03;      // PCI classes: VGA, 3D and other display controllers
constexpr int k_accelerator = 0x12;  // processing accelerators
constexpr int k_nvidia = 0x10de, k_amd = 0x1002, k_intel = 0x8086;

std::string vendor_name(int vendor) {
  return vendor == k_nvidia ? "NVIDIA" : vendor == k_amd ? "AMD" : vendor == k_intel ? "Intel" : "";
}

}  // namespace

GpuFacts read_gpus(const Files& files) {
  constexpr std::string_view k_bus = "sys/bus/pci/devices";
  GpuFacts out;
  for (const std::string& address : files.entries(k_bus)) {
    const std::string path = fmt::format("{}/{}", k_bus, address);
    Gpu gpu;
    gpu.pci = read_pci(files, path);
    const int major = gpu.pci.device_class >> 16;
    const std::string vendor = vendor_name(gpu.pci.vendor);
    if (vendor.empty() || (major != k_display && major != k_accelerator)) continue;
    gpu.model = files.value(fmt::format("proc/driver/nvidia/gpus/{}/information", gpu.pci.address), "Model", ':');
    if (gpu.model.empty()) gpu.model = fmt::format("{} {:04x}:{:04x}", vendor, gpu.pci.vendor, gpu.pci.device);
    out.gpus.push_back(std::move(gpu));
  }
  out.driver_version = files.line("sys/module/nvidia/version");
  out.open_module = files.line("proc/driver/nvidia/version").find("Open Kernel Module") != std::string::npos;
  for (const std::string_view name : {"nvidia_peermem", "nv_peer_mem"})
    if (out.peer_memory.empty() && files.exists(fmt::format("sys/module/{}", name))) out.peer_memory = name;
  return out;
}

}  // namespace gradrail::doctor

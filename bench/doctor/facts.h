// What doctor knows of a host, as plain values: read by the functions of readers.h, judged by verdicts.h, and nothing
// of it depends on the machine that looks. Empty, 0 or none: not known.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "results/record.h"

namespace gradrail::doctor {

struct CpuFacts {
  std::vector<int> online;
  std::vector<int> allowed;            // for this process
  std::vector<std::string> governors;  // of the CPUs' frequencies, each once
  std::string driver;                  // of their frequencies
  std::optional<bool> smt;
  std::optional<bool> numa_balancing;
};

struct MemoryModules {  // as the firmware tells, to root only
  int populated = 0;
  double sum_gbs = 0;  // of all of them, each as if it had a channel of its own
};

struct MemoryFacts {
  std::optional<std::int64_t> locked_bytes;  // the soft limit; -1: none
  bool may_lock_all = false;                 // CAP_IPC_LOCK
  std::optional<std::int64_t> shm_bytes;     // what /dev/shm may hold
  std::int64_t huge_pages = 0;
  std::int64_t huge_page_bytes = 0;
  std::string shmem_huge;  // "never", "advise", ...
  MemoryModules modules;
};

// A device on PCI Express, and its way to the CPU.
struct PciDevice {
  std::string address;  // "0000:3b:00.0"
  int vendor = 0;
  int device = 0;
  int device_class = 0;  // 24 bits
  std::string driver;
  double speed_gts = 0;
  int width = 0;
  double most_gts = 0;  // the device's
  int most_width = 0;
  double slot_gts = 0;  // what the port above offers
  int slot_width = 0;
  int numa_node = -1;
  std::vector<std::string> above;  // from the root complex down: "pci0000:3a", "0000:3a:00.0", ...
};

struct Gid {
  int index = 0;
  std::string value;
  std::string type;    // "RoCE v2"; empty on InfiniBand
  std::string netdev;  // "eth2"
};

struct RdmaPort {
  int number = 0;
  std::string state;  // "ACTIVE"
  std::string physical;
  std::string link_layer;  // "InfiniBand" or "Ethernet"
  std::string rate;        // as the kernel says it: "200 Gb/sec (4X HDR)"
  double rate_gbits = 0;
  int lid = 0;
  int sm_lid = 0;
  int netdev_mtu = 0;  // of the interface behind it, where there is one
  std::vector<Gid> gids;
};

struct RdmaDevice {
  std::string name;  // "mlx5_0"
  std::string firmware;
  std::string board;  // the vendor's part
  std::string type;   // "MT4123"
  bool software = false;
  PciDevice pci;
  std::vector<RdmaPort> ports;
};

struct NetworkDevice {
  std::string name;
  double rate_gbits = 0;
  int mtu = 0;
  bool up = false;
  PciDevice pci;
};

struct Gpu {
  std::string model;
  PciDevice pci;
};

struct GpuFacts {
  std::vector<Gpu> gpus;
  std::string driver_version;
  bool open_module = false;  // NVIDIA's open kernel modules, which export dma-buf
  std::string peer_memory;   // the module that lets RDMA devices reach GPU memory, where it is loaded
};

struct SoftwareFacts {
  std::vector<Library> libraries;   // found on this host, newest first where there are several of one
  bool verbs_device_files = false;  // /dev/infiniband
};

struct LimitFacts {
  std::optional<int> ptrace_scope;  // Yama's
  bool may_trace_all = false;       // CAP_SYS_PTRACE
  std::optional<std::int64_t> open_files;
  std::optional<double> quota_cpus;  // of the control group
  std::optional<std::int64_t> memory_bytes;
};

struct Facts {
  Machine machine;
  CpuFacts cpu;
  MemoryFacts memory;
  std::vector<RdmaDevice> rdma;
  std::vector<NetworkDevice> network;
  GpuFacts gpu;
  SoftwareFacts software;
  LimitFacts limits;
};

// How near two devices are, in the words of `nvidia-smi topo -m`.
enum class Distance { one_switch, switches, host_bridge, node, system, unknown };
[[nodiscard]] Distance distance(const PciDevice& a, const PciDevice& b);
[[nodiscard]] std::string_view to_string(Distance distance);  // "PIX", "PXB", "PHB", "NODE", "SYS", "?"

}  // namespace gradrail::doctor

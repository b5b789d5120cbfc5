// What a path can carry at best, computed from what its parts say of themselves: PCI Express from generation, width,
// encoding and packet headers; an RDMA port from its rate, encoding and headers at its MTU; memory from its modules.
// Pure. GB/s are decimal, of payload, one way; 0 where a part does not say.
#pragma once

#include <string>
#include <vector>

#include "bench/doctor/facts.h"

namespace gradrail::doctor {

// After encoding: 8b/10b up to 5 GT/s, 128b/130b up to 32, FLITs of 242 in 256 bytes beyond.
[[nodiscard]] double pci_raw_gbs(double gts, int width);
// And after packet headers, for payloads of 256 bytes.
[[nodiscard]] double pci_gbs(double gts, int width);
// "PCIe 4.0 x16"; "PCIe ?" where that is not known.
[[nodiscard]] std::string pci_name(double gts, int width);

// Bytes of the RDMA path MTU that a network interface's MTU leaves room for: 256 to 4096; 0 if it does not do.
[[nodiscard]] int rdma_mtu_of(int netdev_mtu);
[[nodiscard]] double port_gbs(const RdmaPort& port);

struct Expected {
  std::string path;   // "mlx5_0 port 1", "GPU 0000:3b:00.0", "memory"
  double gbs = 0;     // above 0
  std::string limit;  // what of the path limits it, in words
};
[[nodiscard]] std::vector<Expected> expected_paths(const Facts& facts);

}  // namespace gradrail::doctor

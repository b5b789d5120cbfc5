#include "bench/doctor/expected.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace gradrail::doctor {

namespace {

// Framing, sequence number, header and checksum of a packet with 64-bit addresses.
constexpr double k_pci_payload = 256, k_pci_headers = 24;

// On the wire around each packet of an RDMA write.
constexpr double k_infiniband_headers = 8 + 12 + 4 + 2;  // LRH, BTH, ICRC, VCRC
constexpr double k_roce_headers =
    8 + 14 + 20 + 8 + 12 + 4 + 4 + 12;  // preamble, Ethernet, IP, UDP, BTH, ICRC, FCS, gap
constexpr double k_tcp_headers = 20 + 32, k_ethernet_headers = 8 + 14 + 4 + 12;
constexpr int k_infiniband_mtu = 4096;  // /sys does not tell; what subnet managers set

// What the RoCE driver takes off an interface's MTU: GRH, UDP, BTH, two extended headers, ICRC.
constexpr int k_roce_reserve = 40 + 8 + 12 + 4 + 28 + 4;

}  // namespace

double pci_raw_gbs(double gts, int width) {
  const double encoding = gts <= 5 ? 8.0 / 10 : gts <= 32 ? 128.0 / 130 : 242.0 / 256;
  return gts > 0 && width > 0 ? gts * width * encoding / 8 : 0;
}

double pci_gbs(double gts, int width) {
  return pci_raw_gbs(gts, width) * k_pci_payload / (k_pci_payload + k_pci_headers);
}

std::string pci_name(double gts, int width) {
  constexpr std::array<double, 7> k_generations = {2.5, 5, 8, 16, 32, 64, 128};
  const auto at =
      std::find_if(k_generations.begin(), k_generations.end(), [&](double one) { return std::abs(one - gts) < 0.01; });
  if (at == k_generations.end() || width <= 0) return "PCIe ?";
  return fmt::format("PCIe {}.0 x{}", at - k_generations.begin() + 1, width);
}

int rdma_mtu_of(int netdev_mtu) {
  for (const int mtu : {4096, 2048, 1024, 512, 256})
    if (netdev_mtu - k_roce_reserve >= mtu) return mtu;
  return 0;
}

double port_gbs(const RdmaPort& port) {
  const bool ethernet = port.link_layer == "Ethernet";
  const int mtu = ethernet ? rdma_mtu_of(port.netdev_mtu) : k_infiniband_mtu;
  // The kernel says the rate on the wire. From EDR on, names are of the rate after encoding.
  const auto is = [&](std::string_view word) { return port.rate.find(word) != port.rate.npos; };
  double encoding = 1;
  if (!ethernet && (is("SDR)") || is("DDR)") || is("QDR)")) && !is("HDR)") && !is("NDR)") && !is("XDR)"))
    encoding = 0.8;
  if (!ethernet && (is("FDR)") || is("FDR10)"))) encoding = 64.0 / 66;
  const double rate = port.rate_gbits * encoding / 8;
  if (mtu == 0) return rate;
  return rate * mtu / (mtu + (ethernet ? k_roce_headers : k_infiniband_headers));
}

std::vector<Expected> expected_paths(const Facts& facts) {
  std::vector<Expected> out;
  for (const RdmaDevice& device : facts.rdma) {
    if (device.software) continue;  // as fast as the CPU happens to be
    const double pci = pci_gbs(device.pci.speed_gts, device.pci.width);
    const std::string link = pci_name(device.pci.speed_gts, device.pci.width);
    for (const RdmaPort& port : device.ports) {
      const double rate = port_gbs(port);
      if (port.state != "ACTIVE" || rate <= 0) continue;
      std::string limit = fmt::format("its rate, {:g} Gb/s", port.rate_gbits);
      if (pci > 0 && pci < rate)
        limit = fmt::format("{}, which is less than its rate, {:g} Gb/s", link, port.rate_gbits);
      else if (pci > 0)
        limit += fmt::format("; {} carries {:.1f}", link, pci);
      out.push_back({fmt::format("{} port {}", device.name, port.number), pci > 0 ? std::min(pci, rate) : rate, limit});
    }
  }
  for (const NetworkDevice& device : facts.network) {
    if (!device.up || device.rate_gbits <= 0 || device.mtu <= k_tcp_headers) continue;
    const double rate = device.rate_gbits / 8 * (device.mtu - k_tcp_headers) / (device.mtu + k_ethernet_headers);
    const double pci = pci_gbs(device.pci.speed_gts, device.pci.width);
    out.push_back({fmt::format("{} by tcp", device.name), pci > 0 ? std::min(pci, rate) : rate,
                   pci > 0 && pci < rate ? pci_name(device.pci.speed_gts, device.pci.width)
                                         : fmt::format("its rate, {:g} Gb/s", device.rate_gbits)});
  }
  for (const Gpu& gpu : facts.gpu.gpus)
    if (const double pci = pci_gbs(gpu.pci.speed_gts, gpu.pci.width); pci > 0)
      out.push_back({fmt::format("GPU {}", gpu.pci.address), pci, pci_name(gpu.pci.speed_gts, gpu.pci.width)});
  if (facts.memory.modules.populated > 0)
    out.push_back({"memory", facts.memory.modules.sum_gbs,
                   fmt::format("{} modules, if each has a channel of its own", facts.memory.modules.populated)});
  return out;
}

}  // namespace gradrail::doctor

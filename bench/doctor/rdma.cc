#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "bench/doctor/readers.h"

namespace gradrail::doctor {

namespace {

constexpr int k_most_gids = 256;

// "4: ACTIVE"
std::string behind_colon(const std::string& text) {
  const auto colon = text.find(':');
  return std::string(trimmed(colon == text.npos ? std::string_view(text) : std::string_view(text).substr(colon + 1)));
}

// "200 Gb/sec (4X HDR)", "2.5 Gb/sec (1X SDR)"
double gbits(const std::string& text) {
  double value = 0;
  const auto [end, wrong] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool unit =
      std::string_view(end, static_cast<std::size_t>(text.data() + text.size() - end)).starts_with(" Gb/sec");
  return wrong == std::errc() && unit && std::isfinite(value) && value > 0 && value <= 1e5 ? value : 0;
}

int lid(const std::string& text) {  // "0x3a"
  int value = 0;
  if (!text.starts_with("0x")) return 0;
  std::from_chars(text.data() + 2, text.data() + text.size(), value, 16);
  return value > 0 && value < 0xc000 ? value : 0;
}

int mtu(const Files& files, const std::string& netdev) {
  if (netdev.empty() || netdev.find('/') != netdev.npos) return 0;
  const auto value = number_in(files.line(fmt::format("sys/class/net/{}/mtu", netdev))).value_or(0);
  return value >= 68 && value <= 65536 * 16 ? static_cast<int>(value) : 0;
}

std::vector<Gid> read_gids(const Files& files, const std::string& port) {
  std::vector<Gid> out;
  for (const int index : files.numbered(port + "/gids", "")) {
    if (static_cast<int>(out.size()) >= k_most_gids) break;
    Gid gid;
    gid.index = index;
    gid.value = files.line(fmt::format("{}/gids/{}", port, index));
    // A GID of a port without a subnet has only its first half filled in.
    if (gid.value.find_first_not_of("0:") == gid.value.npos) continue;
    gid.type = files.line(fmt::format("{}/gid_attrs/types/{}", port, index));
    gid.netdev = files.line(fmt::format("{}/gid_attrs/ndevs/{}", port, index));
    out.push_back(std::move(gid));
  }
  return out;
}

}  // namespace

std::vector<RdmaDevice> read_rdma(const Files& files) {
  constexpr std::string_view k_class = "sys/class/infiniband";
  std::vector<RdmaDevice> out;
  for (const std::string& name : files.entries(k_class)) {
    const std::string at = fmt::format("{}/{}", k_class, name);
    RdmaDevice device;
    device.name = name;
    device.firmware = files.line(at + "/fw_ver");
    device.board = files.line(at + "/board_id");
    device.type = files.line(at + "/hca_type");
    device.pci = read_pci(files, at + "/device");
    device.software = device.pci.address.empty() && files.real(at).find("/virtual/") != std::string::npos;
    for (const int number : files.numbered(at + "/ports", "")) {
      const std::string folder = fmt::format("{}/ports/{}", at, number);
      RdmaPort port;
      port.number = number;
      port.state = behind_colon(files.line(folder + "/state"));
      port.physical = behind_colon(files.line(folder + "/phys_state"));
      port.link_layer = files.line(folder + "/link_layer");
      port.rate = files.line(folder + "/rate");
      port.rate_gbits = gbits(port.rate);
      port.lid = lid(files.line(folder + "/lid"));
      port.sm_lid = lid(files.line(folder + "/sm_lid"));
      port.gids = read_gids(files, folder);
      for (const Gid& gid : port.gids)
        if (port.netdev_mtu == 0) port.netdev_mtu = mtu(files, gid.netdev);
      device.ports.push_back(std::move(port));
    }
    out.push_back(std::move(device));
  }
  return out;
}

std::vector<NetworkDevice> read_network(const Files& files) {
  constexpr std::string_view k_class = "sys/class/net";
  std::vector<NetworkDevice> out;
  for (const std::string& name : files.entries(k_class)) {
    const std::string at = fmt::format("{}/{}", k_class, name);
    NetworkDevice device;
    device.name = name;
    device.pci = read_pci(files, at + "/device");
    if (device.pci.address.empty()) continue;  // loopback, bridges, tunnels
    device.up = files.line(at + "/operstate") == "up";
    device.mtu = mtu(files, name);
    const auto mbits = number_in(files.line(at + "/speed")).value_or(0);  // -1 where there is no link
    if (mbits > 0 && mbits <= 10'000'000) device.rate_gbits = static_cast<double>(mbits) * 1e-3;
    out.push_back(std::move(device));
  }
  return out;
}

}  // namespace gradrail::doctor

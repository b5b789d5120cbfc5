#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>

#include "bench/doctor/expected.h"
#include "bench/doctor/gpu_direct.h"
#include "bench/doctor/verdicts.h"

namespace gradrail::doctor {

namespace {

constexpr int k_full_roce_mtu = 4096;

Verdict unused_or_bad(bool another_is_active) { return another_is_active ? Verdict::attention : Verdict::bad; }

Finding judge_port(const RdmaDevice& device, const RdmaPort& port, bool any_active) {
  const std::string name = fmt::format("{} port {}", device.name, port.number);
  std::string value = fmt::format("{}, {}, {}", port.state.empty() ? "state not known" : port.state,
                                  port.link_layer.empty() ? "link not known" : port.link_layer,
                                  port.rate.empty() ? "rate not told" : port.rate);
  if (port.state == "ACTIVE") return {"rdma", name, std::move(value), Verdict::ok, {}};
  if (port.state.empty()) return {"rdma", name, std::move(value), Verdict::unknown, {}};
  if (port.state == "INIT" || port.state == "ARMED")
    return {"rdma", name, std::move(value), unused_or_bad(any_active),
            "the link is up and no subnet manager has configured it; start opensm, or the switch's own"};
  std::string advice = "no link: look at the cable, the switch's port and its speed";
  if (port.physical == "Disabled")
    advice = "the port is switched off; ip link set up, or ibportstate";
  else if (port.physical == "Polling")
    advice += "; it hears nothing from the other side";
  if (any_active) advice += "; nothing to do if it is not meant to be used";
  return {"rdma", name, std::move(value), unused_or_bad(any_active), std::move(advice)};
}

bool is_ipv4(const Gid& gid) { return gid.value.find("0000:0000:0000:0000:0000:ffff:") == 0; }

void judge_gids(const RdmaDevice& device, const RdmaPort& port, std::vector<Finding>& out) {
  const std::string name = fmt::format("{} port {} GIDs", device.name, port.number);
  const bool roce = port.link_layer == "Ethernet";
  std::string listed;
  for (std::size_t i = 0; i < port.gids.size() && i < 4; ++i)
    listed += fmt::format("{}{}: {}{}", i > 0 ? "; " : "", port.gids[i].index, port.gids[i].value,
                          port.gids[i].type.empty() ? "" : " " + port.gids[i].type);
  if (port.gids.size() > 4) listed += fmt::format("; {} more", port.gids.size() - 4);
  if (port.gids.empty()) {
    out.push_back({"rdma", name, "none", roce ? Verdict::bad : Verdict::unknown,
                   roce ? "RoCE addresses by GID; give the interface an address" : ""});
    return;
  }
  const bool second =
      std::any_of(port.gids.begin(), port.gids.end(), [](const Gid& gid) { return gid.type == "RoCE v2"; });
  const bool routed = std::any_of(port.gids.begin(), port.gids.end(),
                                  [](const Gid& gid) { return gid.type == "RoCE v2" && is_ipv4(gid); });
  Finding finding{"rdma", name, std::move(listed), Verdict::ok, {}};
  if (roce && !second) {
    finding.verdict = Verdict::attention;
    finding.advice = "none is of RoCE v2, so packets cross no router; enable it (cma_roce_mode) or renew the firmware";
  } else if (roce && !routed) {
    finding.verdict = Verdict::attention;
    finding.advice = "none has an IPv4 address: link-local addresses reach one network only; ip addr add";
  }
  out.push_back(std::move(finding));
}

void judge_mtu(const RdmaDevice& device, const RdmaPort& port, std::vector<Finding>& out) {
  if (port.link_layer != "Ethernet" || port.netdev_mtu == 0) return;
  const int mtu = rdma_mtu_of(port.netdev_mtu);
  const bool full = mtu >= k_full_roce_mtu;
  out.push_back({"rdma", fmt::format("{} port {} MTU", device.name, port.number),
                 fmt::format("{} of the interface, so {} for RDMA", port.netdev_mtu, mtu),
                 full ? Verdict::ok : Verdict::attention,
                 full ? "" : "4200 or 9000 on the interface (and the switch, and the other hosts) allows 4096"});
}

// How an RDMA device reaches the memory of NVIDIA's GPUs.
Finding judge_gpu_direct(const Facts& facts, const RdmaDevice& device) {
  const std::string name = fmt::format("GPU memory by {}", device.name);
  const auto path = expected_gpu_path(facts, device);
  if (!path) return {"gpu", name, "NVIDIA's driver is not loaded", Verdict::unknown, "install it, or modprobe nvidia"};
  if (!path->staged()) return {"gpu", name, to_text(*path), Verdict::ok, {}};
  return {
      "gpu", name, to_text(*path), Verdict::bad,
      "every byte takes the way through the host's memory; modprobe nvidia_peermem, or install NVIDIA's open kernel "
      "modules on Linux 5.12 or later"};
}

std::string_view in_words(Distance distance) {
  switch (distance) {
    case Distance::one_switch: return "one PCIe switch";
    case Distance::switches: return "PCIe switches";
    case Distance::host_bridge: return "the CPU's host bridge";
    case Distance::node: return "the same NUMA node, another host bridge";
    case Distance::system: return "the link between sockets";
    case Distance::unknown: break;
  }
  return "an unknown way";
}

void judge_nearest(const Facts& facts, const Gpu& gpu, std::vector<Finding>& out) {
  const RdmaDevice* nearest = nullptr;
  Distance least = Distance::unknown;
  for (const RdmaDevice& device : facts.rdma) {
    if (device.software) continue;
    const Distance its = distance(gpu.pci, device.pci);
    if (nearest != nullptr && its >= least) continue;
    nearest = &device;
    least = its;
  }
  if (nearest == nullptr) return;
  const bool far = least == Distance::system;
  out.push_back({"gpu", fmt::format("GPU {} to RDMA", gpu.pci.address),
                 fmt::format("{}, over {} ({})", nearest->name, in_words(least), to_string(least)),
                 far                          ? Verdict::attention
                 : least == Distance::unknown ? Verdict::unknown
                                              : Verdict::ok,
                 far ? "every byte crosses between sockets; put a device beside the GPU, or bind its rank to the other "
                       "socket's"
                     : ""});
}

}  // namespace

Finding judge_link(std::string subject, std::string name, const PciDevice& pci, bool rests) {
  Finding out{std::move(subject), std::move(name), {}, Verdict::ok, {}};
  if (pci.speed_gts <= 0 || pci.width <= 0) {
    out.value = "not told";
    out.verdict = Verdict::unknown;
    return out;
  }
  const auto least = [](auto device, auto slot) { return device > 0 && slot > 0 ? std::min(device, slot) : device; };
  const double most_gts = least(pci.most_gts, pci.slot_gts);
  const int most_width = least(pci.most_width, pci.slot_width);
  out.value =
      fmt::format("{} ({:.1f} GB/s)", pci_name(pci.speed_gts, pci.width), pci_raw_gbs(pci.speed_gts, pci.width));
  if (pci.most_gts > 0 && pci.most_width > 0 && (pci.most_gts > pci.speed_gts || pci.most_width > pci.width))
    out.value += fmt::format("; the device could {}", pci_name(pci.most_gts, pci.most_width));
  if (most_width > pci.width) {
    out.verdict = Verdict::bad;
    out.advice = fmt::format("{} of {} lanes are in use: seat the card anew, look at riser and bifurcation settings",
                             pci.width, most_width);
  } else if (most_gts > pci.speed_gts) {
    out.verdict = rests ? Verdict::attention : Verdict::bad;
    out.advice = rests ? "slower than it could: normal while idle; look again under load"
                       : "slower than device and slot could: look at the firmware's link speed, riser and cable";
  } else if (pci.most_width > pci.width || pci.most_gts > pci.speed_gts) {
    out.verdict = Verdict::attention;
    out.advice = fmt::format(
        "the slot offers no more than {}; another slot might",
        pci_name(pci.slot_gts > 0 ? pci.slot_gts : pci.speed_gts, pci.slot_width > 0 ? pci.slot_width : pci.width));
  }
  return out;
}

void judge_rdma(const Facts& facts, std::vector<Finding>& out) {
  if (facts.rdma.empty()) {
    out.push_back({"rdma", "devices", "none", Verdict::ok, {}});
    return;
  }
  if (!facts.software.verbs_device_files)
    out.push_back({"rdma", "device files", "none in /dev/infiniband", Verdict::bad,
                   "no program can open the devices; modprobe ib_uverbs, or start the container with "
                   "--device=/dev/infiniband"});
  const bool any_active = std::any_of(facts.rdma.begin(), facts.rdma.end(), [](const RdmaDevice& device) {
    return std::any_of(device.ports.begin(), device.ports.end(),
                       [](const RdmaPort& port) { return port.state == "ACTIVE"; });
  });
  std::map<std::string, std::map<std::string, std::string>> firmware;  // by board: version, a device that has it
  for (const RdmaDevice& device : facts.rdma) {
    out.push_back({"rdma",
                   device.name,
                   device.software
                       ? "software"
                       : fmt::format("{}, firmware {}{}", device.type.empty() ? "unknown type" : device.type,
                                     device.firmware.empty() ? "not told" : device.firmware,
                                     device.pci.address.empty() ? "" : ", " + device.pci.address),
                   Verdict::ok,
                   {}});
    if (!device.firmware.empty() && !device.board.empty()) firmware[device.board].emplace(device.firmware, device.name);
    if (!device.software) out.push_back(judge_link("rdma", device.name + " link", device.pci, false));
    if (device.ports.empty()) out.push_back({"rdma", device.name + " ports", "none", Verdict::unknown, {}});
    for (const RdmaPort& port : device.ports) {
      out.push_back(judge_port(device, port, any_active));
      if (port.state != "ACTIVE") continue;
      judge_gids(device, port, out);
      judge_mtu(device, port, out);
      const double pci = pci_gbs(device.pci.speed_gts, device.pci.width);
      if (const double rate = port_gbs(port); pci > 0 && rate > 1.02 * pci)
        out.push_back({"rdma", fmt::format("{} port {} against its slot", device.name, port.number),
                       fmt::format("{:.1f} GB/s of the port, {:.1f} of {}", rate, pci,
                                   pci_name(device.pci.speed_gts, device.pci.width)),
                       Verdict::attention, "the slot cannot feed the port; expect the slot's figure"});
    }
  }
  for (const auto& [board, versions] : firmware) {
    if (versions.size() < 2) continue;
    std::string value;
    for (const auto& [version, device] : versions)
      value += fmt::format("{}{} ({})", value.empty() ? "" : ", ", version, device);
    out.push_back({"rdma", "firmware of " + board, value, Verdict::attention,
                   "equal devices behave alike only with equal firmware"});
  }
}

void judge_gpus(const Facts& facts, std::vector<Finding>& out) {
  constexpr int k_nvidia = 0x10de;
  if (facts.gpu.gpus.empty()) {
    out.push_back({"gpu", "devices", "none", Verdict::ok, {}});
    return;
  }
  bool nvidia = false;
  for (const Gpu& gpu : facts.gpu.gpus) {
    nvidia |= gpu.pci.vendor == k_nvidia;
    const std::string name = "GPU " + gpu.pci.address;
    const bool bound = !gpu.pci.driver.empty();
    out.push_back({"gpu", name, fmt::format("{}, {}", gpu.model, bound ? "driver " + gpu.pci.driver : "no driver"),
                   bound ? Verdict::ok : Verdict::attention, bound ? "" : "install or load its driver"});
    if (gpu.pci.width > 0 && gpu.pci.vendor == k_nvidia)
      out.push_back(judge_link("gpu", name + " link", gpu.pci, true));
    judge_nearest(facts, gpu, out);
  }
  if (!nvidia) return;
  if (!facts.gpu.driver_version.empty())
    out.push_back({"gpu",
                   "NVIDIA driver",
                   facts.gpu.driver_version + (facts.gpu.open_module ? ", open modules" : ""),
                   Verdict::ok,
                   {}});
  for (const RdmaDevice& device : facts.rdma)
    if (!device.software) out.push_back(judge_gpu_direct(facts, device));
}

}  // namespace gradrail::doctor

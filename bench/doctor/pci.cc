#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "bench/doctor/readers.h"

namespace gradrail::doctor {

namespace {

// "0000:3b:00.0", "10000:e1:00.0"
bool is_address(std::string_view name) {
  const auto hex = [](std::string_view part) {
    return !part.empty() && part.find_first_not_of("0123456789abcdefABCDEF") == part.npos;
  };
  const auto first = name.find(':');
  const auto second = first == name.npos ? name.npos : name.find(':', first + 1);
  const auto dot = second == name.npos ? name.npos : name.find('.', second + 1);
  return dot != name.npos && hex(name.substr(0, first)) && hex(name.substr(first + 1, second - first - 1)) &&
         hex(name.substr(second + 1, dot - second - 1)) && hex(name.substr(dot + 1));
}

// "16.0 GT/s PCIe", "8 GT/s"; "Unknown" is 0, and so is what no generation has.
double gts(const std::string& text) {
  double value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return std::isfinite(value) && value >= 2.5 && value <= 128 ? value : 0;
}

// A device that fell off its bus reads as all ones: width 63, or 255.
int lanes(const std::string& text) {
  const auto value = number_in(text).value_or(0);
  return value >= 1 && value <= 32 ? static_cast<int>(value) : 0;
}

int hex(const std::string& text) {
  std::string_view digits = text;
  if (digits.starts_with("0x")) digits.remove_prefix(2);
  int value = 0;
  const auto [end, wrong] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
  return wrong == std::errc() && end == digits.data() + digits.size() ? value : 0;
}

}  // namespace

PciDevice read_pci(const Files& files, std::string_view path) {
  PciDevice out;
  const std::string real = files.real(path);
  std::vector<std::pair<std::string, std::string>> steps;  // name and path of everything on the way that is of PCI
  for (std::size_t begin = 0; begin < real.size();) {
    const auto end = std::min(real.find('/', begin), real.size());
    const std::string name = real.substr(begin, end - begin);
    if (name.starts_with("pci") || is_address(name)) steps.emplace_back(name, real.substr(0, end));
    begin = end + 1;
  }
  if (steps.empty() || !is_address(steps.back().first)) return out;
  out.address = steps.back().first;
  const std::string at = steps.back().second + "/";
  out.vendor = hex(files.line(at + "vendor"));
  out.device = hex(files.line(at + "device"));
  out.device_class = hex(files.line(at + "class"));
  const std::string driver = files.real(at + "driver");
  out.driver = driver.substr(driver.rfind('/') + 1);
  out.speed_gts = gts(files.line(at + "current_link_speed"));
  out.width = lanes(files.line(at + "current_link_width"));
  out.most_gts = gts(files.line(at + "max_link_speed"));
  out.most_width = lanes(files.line(at + "max_link_width"));
  const auto node = number_in(files.line(at + "numa_node")).value_or(-1);
  out.numa_node = node >= 0 && node < 4096 ? static_cast<int>(node) : -1;
  for (std::size_t i = 0; i + 1 < steps.size(); ++i) out.above.push_back(steps[i].first);
  if (steps.size() >= 2 && is_address(steps[steps.size() - 2].first)) {
    const std::string port = steps[steps.size() - 2].second + "/";
    out.slot_gts = gts(files.line(port + "max_link_speed"));
    out.slot_width = lanes(files.line(port + "max_link_width"));
  }
  return out;
}

Distance distance(const PciDevice& a, const PciDevice& b) {
  if (a.address.empty() || b.address.empty() || a.above.empty() || b.above.empty()) return Distance::unknown;
  std::size_t shared = 0;
  while (shared < a.above.size() && shared < b.above.size() && a.above[shared] == b.above[shared]) ++shared;
  // above[0] is the root complex and above[1] a root port: a switch below it is what two devices can share.
  if (shared >= 2) {
    const std::size_t apart = a.above.size() - shared + b.above.size() - shared;
    return apart <= 2 ? Distance::one_switch : Distance::switches;
  }
  if (shared == 1) return Distance::host_bridge;
  if (a.numa_node >= 0 && b.numa_node >= 0) return a.numa_node == b.numa_node ? Distance::node : Distance::system;
  return Distance::unknown;
}

std::string_view to_string(Distance distance) {
  switch (distance) {
    case Distance::one_switch: return "PIX";
    case Distance::switches: return "PXB";
    case Distance::host_bridge: return "PHB";
    case Distance::node: return "NODE";
    case Distance::system: return "SYS";
    case Distance::unknown: break;
  }
  return "?";
}

}  // namespace gradrail::doctor

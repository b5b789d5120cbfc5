#include "bench/doctor/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "bench/doctor/gpu_direct.h"

namespace gradrail::doctor {

namespace {

using Json = nlohmann::ordered_json;

// Text from files: no control characters reach a terminal.
std::string shown(const std::string& text) {
  std::string out = text;
  for (char& c : out)
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  return out;
}

std::string_view colour_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::ok: return "\033[32m";
    case Verdict::attention: return "\033[33m";
    case Verdict::bad: return "\033[31m";
    case Verdict::unknown: break;
  }
  return "\033[2m";
}

// Of what the answer reads "as" says, in the order in which subjects first appear.
std::vector<std::string> subjects_of(std::span<const Finding> findings) {
  std::vector<std::string> out;
  for (const Finding& finding : findings)
    if (std::find(out.begin(), out.end(), finding.subject) == out.end()) out.push_back(finding.subject);
  return out;
}

Json pci_json(const PciDevice& pci) {
  if (pci.address.empty()) return nullptr;
  return {{"address", pci.address},       {"gts", pci.speed_gts},         {"width", pci.width},
          {"most_gts", pci.most_gts},     {"most_width", pci.most_width}, {"slot_gts", pci.slot_gts},
          {"slot_width", pci.slot_width}, {"numa_node", pci.numa_node}};
}

Json rdma_json(const RdmaDevice& device) {
  Json ports = Json::array();
  for (const RdmaPort& port : device.ports) {
    Json gids = Json::array();
    for (const Gid& gid : port.gids)
      gids.push_back({{"index", gid.index}, {"gid", gid.value}, {"type", gid.type}, {"netdev", gid.netdev}});
    ports.push_back({{"port", port.number},
                     {"state", port.state},
                     {"link_layer", port.link_layer},
                     {"rate", port.rate},
                     {"lid", port.lid},
                     {"netdev_mtu", port.netdev_mtu},
                     {"gids", std::move(gids)}});
  }
  return {{"name", device.name},      {"type", device.type},         {"firmware", device.firmware},
          {"board", device.board},    {"software", device.software}, {"pci", pci_json(device.pci)},
          {"ports", std::move(ports)}};
}

}  // namespace

Diagnosis diagnose(Facts facts) {
  Diagnosis out{std::move(facts), {}, {}};
  out.findings = judge(out.facts);
  out.expected = expected_paths(out.facts);
  return out;
}

std::string to_text(const Diagnosis& diagnosis, bool colour) {
  std::string out;
  std::size_t width = 0;
  for (const Finding& finding : diagnosis.findings) width = std::max(width, finding.name.size());
  std::array<int, 4> count{};
  for (const std::string& subject : subjects_of(diagnosis.findings)) {
    out += subject + "\n";
    for (const Finding& finding : diagnosis.findings) {
      if (finding.subject != subject) continue;
      ++count[static_cast<std::size_t>(finding.verdict)];
      out +=
          fmt::format("  {}{:<9}{}  {:<{}}  {}\n", colour ? colour_of(finding.verdict) : "", to_string(finding.verdict),
                      colour ? "\033[0m" : "", shown(finding.name), width, shown(finding.value));
      if (!finding.advice.empty()) out += fmt::format("  {:<9}  {:<{}}  -> {}\n", "", "", width, shown(finding.advice));
    }
  }
  if (!diagnosis.expected.empty()) {
    out += "expected at best, one way\n";
    for (const Expected& path : diagnosis.expected)
      out +=
          fmt::format("  {:<9}  {:<{}}  {:.2f} GB/s: {}\n", "", shown(path.path), width, path.gbs, shown(path.limit));
  }
  out += fmt::format("{} ok, {} attention, {} bad, {} unknown\n", count[0], count[1], count[2], count[3]);
  return out;
}

std::string to_json(const Diagnosis& diagnosis) {
  const Facts& facts = diagnosis.facts;
  Json findings = Json::array();
  for (const Finding& finding : diagnosis.findings)
    findings.push_back({{"subject", finding.subject},
                        {"name", finding.name},
                        {"value", finding.value},
                        {"verdict", to_string(finding.verdict)},
                        {"advice", finding.advice}});
  Json expected = Json::array();
  for (const Expected& path : diagnosis.expected)
    expected.push_back({{"path", path.path}, {"gbs", path.gbs}, {"limit", path.limit}});
  Json rdma = Json::array();
  for (const RdmaDevice& device : facts.rdma) rdma.push_back(rdma_json(device));
  Json gpus = Json::array();
  for (const Gpu& gpu : facts.gpu.gpus) {
    Json near = Json::object(), by = Json::object();
    for (const RdmaDevice& device : facts.rdma) {
      if (device.software) continue;
      near[device.name] = to_string(distance(gpu.pci, device.pci));
      if (const auto path = expected_gpu_path(facts, device)) by[device.name] = to_text(*path);
    }
    gpus.push_back({{"model", gpu.model},
                    {"driver", gpu.pci.driver},
                    {"pci", pci_json(gpu.pci)},
                    {"distance", std::move(near)},
                    {"memory_path", std::move(by)}});
  }
  Json libraries = Json::object();
  for (const Library& library : facts.software.libraries) libraries[library.name] = library.version;
  const Json out = {{"kind", "doctor"},
                    {"schema", k_record_schema},
                    {"hostname", facts.machine.hostname},
                    {"findings", std::move(findings)},
                    {"expected", std::move(expected)},
                    {"rdma", std::move(rdma)},
                    {"gpus", std::move(gpus)},
                    {"libraries", std::move(libraries)}};
  return out.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace gradrail::doctor

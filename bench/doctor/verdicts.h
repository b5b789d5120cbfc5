// Facts judged: every finding is one line that a person can act on. Pure. What is absent is no fault: a machine without
// RDMA devices or GPUs has no findings of theirs but the one that says so.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "bench/doctor/facts.h"

namespace gradrail::doctor {

enum class Verdict : std::uint8_t { ok, attention, bad, unknown };
[[nodiscard]] std::string_view to_string(Verdict verdict);

struct Finding {
  std::string subject;  // "cpu", "memory", "rdma", "gpu", "network", "software", "limits"
  std::string name;     // "governor"
  std::string value;    // "powersave"
  Verdict verdict = Verdict::ok;
  std::string advice;  // what to do; empty where that is nothing
};

[[nodiscard]] std::vector<Finding> judge(const Facts& facts);

// By subject (verdicts.cc, verdicts_devices.cc).
void judge_host(const Facts& facts, std::vector<Finding>& out);
void judge_rdma(const Facts& facts, std::vector<Finding>& out);
void judge_gpus(const Facts& facts, std::vector<Finding>& out);
// Whether a device has the PCI Express link that it and its slot could have. `rests`: it may slow down while idle.
[[nodiscard]] Finding judge_link(std::string subject, std::string name, const PciDevice& pci, bool rests);

}  // namespace gradrail::doctor

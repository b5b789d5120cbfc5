// Doctor's answer, for people and for programs. Pure.
#pragma once

#include <span>
#include <string>

#include "bench/doctor/expected.h"
#include "bench/doctor/verdicts.h"

namespace gradrail::doctor {

struct Diagnosis {
  Facts facts;
  std::vector<Finding> findings;
  std::vector<Expected> expected;
};
[[nodiscard]] Diagnosis diagnose(Facts facts);

[[nodiscard]] std::string to_text(const Diagnosis& diagnosis, bool colour);
// One line: a record of kind "doctor" (results/schema.json).
[[nodiscard]] std::string to_json(const Diagnosis& diagnosis);

}  // namespace gradrail::doctor

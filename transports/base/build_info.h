// What this binary was built from; goes into every record, and is compared between the ranks of a job.
#pragma once

#include <string>

namespace gradrail {

struct BuildInfo {
  std::string version;
  std::string commit;  // 12 hex digits, with "-modified" if the tree had changes; "unknown" outside git
  std::string type;    // "Release"
  std::string compiler;
  std::string flags;
  std::string sanitize;  // empty if none
};

[[nodiscard]] BuildInfo build_info();  // generated at build time

}  // namespace gradrail

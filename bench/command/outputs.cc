#include "bench/command/outputs.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <set>

#include "results/output_file.h"

namespace gradrail {

Result<void> can_write(std::span<const Output> outputs) {
  std::set<std::string_view> taken;
  for (const Output& output : outputs) {
    if (output.path->empty()) continue;
    GRADRAIL_TRY(OutputFile::can_create(*output.path));
    if (!taken.insert(*output.path).second)
      return fail(Code::bad_usage, fmt::format("two outputs cannot go to one file, '{}'", *output.path));
  }
  return {};
}

Result<void> say(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
  return fail_errno("writing to standard output", errno);
}

}  // namespace gradrail

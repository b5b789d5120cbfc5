#include "bench/command/outputs.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <set>

#include "results/output_file.h"

namespace gradrail {

Result<void> can_write(std::span<const Output> outputs) {
  std::set<std::string_view> taken;
  for (const Output& output : outputs) {
    if (output.path->empty()) continue;
    if (*output.path == OutputFile::k_standard && !output.records)
      return fail(
          Code::bad_usage,
          fmt::format("{} needs the name of a file; only records may go to standard output, '-'", output.option));
    GRADRAIL_TRY(OutputFile::can_create(*output.path));
    if (!taken.insert(*output.path).second)
      return fail(Code::bad_usage, fmt::format("two outputs cannot go to one file, '{}'", *output.path));
  }
  return {};
}

Result<void> give_way(std::span<const Output> outputs) {
  const auto standard = [](const Output& output) { return *output.path == OutputFile::k_standard; };
  if (std::none_of(outputs.begin(), outputs.end(), standard)) return {};
  if (std::fflush(stdout) == 0 && ::dup2(STDERR_FILENO, STDOUT_FILENO) >= 0) return {};
  return fail_errno("sending the table to standard error", errno);
}

Result<void> say(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return {};
  return fail_errno("writing to standard output", errno);
}

}  // namespace gradrail

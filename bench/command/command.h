// A sub-command of `gradrail`: one pair of files, which declares its options on a CLI::App and then runs. The options
// live as long as `run` does. `main` parses, calls `run` of the sub-command that was named, and exits with what it
// returns: 0, 1 if something failed, 2 if it was used wrongly. Errors are one sentence on standard error.
#pragma once

#include <cstdio>
#include <functional>

#include "transports/base/result.h"

namespace CLI {
class App;
}

namespace gradrail {

struct Command {
  CLI::App* app = nullptr;  // owned by its parent
  std::function<int()> run;
};

// The exit code that belongs to an error; bad usage is 2.
[[nodiscard]] inline int exit_code(const Error& error) {
  return error.code == Code::bad_usage || error.code == Code::unsupported ? 2 : 1;
}
// Says what is wrong on standard error, and returns the exit code.
inline int report(const Error& error) {
  std::fprintf(stderr, "gradrail: %s\n", error.message.c_str());
  return exit_code(error);
}

}  // namespace gradrail

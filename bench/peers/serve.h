// A rank of another library as a process: it connects to the driver's control socket, opens its library, and does what
// it is told until it is told to end. Between orders it sleeps in read(), so that it costs whoever is measured next
// nothing.
//
// When the control socket closes, the process ends at once, wherever it is: a driver that was killed leaves none
// behind. The rules of measuring are those of bench/measure/block.h.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "bench/peers/library.h"

namespace gradrail {

struct RunnerArguments {
  std::string control;    // path of the driver's socket
  std::string variant;    // which of the library's ways, where it has several; empty: its own choice
  std::string folder;     // where ranks that have no launcher of their own may leave addresses
  std::string interface;  // of the network that the ranks' hosts share; empty: they are on one host
  int rank = -1;          // -1: the library's launcher says it
  int ranks = 0;
  int core = -1;  // to run on; -1: the launcher has bound the rank, or nobody
};

using OpenLibrary = std::function<Result<std::unique_ptr<PeerLibrary>>(const RunnerArguments&)>;

// Errors: bad_usage.
[[nodiscard]] Result<RunnerArguments> parse_runner_arguments(int argc, char** argv);

// The main of every runner; returns the exit code. `name` is for what it says on standard error.
[[nodiscard]] int serve(const char* name, int argc, char** argv, const OpenLibrary& open);

}  // namespace gradrail

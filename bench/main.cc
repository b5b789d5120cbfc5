// The `gradrail` command: finds the sub-command, and turns whatever goes wrong into one sentence and an exit code.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "bench/command/bench.h"
#include "bench/command/command.h"
#include "bench/command/doctor.h"
#include "bench/command/p2p.h"
#include "bench/command/plan.h"
#include "bench/command/tune.h"
#include "transports/base/build_info.h"

namespace {

std::string names(const std::vector<gradrail::Command>& commands) {
  std::string all;
  for (const gradrail::Command& command : commands) all += (all.empty() ? "" : ", ") + command.app->get_name();
  return all;
}

int run(int argc, char** argv) {
  const std::vector<std::string> arguments(argv, argv + argc);
  CLI::App app("Benchmarks and tunes the communication of distributed training.", "gradrail");
  app.require_subcommand(1);
  const gradrail::BuildInfo build = gradrail::build_info();
  app.set_version_flag("--version", fmt::format("gradrail {} ({}, {})", build.version, build.commit, build.type));
  const std::vector<gradrail::Command> commands = {
      gradrail::add_bench_command(app, arguments), gradrail::add_p2p_command(app, arguments),
      gradrail::add_doctor_command(app),           gradrail::add_plan_command(app),
      gradrail::add_tune_command(app, arguments),
  };
  if (arguments.size() < 2) {
    std::fprintf(stderr, "gradrail: say what to do: %s; see gradrail --help\n", names(commands).c_str());
    return 2;
  }
  if (const std::string& word = arguments[1];
      !word.starts_with('-') && std::none_of(commands.begin(), commands.end(), [&](const gradrail::Command& command) {
        return command.app->get_name() == word;
      })) {
    std::fprintf(stderr, "gradrail: there is no command '%s'; known are %s\n", word.c_str(), names(commands).c_str());
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    return app.exit(done);
  } catch (const CLI::ParseError& error) {
    std::fprintf(stderr, "gradrail: %s; see gradrail --help\n", error.what());
    return 2;
  }
  for (const gradrail::Command& command : commands)
    if (command.app->parsed()) return command.run();
  return 2;
}

// A file opened later must not become a standard stream that was closed when we were started.
void open_standard_streams() {
  for (int fd = ::open("/dev/null", O_RDWR); fd >= 0; fd = ::open("/dev/null", O_RDWR)) {
    if (fd <= STDERR_FILENO) continue;
    ::close(fd);
    return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  open_standard_streams();
  std::signal(SIGPIPE, SIG_IGN);  // a reader that went away is an error of writing, with a sentence
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {  // a library's; nothing of ours throws
    std::fprintf(stderr, "gradrail: %s\n", error.what());
    return 1;
  }
}

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

// What was typed and is wrong, by the option that has it wrong: one thing at a time.
std::string said(const CLI::App& app, const CLI::ParseError& error) {
  const auto parsed = app.get_subcommands();
  const CLI::App& command = parsed.empty() ? app : *parsed.front();
  const std::string name = parsed.empty() ? "gradrail" : "gradrail " + command.get_name();
  const auto is = [&](CLI::ExitCodes code) { return error.get_exit_code() == static_cast<int>(code); };
  if (const auto unknown = command.remaining(); is(CLI::ExitCodes::ExtrasError) && !unknown.empty())
    return fmt::format("{} knows no '{}'; see {} --help", name, unknown.front(), name);
  for (const CLI::Option* option : command.get_options())
    if (option->get_items_expected_max() == 1 && option->count() > 1)
      return fmt::format("{} is given {} times; give it once", option->get_name(), option->count());
  if (const std::string text = error.what(); is(CLI::ExitCodes::ArgumentMismatch) && text.ends_with(" missing"))
    return fmt::format("{} needs a value; see {} --help", text.substr(0, text.find(':')), name);
  return fmt::format("{}{}; see {} --help", error.what(),
                     is(CLI::ExitCodes::ConversionError) ? ", which is no number" : "", name);
}

// The option whose value is an empty text, as a script's variable is that was never set: a run must not throw its
// results away for it. Where a value may be left out, it may be empty too.
const CLI::Option* empty_option(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options())
    if (option->count() > 0 && option->get_expected_min() > 0 &&
        std::any_of(option->results().begin(), option->results().end(), [](const auto& text) { return text.empty(); }))
      return option;
  return nullptr;
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
    std::fprintf(stderr, "gradrail: %s\n", said(app, error).c_str());
    return 2;
  }
  for (const gradrail::Command& command : commands) {
    if (!command.app->parsed()) continue;
    if (const CLI::Option* option = empty_option(*command.app); option != nullptr) {
      std::fprintf(stderr, "gradrail: %s is given an empty text; give it a value, or leave it out\n",
                   option->get_name().c_str());
      return 2;
    }
    return command.run();
  }
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

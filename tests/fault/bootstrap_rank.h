// A rank, and a launcher, to be started as real processes by tests of the bootstrap: the test program starts itself
// again with GRADRAIL_TEST_ROLE set, and then is that, before main() and GoogleTest. Included by one source of a
// program.
//
// Roles: "launch" (runs launch() with GRADRAIL_TEST_RANKS ranks, which get GRADRAIL_TEST_SCENE as their role) and the
// scenes of act_as_rank() below. GRADRAIL_TEST_VICTIM is the rank to which something happens.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "transports/base/fd.h"
#include "transports/bootstrap.h"
#include "transports/bootstrap/launcher.h"
#include "transports/socket.h"

namespace gradrail::test {

inline std::string variable(const char* name, const char* otherwise = "") {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}
inline double number(const char* name, double otherwise) {
  const auto text = variable(name);
  return text.empty() ? otherwise : std::strtod(text.c_str(), nullptr);
}

inline void say(const std::string& line) {
  const auto whole = line + "\n";
  [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, whole.data(), whole.size());
}

inline Bytes bytes_of(std::string_view text) {
  const auto raw = std::as_bytes(std::span(text));
  return {raw.begin(), raw.end()};
}

// What happens to the victim in the middle of its job.
inline void suffer(const std::string& scene, Bootstrap& job) {
  if (scene == "kill") ::raise(SIGKILL);
  if (scene == "abort") ::signal(SIGABRT, SIG_DFL), ::raise(SIGABRT);
  if (scene == "stop") ::raise(SIGSTOP);
  if (scene == "exit3") _exit(3);
  if (scene == "leave") _exit(0);
  if (scene == "give_up") {
    job.give_up({Code::exhausted, "the scratch memory is used up", Error::k_no_peer, 0});
    _exit(1);
  }
  if (scene == "brief_stop") {
    const pid_t self = getpid();
    if (fork() == 0) {
      ::usleep(400'000);
      ::kill(self, SIGCONT);
      _exit(0);
    }
    ::raise(SIGSTOP);
  }
}

// Every rank's name at every rank, over and over; broadcasts in between.
inline Result<void> converse(Bootstrap& job, const std::string& scene) {
  const int victim = static_cast<int>(number("GRADRAIL_TEST_VICTIM", -1));
  const Seconds patience(number("GRADRAIL_TEST_PATIENCE", 5));
  for (int round = 0; round < 40; ++round) {
    if (round == 20 && job.rank() == victim) suffer(scene, job);
    const auto mine = bytes_of(
        fmt::format("{}/{}/{}", job.rank(), round, std::string(static_cast<std::size_t>(job.rank()) * 1000, 'x')));
    GRADRAIL_ASSIGN(const auto all, job.all_gather(mine, Deadline::after(patience)));
    for (int rank = 0; rank < job.ranks(); ++rank) {
      const auto expected =
          bytes_of(fmt::format("{}/{}/{}", rank, round, std::string(static_cast<std::size_t>(rank) * 1000, 'x')));
      if (all[static_cast<std::size_t>(rank)] != expected)
        return fail(Code::malformed, "wrong bytes were gathered", rank);
    }
    const auto news = bytes_of(fmt::format("round {}", round));
    GRADRAIL_ASSIGN(const auto heard,
                    job.broadcast(job.rank() == 0 ? std::span<const std::byte>(news) : std::span<const std::byte>(),
                                  Deadline::after(patience)));
    if (heard != news) return fail(Code::malformed, "wrong bytes were broadcast", 0);
  }
  return job.barrier(Deadline::after(patience));
}

// Scenes: "converse", what suffer() knows, "sleep" (joins, then sits there), "absent" (the victim never joins), "mixed"
// (the victim is another build), "greedy" (the victim expects one rank more).
inline int act_as_rank(const std::string& scene) {
  const auto numbered = variable("GRADRAIL_LAUNCH_RANK", variable("PMIX_RANK", variable("RANK", "0").c_str()).c_str());
  const int victim = static_cast<int>(number("GRADRAIL_TEST_VICTIM", -1));
  const bool is_victim = std::atoi(numbered.c_str()) == victim;
  say(fmt::format("pid {}", getpid()));
  if (scene == "absent" && is_victim) ::sleep(60);
  JoinOptions options;
  options.expected_ranks = static_cast<int>(number("GRADRAIL_TEST_EXPECTED", 0));
  options.build_id = scene == "mixed" && is_victim ? "build-B" : "build-A";
  options.wait = Seconds(number("GRADRAIL_TEST_WAIT", 10));
  auto joined = join(options);
  if (!joined) return joined.error().code == Code::bad_usage ? 2 : 1;
  auto& job = **joined;
  say(fmt::format("joined {} of {} by {} listening on {} pid {}", job.rank(), job.ranks(), job.origin(),
                  job.members()[static_cast<std::size_t>(job.rank())].listen_host, job.members().back().pid));
  if (std::getenv("GRADRAIL_LAUNCH_RANK") != nullptr) return 5;
  if (scene == "sleep") ::sleep(60);
  if (auto done = converse(job, scene); !done) {
    say(fmt::format("rank {} got {} peer {}: {}", job.rank(), to_string(done.error().code), done.error().peer,
                    done.error().message));
    job.give_up(done.error());
    return 1;
  }
  return 0;
}

inline int open_descriptors() {
  int count = 0;
  DIR* folder = ::opendir("/proc/self/fd");
  while (folder != nullptr && ::readdir(folder) != nullptr) ++count;
  if (folder != nullptr) ::closedir(folder);
  return count;
}

inline int act_as_launcher() {
  LaunchOptions options;
  options.ranks = static_cast<int>(number("GRADRAIL_TEST_RANKS", 1));
  options.argv = {"gradrail-test-rank"};
  options.program = variable("GRADRAIL_TEST_PROGRAM", "/proc/self/exe");
  options.port = static_cast<int>(number("GRADRAIL_TEST_PORT", 0));
  options.limit = Seconds(number("GRADRAIL_TEST_LIMIT", 0));
  options.grace = Seconds(number("GRADRAIL_TEST_GRACE", 1));
  ::setenv("GRADRAIL_TEST_ROLE", variable("GRADRAIL_TEST_SCENE").c_str(), 1);
  const int before = open_descriptors();
  const auto code = launch(options);
  if (open_descriptors() != before) {
    say("the launcher left descriptors open");
    return 99;
  }
  if (::waitpid(-1, nullptr, WNOHANG) != -1) {
    say("the launcher left children");
    return 98;
  }
  if (code) return *code;
  std::fprintf(stderr, "gradrail: %s\n", code.error().message.c_str());
  return code.error().code == Code::bad_usage ? 2 : 1;
}

inline bool play_role() {
  const auto role = variable("GRADRAIL_TEST_ROLE");
  if (role.empty()) return false;
  ::alarm(90);  // whatever happens, no process of a test stays
  // Ends by exit handlers and not by _exit(), so that a sanitizer can speak.
  std::exit(role == "launch" ? act_as_launcher() : act_as_rank(role));
}
inline const bool k_played = play_role();

// One started process, its output in memory; killed with its whole group when the object goes.
class Process {
 public:
  using Settings = std::vector<std::pair<std::string, std::string>>;

  Process(std::vector<std::string> argv, const Settings& settings) : out_(shared_memory()), err_(shared_memory()) {
    std::vector<char*> pointers;
    for (auto& one : argv) pointers.push_back(one.data());
    pointers.push_back(nullptr);
    pid_ = fork();
    if (pid_ != 0) return;
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::dup2(out_.get(), STDOUT_FILENO);
    ::dup2(err_.get(), STDERR_FILENO);
    for (const auto& [name, value] : settings) ::setenv(name.c_str(), value.c_str(), 1);
    ::execvp(pointers[0], pointers.data());
    ::_exit(127);
  }
  Process(Process&& other) noexcept
      : out_(std::move(other.out_)),
        err_(std::move(other.err_)),
        pid_(std::exchange(other.pid_, 0)),
        status_(other.status_),
        ended_(other.ended_) {}
  Process& operator=(Process&&) = delete;
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(-pid_, SIGKILL);
    if (!ended_) ::waitpid(pid_, nullptr, 0);
  }

  // Exit status, or 128 and the signal; -1 if it has not ended in time.
  int wait(Seconds limit) {
    const auto deadline = Deadline::after(limit);
    while (!ended_) {
      if (::waitpid(pid_, &status_, WNOHANG) == pid_) ended_ = true;
      if (ended_) break;
      if (deadline.passed()) return -1;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return WIFEXITED(status_) ? WEXITSTATUS(status_) : 128 + WTERMSIG(status_);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] std::string out() const { return text(out_); }
  [[nodiscard]] std::string err() const { return text(err_); }
  // Lines of standard output that begin so, without the beginning.
  [[nodiscard]] std::vector<std::string> lines(std::string_view beginning) const {
    std::vector<std::string> found;
    const auto all = out();
    for (std::size_t at = 0; at < all.size();) {
      const auto end = std::min(all.find('\n', at), all.size());
      const auto line = std::string_view(all).substr(at, end - at);
      if (line.starts_with(beginning)) found.emplace_back(line.substr(beginning.size()));
      at = end + 1;
    }
    return found;
  }

 private:
  // Several processes write to it: only appending keeps their lines whole.
  static Fd shared_memory() {
    Fd fd(memfd_create("output", MFD_CLOEXEC));
    ::fcntl(fd.get(), F_SETFL, O_APPEND);
    return fd;
  }
  static std::string text(const Fd& fd) {
    struct stat about {};
    ::fstat(fd.get(), &about);
    std::string all(static_cast<std::size_t>(about.st_size), '\0');
    const auto got = ::pread(fd.get(), all.data(), all.size(), 0);
    all.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return all;
  }

  Fd out_;
  Fd err_;
  pid_t pid_ = 0;
  int status_ = 0;
  bool ended_ = false;
};

// Ended, if not yet buried by its parent.
inline bool is_gone(long pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string line;
  if (!std::getline(file, line)) return true;
  const auto after_name = line.rfind(')');
  return after_name != line.npos && line.size() > after_name + 2 &&
         (line[after_name + 2] == 'Z' || line[after_name + 2] == 'X');
}
inline bool all_gone(const std::vector<std::string>& pids, Seconds limit) {
  const auto deadline = Deadline::after(limit);
  for (const auto& pid : pids) {
    while (!is_gone(std::atol(pid.c_str()))) {
      if (deadline.passed()) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }
  return true;
}

inline Process launch_ranks(int ranks, const std::string& scene, Process::Settings settings = {}) {
  settings.insert(settings.end(), {{"GRADRAIL_TEST_ROLE", "launch"},
                                   {"GRADRAIL_TEST_SCENE", scene},
                                   {"GRADRAIL_TEST_RANKS", std::to_string(ranks)}});
  return Process({"/proc/self/exe"}, settings);
}

// The first of `count` free ports in a row. Below the range that the system gives to outgoing connections, of this test
// or any other, so that none of them takes one before it is used.
inline int free_port(int count = 1) {
  constexpr int k_first = 15000;
  constexpr int k_range = 15000;
  static int tried = static_cast<int>(::getpid()) * 31;
  for (int attempt = 0; attempt < k_range; ++attempt) {
    const int port = k_first + ++tried % k_range;
    bool free = true;
    for (int i = 0; i < count && free; ++i) free = listen_tcp("127.0.0.1", port + i).has_value();
    if (free) return port;
  }
  return 0;
}

}  // namespace gradrail::test

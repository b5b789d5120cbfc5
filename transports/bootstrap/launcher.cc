#include "transports/bootstrap/launcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>

#include "transports/base/fd.h"
#include "transports/bootstrap/capacity.h"
#include "transports/bootstrap/launch_variables.h"
#include "transports/bootstrap/report.h"
#include "transports/bootstrap/verdict.h"
#include "transports/secret.h"
#include "transports/socket.h"

namespace gradrail {
namespace {

// A dead rank wakes the launcher at once; this is how often it looks for stopped ones and passed limits.
constexpr Seconds k_tick{0.2};

// The signals the launcher takes while it runs, and SIGCHLD at its default so that children can be waited for. What the
// process ignores (nohup, a background job of a script) stays ignored.
class Signals {
 public:
  [[nodiscard]] static Result<Signals> take() {
    Signals taken;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP}) {
      struct sigaction now {};
      if (sigaction(signal, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&set, signal);
    }
    struct sigaction by_default {};
    by_default.sa_handler = SIG_DFL;
    if (sigaction(SIGCHLD, &by_default, &taken.child_) != 0 || pthread_sigmask(SIG_BLOCK, &set, &taken.mask_) != 0) {
      return fail_errno("taking signals", errno);
    }
    taken.restore_ = true;
    taken.fd_ = Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!taken.fd_) return fail_errno("taking signals", errno);
    return taken;
  }
  Signals(Signals&& other) noexcept
      : fd_(std::move(other.fd_)),
        mask_(other.mask_),
        child_(other.child_),
        restore_(std::exchange(other.restore_, false)) {}
  Signals& operator=(Signals&&) = delete;
  ~Signals() {
    if (!restore_) return;
    sigaction(SIGCHLD, &child_, nullptr);
    pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
  }

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] const sigset_t& mask_before() const { return mask_; }
  // The next signal that came, SIGCHLD left out.
  [[nodiscard]] std::optional<int> next() const {
    signalfd_siginfo info;
    while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
      if (info.ssi_signo != SIGCHLD) return static_cast<int>(info.ssi_signo);
    }
    return std::nullopt;
  }

 private:
  Signals() = default;
  Fd fd_;
  sigset_t mask_{};
  struct sigaction child_ {};
  bool restore_ = false;
};

// argv or environ of a rank, made before fork: nothing may be allocated between fork and exec.
class Strings {
 public:
  explicit Strings(std::vector<std::string> strings) : strings_(std::move(strings)) {
    for (auto& one : strings_) pointers_.push_back(one.data());
    pointers_.push_back(nullptr);
  }
  Strings(const Strings&) = delete;
  Strings& operator=(const Strings&) = delete;
  [[nodiscard]] char* const* get() const { return pointers_.data(); }

 private:
  std::vector<std::string> strings_;
  std::vector<char*> pointers_;
};

Result<Fd> secret_file(const Secret& secret) {
  Fd fd(memfd_create("gradrail-secret", MFD_CLOEXEC));
  const auto hex = secret.hex();
  if (!fd || ::write(fd.get(), hex.data(), hex.size()) != static_cast<ssize_t>(hex.size())) {
    return fail_errno("making the file that hands the job's secret to its ranks", errno);
  }
  return fd;
}

// The job while it runs. Ranks that ended stay zombies until the destructor, so that no pid or group that a signal is
// sent to can have become somebody else's.
class Job {
 public:
  Job(const LaunchOptions& options, const Signals& signals) : options_(options), signals_(signals) {}
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;
  ~Job() {
    signal_all(SIGKILL);
    for (const auto& state : states_) {
      while (waitpid(static_cast<pid_t>(state.pid), nullptr, 0) < 0 && errno == EINTR) {
      }
    }
  }

  [[nodiscard]] Result<void> start();
  [[nodiscard]] int watch();

 private:
  using Kind = RankState::Kind;

  [[nodiscard]] Result<pid_t> start_rank(int rank, const Strings& argv, const Strings& environment, int listener,
                                         int secret, int null);
  [[noreturn]] void become_rank(int rank, const Strings& argv, const Strings& environment, int listener, int secret,
                                int null, int exec_failed, pid_t launcher) const;
  void look();
  void read_reports();
  void wait(Seconds at_most);
  void signal_all(int signal) const;
  void suspend();
  void end_all();
  [[nodiscard]] bool all_ended() const { return ended_ == static_cast<int>(states_.size()); }
  [[nodiscard]] bool failed() const {
    return !reports_.empty() || std::any_of(states_.begin(), states_.end(), [](const RankState& s) {
      return s.kind == Kind::killed || (s.kind == Kind::exited && s.status != 0);
    });
  }

  const LaunchOptions& options_;
  const Signals& signals_;
  std::vector<RankState> states_;
  std::vector<Report> reports_;
  Fd report_out_;  // what the ranks write to
  Fd report_in_;
  pid_t group_ = 0;
  int ended_ = 0;
  int interrupted_by_ = 0;
};

// In the child, between fork and exec: async-signal-safe calls only.
void Job::become_rank(int rank, const Strings& argv, const Strings& environment, int listener, int secret, int null,
                      int exec_failed, pid_t launcher) const {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != launcher) _exit(1);  // it died before the line above
  setpgid(0, group_);
  if (rank == 0) fcntl(listener, F_SETFD, 0);
  fcntl(secret, F_SETFD, 0);
  fcntl(report_out_.get(), F_SETFD, 0);
  dup2(null, STDIN_FILENO);
  pthread_sigmask(SIG_SETMASK, &signals_.mask_before(), nullptr);
  execve(options_.program.c_str(), argv.get(), environment.get());
  const int error = errno;
  [[maybe_unused]] const auto said = ::write(exec_failed, &error, sizeof error);
  _exit(127);
}

Result<pid_t> Job::start_rank(int rank, const Strings& argv, const Strings& environment, int listener, int secret,
                              int null) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno("making a pipe", errno);
  const Fd exec_failed_in(ends[0]);
  Fd exec_failed(ends[1]);
  const pid_t launcher = getpid();
  const pid_t pid = fork();
  if (pid < 0) {
    const int error = errno;
    if (error == EAGAIN || error == ENOMEM) {
      return fail(
          Code::exhausted,
          fmt::format("starting rank {} of {}: the machine has no room for another process; ask for fewer ranks", rank,
                      options_.ranks),
          rank, error);
    }
    return fail_errno(fmt::format("starting rank {}", rank), error, rank);
  }
  if (pid == 0) become_rank(rank, argv, environment, listener, secret, null, exec_failed.get(), launcher);
  setpgid(pid, group_ == 0 ? pid : group_);  // both sides do it, so that it is done when either goes on
  exec_failed.reset();
  int error = 0;
  ssize_t got = 0;
  while ((got = ::read(exec_failed_in.get(), &error, sizeof error)) < 0 && errno == EINTR) {
  }
  states_.push_back({Kind::running, 0, pid, 0});
  if (got == static_cast<ssize_t>(sizeof error)) return fail_errno(fmt::format("starting {}", options_.program), error);
  return pid;
}

Result<void> Job::start() {
  GRADRAIL_ASSIGN(const auto secret, Secret::random());
  GRADRAIL_ASSIGN(const auto secret_fd, secret_file(secret));
  GRADRAIL_ASSIGN(const auto listener, listen_tcp("127.0.0.1", options_.port));
  GRADRAIL_ASSIGN(const int port, local_port(listener.get()));
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return fail_errno("opening /dev/null", errno);
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK | O_DIRECT) != 0) return fail_errno("making a pipe", errno);
  report_in_ = Fd(ends[0]);
  report_out_ = Fd(ends[1]);
  fcntl(report_in_.get(), F_SETPIPE_SZ, 1 << 20);  // room for 256 packets; if refused, for 16

  std::vector<std::string> inherited;
  for (char** one = environ; *one != nullptr; ++one) {
    if (!std::string_view(*one).starts_with(launch_variable::k_prefix)) inherited.emplace_back(*one);
  }
  const Strings argv(options_.argv);
  for (int rank = 0; rank < options_.ranks; ++rank) {
    auto variables = inherited;
    const auto set = [&](const char* name, const auto& value) {
      variables.push_back(fmt::format("{}={}", name, value));
    };
    set(launch_variable::k_rank, rank);
    set(launch_variable::k_ranks, options_.ranks);
    set(launch_variable::k_endpoint, fmt::format("127.0.0.1:{}", port));
    set(launch_variable::k_report_fd, report_out_.get());
    set(launch_variable::k_secret_fd, secret_fd.get());
    if (rank == 0) set(launch_variable::k_listen_fd, listener.get());
    const Strings environment(std::move(variables));
    GRADRAIL_ASSIGN(const pid_t pid, start_rank(rank, argv, environment, listener.get(), secret_fd.get(), null.get()));
    if (rank == 0) group_ = pid;
  }
  return {};
}

// What became of each rank. Nothing is reaped (WNOWAIT): a stop shows for as long as it lasts, and not after.
void Job::look() {
  for (auto& state : states_) {
    if (state.kind == Kind::exited || state.kind == Kind::killed) continue;
    siginfo_t info{};
    const int options = WEXITED | WSTOPPED | WNOHANG | WNOWAIT;
    if (waitid(P_PID, static_cast<id_t>(state.pid), &info, options) != 0) continue;
    state.kind = Kind::running;
    if (info.si_pid == 0) continue;
    if (info.si_code == CLD_STOPPED) {
      state.kind = Kind::stopped;
    } else {
      state.kind = info.si_code == CLD_EXITED ? Kind::exited : Kind::killed;
      state.status = info.si_status;
      state.order = ++ended_;
    }
  }
}

void Job::read_reports() {
  std::array<std::byte, 4096> packet;
  for (;;) {
    const auto got = ::read(report_in_.get(), packet.data(), packet.size());
    if (got <= 0) return;
    auto report = decode_report(std::span(packet).first(static_cast<std::size_t>(got)), options_.ranks);
    if (report && reports_.size() < 4 * states_.size()) reports_.push_back(std::move(*report));
  }
}

// Until something happened, or a tick, or less.
void Job::wait(Seconds at_most) {
  std::array<pollfd, 2> entries{{{signals_.fd(), POLLIN, 0}, {report_in_.get(), POLLIN, 0}}};
  ::poll(entries.data(), entries.size(), Deadline::after(std::min(at_most, k_tick)).left_ms());
  while (const auto signal = signals_.next()) {
    if (*signal == SIGTSTP) {
      suspend();
    } else {
      if (interrupted_by_ != 0) signal_all(SIGKILL);  // asked twice
      interrupted_by_ = *signal;
    }
  }
  read_reports();
  look();
}

void Job::signal_all(int signal) const {
  if (group_ > 0) ::kill(-group_, signal);  // also what the ranks themselves have started
  for (const auto& state : states_) {
    if (state.kind != Kind::exited && state.kind != Kind::killed) ::kill(static_cast<pid_t>(state.pid), signal);
  }
}

// Control-Z: the ranks stop with the launcher, and go on with it.
void Job::suspend() {
  signal_all(SIGSTOP);
  ::raise(SIGSTOP);
  signal_all(SIGCONT);
}

void Job::end_all() {
  signal_all(SIGTERM);
  signal_all(SIGCONT);  // a stopped process takes no other signal but SIGKILL
  const auto deadline = Deadline::after(options_.grace);
  while (!all_ended() && !deadline.passed()) wait(deadline.left());
  signal_all(SIGKILL);
}

int Job::watch() {
  std::optional<Deadline> limit;
  if (options_.limit.count() > 0) limit = Deadline::after(options_.limit);
  while (!all_ended() && !failed() && interrupted_by_ == 0 && !(limit && limit->passed())) {
    wait(limit ? limit->left() : k_tick);
  }
  read_reports();

  std::string sentence;
  int exit_code = 0;
  if (interrupted_by_ != 0) {
    sentence = fmt::format("stopped by SIG{}", sigabbrev_np(interrupted_by_));
    exit_code = 128 + interrupted_by_;
  } else if (failed()) {
    const auto settled = Deadline::after(options_.settle);
    while (!all_ended() && !settled.passed() && interrupted_by_ == 0) wait(settled.left());
    auto verdict = decide(states_, reports_);
    sentence = std::move(verdict.sentence);
    exit_code = verdict.exit_code;
  } else if (!all_ended()) {
    sentence = fmt::format("the job was not done within {:g} s", options_.limit.count());
    exit_code = 1;
  } else {
    return 0;
  }
  const char* others = all_ended() ? "" : interrupted_by_ != 0 ? "; all ranks were ended" : "; the others were ended";
  end_all();
  const auto line = fmt::format("gradrail: {}{}\n", sentence, others);
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  return exit_code;
}

}  // namespace

Result<int> launch(const LaunchOptions& options) {
  GRADRAIL_ASSIGN(const auto capacity, read_capacity());
  GRADRAIL_TRY(bearable(options.ranks, capacity));
  if (options.argv.empty()) return fail(Code::bad_usage, "a launch needs at least the program's name");
  GRADRAIL_ASSIGN(const auto signals, Signals::take());
  Job job(options, signals);
  GRADRAIL_TRY(job.start());
  return job.watch();
}

}  // namespace gradrail

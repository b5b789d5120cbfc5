#include "bench/measure/peer_ranks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <sstream>

#include "bench/measure/private_folder.h"
#include "bench/measure/statistics.h"
#include "bench/peers/messages.h"
#include "transports/socket.h"

extern char** environ;

namespace gradrail {

namespace {

constexpr Seconds k_look{0.05};    // how often a starting peer is looked after
constexpr Seconds k_close{3};      // for a library to close by itself
constexpr Seconds k_terminate{1};  // between SIGTERM and SIGKILL

Result<Fd> listen_at(const std::string& path, int backlog) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path)
    return fail(Code::bad_usage, fmt::format("{} is too long a path for a socket; set TMPDIR to a shorter one", path));
  std::memcpy(address.sun_path, path.c_str(), path.size());
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(fd.get(), backlog) != 0)
    return fail_errno(fmt::format("listening at {}", path), errno);
  return fd;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  for (std::string& one : strings) out.push_back(one.data());
  out.push_back(nullptr);
  return out;
}

std::string replaced(std::string text, std::string_view what, const std::string& with) {
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + with.size()))
    text.replace(at, what.size(), with);
  return text;
}

class Running : public PeerRanks {
 public:
  explicit Running(const Start& start) : start_(start) { sockets_.resize(static_cast<std::size_t>(start.ranks)); }
  ~Running() override { end(); }

  Result<void> begin(Deadline deadline);

  [[nodiscard]] const std::string& library() const override { return start_.library; }
  [[nodiscard]] const std::string& name() const override { return start_.name; }
  [[nodiscard]] const std::string& version() const override { return version_; }

  Result<Trial> prepare(const Call& call, Cache cache, int warmup, bool check, std::uint64_t seed,
                        Deadline deadline) override {
    PeerRequest request;
    request.order = PeerOrder::prepare;
    request.call = call;
    request.cache = cache;
    request.warmup = warmup;
    request.check = check;
    request.seed = seed;
    GRADRAIL_ASSIGN(const auto replies, ask(request, deadline));
    Trial trial;
    for (const PeerReply& reply : replies) {
      trial.wrong += reply.wrong;
      trial.operation_us = std::max(trial.operation_us, reply.operation_us);
      trial.barrier_us = std::max(trial.barrier_us, reply.barrier_us);
    }
    return trial;
  }

  Result<std::vector<double>> measure(int samples, int batch, Deadline deadline) override {
    PeerRequest request;
    request.order = PeerOrder::measure;
    request.samples = samples;
    request.batch = batch;
    GRADRAIL_ASSIGN(auto replies, ask(request, deadline));
    std::vector<std::vector<double>> by_rank;
    for (PeerReply& reply : replies) by_rank.push_back(std::move(reply.samples_us));
    return slowest_rank(by_rank);
  }

  void release(Deadline deadline) override {
    PeerRequest request;
    request.order = PeerOrder::release;
    (void)ask(request, deadline);
  }

 private:
  struct Seat {
    Fd fd;
    Fd process;  // a pidfd, so that a signal cannot reach somebody else
  };

  Result<pid_t> spawn(std::vector<std::string> argv, std::vector<std::string>& environment, int null);
  Result<void> accept_all(int listener, Deadline deadline);
  Result<void> take_hello(Seat rank, Deadline deadline);
  Result<std::vector<PeerReply>> ask(const PeerRequest& request, Deadline deadline);
  tl::unexpected<Error> broken(Error why);
  [[nodiscard]] std::optional<std::string> ended_child();
  [[nodiscard]] std::string last_words() const;
  bool reap(Deadline deadline);
  void kill_all();
  void end();

  const Start start_;
  std::string version_;
  Fd log_;
  std::vector<pid_t> children_;
  std::vector<Seat> sockets_;  // by rank
  std::optional<Error> broken_;
};

Result<void> Running::begin(Deadline deadline) {
  GRADRAIL_ASSIGN(const PrivateFolder folder, PrivateFolder::make());
  const std::string control = folder.path() + "/control";
  GRADRAIL_ASSIGN(const Fd listener, listen_at(control, start_.ranks));
  log_ = Fd(::memfd_create("gradrail-peer-output", MFD_CLOEXEC));
  const Fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!log_ || !null) return fail_errno("making a file for what a peer prints", errno);

  std::vector<std::string> environment;
  for (char** one = environ; *one != nullptr; ++one) {
    const std::string_view text = *one;
    if (text.starts_with("GRADRAIL_")) continue;
    const std::string name(text.substr(0, text.find('=') + 1));
    const auto& ours = start_.command.environment;
    if (std::any_of(ours.begin(), ours.end(), [&](const std::string& set) { return set.starts_with(name); })) continue;
    environment.emplace_back(text);
  }
  for (const std::string& set : start_.command.environment) environment.push_back(set);

  std::vector<std::string> argv;
  for (const std::string& word : start_.command.argv)
    argv.push_back(replaced(replaced(word, k_control, control), k_folder, folder.path()));
  if (!start_.command.one_a_rank) {
    GRADRAIL_TRY(spawn(argv, environment, null.get()));
  } else {
    for (int rank = 0; rank < start_.ranks; ++rank) {
      auto words = argv;
      words.insert(words.end(), {"--rank", std::to_string(rank)});
      const auto& [hosts, agent, interface] = start_.hosts;
      if (!hosts.empty() && !agent.empty()) {
        words.insert(words.end(), {"--interface", interface});
        const auto host = static_cast<std::size_t>(rank) * hosts.size() / static_cast<std::size_t>(start_.ranks);
        words.insert(words.begin(), {agent, hosts[host]});
      }
      if (start_.command.bind && !start_.cpus.empty())
        words.insert(words.end(), {"--core", std::to_string(start_.cpus[static_cast<std::size_t>(rank)])});
      GRADRAIL_TRY(spawn(std::move(words), environment, null.get()));
    }
  }
  return accept_all(listener.get(), deadline);
}

Result<pid_t> Running::spawn(std::vector<std::string> words, std::vector<std::string>& environment, int null) {
  // Everything is made before fork: nothing may be allocated between it and exec.
  const std::vector<char*> argv = pointers(words);
  const std::vector<char*> variables = pointers(environment);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  for (const int core : start_.cores) CPU_SET(core, &cores);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(fmt::format("starting {}", words.front()), errno);
  if (pid == 0) {
    // Asked politely, an MPI's launcher cleans up after itself; in a session of its own, nobody kills it before that.
    ::setsid();
    ::prctl(PR_SET_PDEATHSIG, start_.command.one_a_rank ? SIGKILL : SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    ::sched_setaffinity(0, sizeof cores, &cores);  // this rank is bound to a core, its child is not
    ::dup2(null, STDIN_FILENO);
    ::dup2(log_.get(), STDOUT_FILENO);
    ::dup2(log_.get(), STDERR_FILENO);
    ::signal(SIGPIPE, SIG_DFL);
    ::execve(argv.front(), argv.data(), variables.data());
    const std::string_view said = "this program could not be started";
    [[maybe_unused]] const auto written = ::write(STDERR_FILENO, said.data(), said.size());
    ::_exit(127);
  }
  children_.push_back(pid);
  return pid;
}

Result<void> Running::accept_all(int listener, Deadline deadline) {
  // A rank connects before it opens its library, and greets after that.
  std::vector<Seat> silent;
  for (int greeted = 0; greeted < start_.ranks;) {
    if (const auto how = ended_child()) return fail(Code::unavailable, *how);
    if (deadline.passed())
      return fail(Code::timed_out, fmt::format("{} of {} ranks were not ready in time: {}", start_.ranks - greeted,
                                               start_.ranks, last_words()));
    std::vector<pollfd> entries{{listener, POLLIN, 0}};
    for (const Seat& rank : silent) entries.push_back({rank.fd.get(), POLLIN, 0});
    ::poll(entries.data(), entries.size(), Deadline::after(std::min(deadline.left(), k_look)).left_ms());
    for (std::size_t i = silent.size(); i > 0; --i) {
      if (entries[i].revents == 0) continue;
      Seat rank = std::move(silent[i - 1]);
      silent.erase(silent.begin() + static_cast<std::ptrdiff_t>(i) - 1);
      GRADRAIL_TRY(take_hello(std::move(rank), deadline));
      ++greeted;
    }
    if (entries[0].revents == 0) continue;
    Seat rank;
    rank.fd = Fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!rank.fd) continue;
    ucred who{};
    socklen_t size = sizeof who;
    if (::getsockopt(rank.fd.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 && who.uid == ::geteuid()) {
      rank.process = Fd(static_cast<int>(::syscall(SYS_pidfd_open, who.pid, 0)));
      silent.push_back(std::move(rank));
    }
  }
  return {};
}

Result<void> Running::take_hello(Seat rank, Deadline deadline) {
  auto bytes = receive_frame(rank.fd.get(), 4096, deadline);
  if (!bytes) {
    // It ended; its launcher takes a moment to notice and to say more.
    if (!children_.empty()) (void)reap(Deadline::after(k_terminate));
    return fail(Code::unavailable, fmt::format("a rank ended while it started: {}", last_words()));
  }
  GRADRAIL_ASSIGN(const PeerHello hello, decode_peer_hello(*bytes));
  if (hello.ranks != start_.ranks || hello.rank < 0 || hello.rank >= start_.ranks ||
      sockets_[static_cast<std::size_t>(hello.rank)].fd)
    return fail(Code::malformed, fmt::format("a rank says that it is {} of {}, and {} were started", hello.rank,
                                             hello.ranks, start_.ranks));
  sockets_[static_cast<std::size_t>(hello.rank)] = std::move(rank);
  version_ = hello.version;
  return {};
}

// Every rank's answer. An error that is not `unsupported` is the peer's end: ranks that did not answer may be anywhere.
Result<std::vector<PeerReply>> Running::ask(const PeerRequest& request, Deadline deadline) {
  if (broken_) return tl::unexpected<Error>(*broken_);
  const Bytes bytes = encode(request);
  for (const Seat& rank : sockets_)
    if (auto sent = send_frame(rank.fd.get(), bytes, deadline); !sent) return broken(std::move(sent).error());
  std::vector<PeerReply> replies(sockets_.size());
  std::vector<bool> answered(sockets_.size(), false);
  std::optional<Error> refused;
  for (std::size_t open = sockets_.size(); open > 0;) {
    std::vector<pollfd> entries;
    for (std::size_t i = 0; i < sockets_.size(); ++i)
      entries.push_back({answered[i] ? -1 : sockets_[i].fd.get(), POLLIN, 0});
    const int ready = ::poll(entries.data(), entries.size(), deadline.left_ms());
    if (ready == 0 || (ready < 0 && errno != EINTR))
      return broken(
          {Code::timed_out, fmt::format("{} of {} ranks did not answer in time", open, sockets_.size()), -1, 0});
    for (std::size_t i = 0; i < sockets_.size(); ++i) {
      if (answered[i] || entries[i].revents == 0) continue;
      auto frame = receive_frame(sockets_[i].fd.get(), k_longest_peer_message, deadline);
      if (!frame) return broken(std::move(frame).error());
      auto reply = decode_peer_reply(*frame);
      if (!reply) return broken(std::move(reply).error());
      if (reply->error && reply->error->code != Code::unsupported) return broken(std::move(*reply->error));
      if (reply->error) refused = std::move(reply->error);
      replies[i] = std::move(*reply);
      answered[i] = true;
      --open;
    }
  }
  if (refused) return tl::unexpected<Error>(std::move(*refused));
  return replies;
}

tl::unexpected<Error> Running::broken(Error why) {
  if (why.code == Code::peer_gone) {
    (void)reap(Deadline::after(k_terminate));
    why.message = "it ended: " + last_words();
  }
  broken_ = std::move(why);
  kill_all();
  return tl::unexpected<Error>(*broken_);
}

// How a child ended, if one has.
std::optional<std::string> Running::ended_child() {
  for (const pid_t child : children_) {
    siginfo_t info{};
    if (::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0)
      continue;
    if (info.si_code == CLD_EXITED) return fmt::format("it ended with code {}: {}", info.si_status, last_words());
    return fmt::format("it was ended by signal {}: {}", info.si_status, last_words());
  }
  return std::nullopt;
}

// The line that says most: a runner's own sentence, else the first that is more than a ruler.
std::string Running::last_words() const {
  std::array<char, 16384> text{};
  const auto size = ::pread(log_.get(), text.data(), text.size(), 0);
  std::istringstream lines(std::string(text.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))));
  std::string best;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("gradrail-peer-")) {
      best = line;
      break;
    }
    if (best.empty() && std::any_of(line.begin(), line.end(), [](unsigned char c) { return std::isalpha(c); }))
      best = line;
  }
  if (best.empty()) return "it said nothing";
  if (best.size() > 300) best.resize(300);
  for (char& c : best)
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  return best;
}

// Collects children that have ended; true if none is left.
bool Running::reap(Deadline deadline) {
  while (true) {
    std::erase_if(children_, [](pid_t child) { return ::waitpid(child, nullptr, WNOHANG) == child; });
    if (children_.empty()) return true;
    if (deadline.passed()) return false;
    ::poll(nullptr, 0, 5);
  }
}

void Running::kill_all() {
  if (!children_.empty() && !start_.command.one_a_rank) {
    // The launcher ends its ranks and takes away what it made, if it is given the time.
    for (const pid_t child : children_) ::kill(child, SIGTERM);
    (void)reap(Deadline::after(k_terminate));
  }
  for (const Seat& rank : sockets_)
    if (rank.process) ::syscall(SYS_pidfd_send_signal, rank.process.get(), SIGKILL, nullptr, 0);
  for (Seat& rank : sockets_) rank.fd.reset();
  if (!children_.empty() && !start_.command.one_a_rank && reap(Deadline::after(k_terminate))) return;
  for (const pid_t child : children_) ::kill(child, SIGKILL);
  (void)reap(Deadline::after(k_close));
}

void Running::end() {
  if (!broken_ && std::all_of(sockets_.begin(), sockets_.end(), [](const Seat& rank) { return bool(rank.fd); })) {
    PeerRequest request;
    request.order = PeerOrder::end;
    // The sockets stay open while libraries close: a rank whose socket closes ends at once.
    if (ask(request, Deadline::after(k_close)) && reap(Deadline::after(k_close))) return;
  }
  kill_all();
}

}  // namespace

Result<std::unique_ptr<PeerRanks>> PeerRanks::start(const Start& start, Deadline deadline) {
  auto ranks = std::make_unique<Running>(start);
  if (auto begun = ranks->begin(deadline); !begun) return tl::unexpected<Error>(std::move(begun).error());
  return ranks;
}

}  // namespace gradrail

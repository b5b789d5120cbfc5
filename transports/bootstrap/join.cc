// join(): surroundings -> secret, listener and meeting place -> star.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>

#include "transports/bootstrap.h"
#include "transports/bootstrap/launch_variables.h"
#include "transports/bootstrap/pmix.h"
#include "transports/bootstrap/star.h"
#include "transports/bootstrap/surroundings.h"
#include "transports/socket.h"

namespace gradrail {
namespace {

using Way = Surroundings::Way;

const char* getenv_of_process(const char* name) { return std::getenv(name); }

std::string_view origin_of(Way way) {
  switch (way) {
    case Way::launcher: return "launcher";
    case Way::pmix: return "pmix";
    case Way::torchrun: return "torchrun";
    case Way::alone: break;
  }
  return "alone";
}

std::string_view launcher_of(Way way) {
  switch (way) {
    case Way::launcher: return "gradrail's launcher";
    case Way::pmix: return "mpirun or srun";
    case Way::torchrun: return "torchrun (WORLD_SIZE)";
    case Way::alone: break;
  }
  return "nobody";
}

Result<void> as_many_as_meant(Way way, int ranks, int expected) {
  if (expected == 0 || expected == ranks) return {};
  if (way == Way::alone) {
    return fail(
        Code::bad_usage,
        fmt::format("this process (pid {0} on {1}) came up as a job of one, where one job of {2} was meant; if {2} "
                    "of them were started, they are {2} jobs of one: start them by mpirun, srun --mpi=pmix or "
                    "torchrun",
                    getpid(), host_name(), expected));
  }
  return fail(Code::bad_usage,
              fmt::format("{} started {} ranks, and {} were asked for; make both say the same (pid {} on {})",
                          launcher_of(way), ranks, expected, getpid(), host_name()));
}

// Takes an inherited descriptor over, away from this process' own children.
Result<Fd> take_descriptor(int fd, std::string_view what) {
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    return fail(Code::bad_usage,
                fmt::format("the variables of gradrail's launcher are set, but its {} is not open here; they "
                            "belong to another process: unset those that begin with {}",
                            what, launch_variable::k_prefix));
  }
  return Fd(fd);
}

Result<void> prepare_launched(const Surroundings& around, StarOptions& star) {
  GRADRAIL_ASSIGN(star.report, take_descriptor(around.report_fd, "report pipe"));
  GRADRAIL_ASSIGN(const Fd secret, take_descriptor(around.secret_fd, "secret"));
  std::array<char, 2 * Secret::k_bytes> hex{};
  if (::pread(secret.get(), hex.data(), hex.size(), 0) != static_cast<ssize_t>(hex.size())) {
    return fail_errno("reading the job's secret from the launcher", errno);
  }
  GRADRAIL_ASSIGN(star.secret, Secret::from_hex({hex.data(), hex.size()}));
  if (around.rank == 0) {
    GRADRAIL_ASSIGN(star.listener, take_descriptor(around.listen_fd, "listening socket"));
  } else {
    star.meetings = {{around.host, around.port}};
  }
  for (const char* name : {launch_variable::k_rank, launch_variable::k_ranks, launch_variable::k_endpoint,
                           launch_variable::k_listen_fd, launch_variable::k_report_fd, launch_variable::k_secret_fd}) {
    unsetenv(name);
  }
  return {};
}

// MASTER_ADDR may be a name or an address that this host itself does not have (behind a translated address): then rank
// 0 listens everywhere.
Result<Fd> listen_at_master(const Surroundings& around) {
  auto listener = listen_tcp(around.host, around.port);
  if (listener || listener.error().sys_errno == EADDRINUSE) {
    if (listener) return listener;
    return tl::unexpected<Error>(
        std::move(listener).error().in("rank 0 cannot listen (is there another rank 0? otherwise set GRADRAIL_PORT to "
                                       "a free port, the same for all ranks)"));
  }
  if (listener.error().sys_errno != EADDRNOTAVAIL) return listener;
  return listen_tcp("0.0.0.0", around.port);
}

Result<void> prepare_torchrun(const Surroundings& around, StarOptions& star) {
  GRADRAIL_ASSIGN(star.secret, read_secret(getenv_of_process));
  if (around.rank == 0) {
    GRADRAIL_ASSIGN(star.listener, listen_at_master(around));
  } else {
    star.meetings = {{around.host, around.port}};
  }
  return {};
}

Result<void> prepare_pmix(Pmix& pmix, StarOptions& star) {
  GRADRAIL_ASSIGN(auto meeting, meet_through(pmix, Deadline::after(star.wait)));
  star.secret = meeting.secret;
  star.listener = std::move(meeting.listener);
  star.meetings = std::move(meeting.meetings);
  return {};
}

// Everything up to the star itself. `star.rank` and `star.report` are set as soon as they are known, for the sake of
// whoever tells an error. The PMIx connection is needed until the star is formed.
Result<void> prepare(const JoinOptions& options, StarOptions& star, std::unique_ptr<Pmix>& pmix) {
  GRADRAIL_ASSIGN(const auto around, look_around(getenv_of_process));
  star.rank = around.rank;
  star.ranks = around.ranks;
  star.origin = origin_of(around.way);
  if (around.way == Way::launcher) GRADRAIL_TRY(prepare_launched(around, star));
  if (around.way == Way::pmix) {
    GRADRAIL_ASSIGN(pmix, Pmix::connect());
    star.rank = pmix->rank();
    star.ranks = pmix->ranks();
  }
  GRADRAIL_TRY(as_many_as_meant(around.way, star.ranks, options.expected_ranks));
  if (star.ranks == 1) {
    GRADRAIL_ASSIGN(star.secret, Secret::random());
    return {};
  }
  if (around.way == Way::torchrun) return prepare_torchrun(around, star);
  if (around.way == Way::pmix) return prepare_pmix(*pmix, star);
  return {};
}

}  // namespace

Result<void> Bootstrap::barrier(Deadline deadline) {
  GRADRAIL_TRY(all_gather({}, deadline));
  return {};
}

Result<std::unique_ptr<Bootstrap>> join(const JoinOptions& options) {
  StarOptions star;
  star.rank = -1;
  star.build_id = options.build_id;
  star.wait = options.wait;
  std::unique_ptr<Pmix> pmix;
  if (auto prepared = prepare(options, star, pmix); !prepared) {
    tell(star.report.get(), star.rank, prepared.error());
    return tl::unexpected<Error>(std::move(prepared).error());
  }
  return form_star(std::move(star));
}

}  // namespace gradrail

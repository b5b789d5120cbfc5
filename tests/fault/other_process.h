// Two ranks with one pipe between them, rank 0 here and rank 1 in a process of its own that can be stopped or killed.
// What differs between transports comes from a function that makes a rank.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <string_view>
#include <thread>

#include "tests/soon.h"
#include "transports/settings.h"
#include "transports/socket.h"

namespace gradrail {

struct Rank {
  Rank(std::string_view kind, const Settings& settings)
      : transport(make_transport(kind, settings).value()), address(transport->listen().value()) {}

  Result<void> connect(const Peer& peer, Deadline deadline = soon()) {
    GRADRAIL_ASSIGN(auto made, transport->connect({&peer, 1}, deadline));
    pipe = std::move(made.front());
    return {};
  }
  Slice memory(std::size_t bytes) {
    if (!region || region->buffer().size < bytes) region = transport->allocate(bytes).value();
    return {region.get(), 0, bytes};
  }
  // Drives this rank until `done`, a failure of its pipe, or the deadline.
  void drive(const std::function<bool()>& done, Deadline deadline) const {
    while (!done() && pipe->failure() == nullptr && !deadline.passed())
      if (!transport->progress()) transport->wait(Seconds(0.05));
  }
  void drive_until_failure() const {
    drive([] { return false; }, soon());
  }
  // Sends and receives `rounds` messages of that size, in step with a peer that does the same; true if all came right.
  [[nodiscard]] bool exchange(std::size_t bytes, int rounds) {
    const Slice all = memory(2 * bytes);
    for (int i = 0; i < rounds; ++i) {
      std::memset(all.data(), i + 1, bytes);
      const auto sends = pipe->sends_done() + 1;
      const auto recvs = pipe->recvs_done() + 1;
      if (!pipe->recv({all.region, bytes, bytes}) || !pipe->send({all.region, 0, bytes})) return false;
      drive([&] { return pipe->sends_done() == sends && pipe->recvs_done() == recvs; }, soon());
      if (pipe->recvs_done() != recvs || std::memcmp(all.data(), all.data() + bytes, bytes) != 0) return false;
    }
    return true;
  }

  std::unique_ptr<Transport> transport;
  Address address;
  std::unique_ptr<Region> region;
  std::unique_ptr<Endpoint> pipe;
};

class OtherProcess {
 public:
  // Makes rank 1 there, which lives `life`, and rank 0 here. An expectation that fails there fails the test, unless the
  // process was killed.
  OtherProcess(const std::function<Rank(int rank)>& make, const std::function<void(Rank&)>& life) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const Fd ours(fds[0]);
    Fd theirs(fds[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      Rank rank = make(1);
      const auto address = receive_frame(theirs.get(), 1000, soon());
      const bool met = address && send_frame(theirs.get(), rank.address, soon()) &&
                       rank.connect({0, 0, "host-a", *address}).has_value();
      if (met) life(rank);
      ::_exit(met && !testing::Test::HasFailure() ? 0 : 1);
    }
    theirs.reset();
    here = std::make_unique<Rank>(make(0));
    EXPECT_TRUE(send_frame(ours.get(), here->address, soon()));
    const auto address = receive_frame(ours.get(), 1000, soon());
    EXPECT_TRUE(address);
    if (!address) return;
    const auto met = here->connect({1, 0, "host-b", *address});
    EXPECT_TRUE(met) << met.error().message;
  }
  OtherProcess(const OtherProcess&) = delete;
  OtherProcess& operator=(const OtherProcess&) = delete;
  ~OtherProcess() {
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    EXPECT_TRUE(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        << "the other rank failed by itself";
  }
  void signal(int number) const { ::kill(pid_, number); }

  std::unique_ptr<Rank> here;  // has no pipe if the two did not meet, which has failed the test

 private:
  pid_t pid_ = -1;
};

inline void sleep_long() { std::this_thread::sleep_for(std::chrono::seconds(60)); }

}  // namespace gradrail

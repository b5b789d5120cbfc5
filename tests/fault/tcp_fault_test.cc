// tcp between processes and among strangers: ranks are killed and stopped, and those who do not know the secret try
// everything; the others go on, or hear who is gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <atomic>
#include <functional>
#include <thread>

#include "transports/handshake.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

Deadline soon() { return Deadline::after(Seconds(20)); }

Secret the_secret() { return Secret::from_text("known to the ranks of this job").value(); }
Secret wrong_secret() { return Secret::from_text("known to the ranks of another").value(); }

struct Rank {
  Rank(int rank, int ranks, int connections = 1, const Secret& secret = the_secret()) {
    Settings settings;
    settings.rank = rank;
    settings.ranks = ranks;
    settings.secret = secret;
    settings.connections = connections;
    transport = make_transport("tcp", settings).value();
    address = transport->listen().value();
  }
  Result<void> connect(const Peer& peer, Deadline deadline) {
    GRADRAIL_ASSIGN(auto made, transport->connect({&peer, 1}, deadline));
    pipe = std::move(made.front());
    return {};
  }
  Slice memory(std::size_t bytes) {
    if (!region || region->buffer().size < bytes) region = transport->allocate(bytes).value();
    return {region.get(), 0, bytes};
  }
  // Drives this rank until `done`, a failure of its pipe, or the deadline.
  void drive(const std::function<bool()>& done, Deadline deadline) {
    while (!done() && pipe->failure() == nullptr && !deadline.passed())
      if (!transport->progress()) transport->wait(Seconds(0.05));
  }
  // Sends and receives `rounds` messages of that size, in step with a peer that does the same.
  bool exchange(std::size_t bytes, int rounds) {
    const Slice all = memory(2 * bytes);
    for (int i = 0; i < rounds; ++i) {
      const auto sends = pipe->sends_done() + 1;
      const auto recvs = pipe->recvs_done() + 1;
      if (!pipe->recv({all.region, bytes, bytes}) || !pipe->send({all.region, 0, bytes})) return false;
      drive([&] { return pipe->sends_done() == sends && pipe->recvs_done() == recvs; }, soon());
      if (pipe->recvs_done() != recvs) return false;
    }
    return true;
  }

  std::unique_ptr<Transport> transport;
  Address address;
  std::unique_ptr<Region> region;
  std::unique_ptr<Endpoint> pipe;
};

// Rank 1 in a process of its own, connected to rank 0 here.
class OtherProcess {
 public:
  OtherProcess(int connections, const std::function<void(Rank&)>& life) : here(0, 2, connections) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    const Fd ours(fds[0]);
    Fd theirs(fds[1]);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      Rank rank(1, 2, connections);
      const bool met = send_frame(theirs.get(), rank.address, soon()) &&
                       rank.connect({0, 0, "host-a", here.address}, soon()).has_value();
      if (met) life(rank);
      ::_exit(met ? 0 : 1);
    }
    theirs.reset();
    const auto address = receive_frame(ours.get(), 1000, soon());
    EXPECT_TRUE(address);
    const auto met = here.connect({1, 0, "host-b", *address}, soon());
    EXPECT_TRUE(met) << met.error().message;
  }
  ~OtherProcess() {
    ::kill(pid_, SIGKILL);
    int status = 0;
    ::waitpid(pid_, &status, 0);
    EXPECT_TRUE(status == 0 || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL))
        << "the other rank failed by itself";
  }
  void signal(int number) const { ::kill(pid_, number); }

  Rank here;

 private:
  pid_t pid_ = -1;
};

void sleep_long() { std::this_thread::sleep_for(std::chrono::seconds(60)); }

void expect_gone(const Endpoint& pipe) {
  ASSERT_NE(pipe.failure(), nullptr);
  EXPECT_EQ(pipe.failure()->code, Code::peer_gone);
  EXPECT_EQ(pipe.failure()->peer, 1);
  EXPECT_THAT(pipe.failure()->message, HasSubstr("rank 1 on host-b"));
}

TEST(TcpFault, AKilledPeerIsNamedByWhoReceives) {
  for (const int connections : {1, 3}) {
    OtherProcess other(connections, [](Rank& rank) {
      EXPECT_TRUE(rank.exchange(1000, 5));
      sleep_long();
    });
    ASSERT_TRUE(other.here.exchange(1000, 5));
    ASSERT_TRUE(other.here.pipe->recv(other.here.memory(300'000)));
    other.signal(SIGKILL);
    other.here.drive([] { return false; }, soon());
    expect_gone(*other.here.pipe);
  }
}

TEST(TcpFault, AKilledPeerIsNamedByWhoSends) {
  OtherProcess other(1, [](Rank&) { sleep_long(); });
  ASSERT_TRUE(other.here.pipe->send(other.here.memory(64 << 20)));
  other.here.drive([] { return false; }, Deadline::after(Seconds(0.1)));  // until the buffers are full
  ASSERT_EQ(other.here.pipe->failure(), nullptr);
  other.signal(SIGKILL);
  other.here.drive([] { return false; }, soon());
  expect_gone(*other.here.pipe);
}

TEST(TcpFault, AKilledPeerIsNamedByWhoExpectsNothing) {
  OtherProcess other(2, [](Rank&) { sleep_long(); });
  other.signal(SIGKILL);
  other.here.drive([] { return false; }, soon());
  expect_gone(*other.here.pipe);
  const auto late = other.here.pipe->send(other.here.memory(8));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().peer, 1);
}

TEST(TcpFault, AKilledPeerIsNamedInTheMiddleOfAMessage) {
  OtherProcess other(1, [](Rank& rank) {
    EXPECT_TRUE(rank.pipe->send(rank.memory(64 << 20)));
    rank.drive([] { return false; }, soon());
  });
  const auto all = other.here.memory(64 << 20);
  ASSERT_TRUE(other.here.pipe->recv(all));
  const std::byte* first = all.data();
  std::fill(all.data(), all.data() + 64, std::byte{1});
  other.here.drive([&] { return *first == std::byte{0}; }, soon());  // it has begun
  ASSERT_EQ(*first, std::byte{0});
  other.signal(SIGKILL);
  other.here.drive([] { return false; }, soon());
  expect_gone(*other.here.pipe);
  EXPECT_EQ(other.here.pipe->recvs_done(), 0u);
}

TEST(TcpFault, WhatWasSentBeforeTheEndStillArrives) {
  for (const bool in_place : {false, true}) {
    OtherProcess other(1, [](Rank& rank) {
      std::fill_n(rank.memory(500).data(), 500, std::byte{7});
      EXPECT_TRUE(rank.pipe->send(rank.memory(500)));
      rank.drive([&] { return rank.pipe->sends_done() == 1; }, soon());
    });
    other.here.drive([] { return false; }, Deadline::after(Seconds(0.2)));  // it is gone by now, or nearly
    auto& pipe = *other.here.pipe;
    const auto landing = other.here.memory(500);
    ASSERT_TRUE(in_place ? pipe.recv_in_place(500) : pipe.recv(landing));
    ASSERT_TRUE(pipe.recv({landing.region, 0, 1}));  // never comes
    if (in_place) {
      other.here.drive([&] { return pipe.readable().size() == 500; }, soon());
      other.here.drive([] { return false; }, Deadline::after(Seconds(0.2)));
      ASSERT_EQ(pipe.readable().size(), 500u) << "the end has not taken it away";
      EXPECT_EQ(pipe.readable()[499], std::byte{7});
      pipe.consume(500);
    } else {
      other.here.drive([&] { return pipe.recvs_done() == 1; }, soon());
      EXPECT_EQ(landing.data()[499], std::byte{7});
    }
    EXPECT_EQ(pipe.recvs_done(), 1u);
    other.here.drive([] { return false; }, soon());
    expect_gone(pipe);
  }
}

TEST(TcpFault, AnEndBehindTheLastMessageIsNoticedWithNothingExpected) {
  OtherProcess other(1, [](Rank& rank) {
    EXPECT_TRUE(rank.pipe->send(rank.memory(500)));
    rank.drive([&] { return rank.pipe->sends_done() == 1; }, soon());
  });
  other.here.drive([] { return false; }, Deadline::after(Seconds(0.2)));
  EXPECT_EQ(other.here.pipe->failure(), nullptr) << "there is a message to be received";
  ASSERT_TRUE(other.here.pipe->recv(other.here.memory(500)));
  other.here.drive([] { return false; }, soon());
  EXPECT_EQ(other.here.pipe->recvs_done(), 1u);
  expect_gone(*other.here.pipe);
}

TEST(TcpFault, AStoppedPeerHoldsNobodyBeyondTheDeadline) {
  OtherProcess other(1, [](Rank& rank) {
    EXPECT_TRUE(rank.exchange(16 << 20, 2));
    sleep_long();
  });
  ASSERT_TRUE(other.here.exchange(16 << 20, 1));
  other.signal(SIGSTOP);
  auto& pipe = *other.here.pipe;
  const auto all = other.here.memory(32 << 20);
  ASSERT_TRUE(pipe.recv({all.region, 16 << 20, 16 << 20}));
  ASSERT_TRUE(pipe.send({all.region, 0, 16 << 20}));
  const auto deadline = Deadline::after(Seconds(0.3));
  other.here.drive([&] { return pipe.recvs_done() == 2; }, deadline);
  EXPECT_TRUE(deadline.passed());
  EXPECT_EQ(pipe.failure(), nullptr) << "slow is not gone: " << pipe.failure()->message;
  other.signal(SIGCONT);
  other.here.drive([&] { return pipe.recvs_done() == 2 && pipe.sends_done() == 2; }, soon());
  EXPECT_EQ(pipe.recvs_done(), 2u);
}

TEST(TcpFault, ARankWithAnotherSecretIsRefusedByName) {
  Rank a(0, 2);
  Rank b(1, 2, 1, wrong_secret());
  Result<void> dialed, awaited;
  std::thread thread([&] { awaited = b.connect({0, 0, "host-a", a.address}, Deadline::after(Seconds(1))); });
  dialed = a.connect({1, 0, "host-b", b.address}, soon());
  thread.join();
  ASSERT_FALSE(dialed);
  EXPECT_EQ(dialed.error().code, Code::refused);
  EXPECT_EQ(dialed.error().peer, 1);
  EXPECT_THAT(dialed.error().message, HasSubstr("rank 1 on host-b"));
  ASSERT_FALSE(awaited);
  EXPECT_EQ(awaited.error().code, Code::timed_out);
  EXPECT_EQ(awaited.error().peer, 0);
}

// Everything a stranger may try against one listener; keeps its connections open.
class Strangers {
 public:
  explicit Strangers(const Address& address) {
    ByteReader in(address);
    EXPECT_EQ(in.get_string(), "tcp");
    host_ = in.get_string();
    port_ = in.get<std::uint16_t>();
  }
  void sit(int count) {
    for (int i = 0; i < count; ++i) say({});
  }
  void garbage() { say("GET / HTTP/1.1\r\n\r\n"); }
  void huge_frame() { say(std::string("\xff\xff\xff\x7f", 4) + std::string(2000, 'x')); }
  void half_a_handshake() {
    say("grdrail1");
    say("grdrail1................");
  }
  void wrong_proof() {
    auto fd = connect_tcp(host_, port_, soon(), OnRefused::retry);
    if (!fd) return;
    // The answer comes when the rank listens; nobody waits for it here.
    static_cast<void>(prove(fd->get(), wrong_secret(), Role::client, "tcp transport", Deadline::after(Seconds(0.05))));
    open_.push_back(std::move(*fd));
  }
  void everything() {
    sit(5);
    garbage();
    huge_frame();
    half_a_handshake();
    wrong_proof();
  }
  [[nodiscard]] std::size_t count() const { return open_.size(); }
  void go() { open_.clear(); }

 private:
  void say(std::string_view words) {
    auto fd = connect_tcp(host_, port_, soon(), OnRefused::retry);
    ASSERT_TRUE(fd) << fd.error().message;
    // It may be thrown out in the middle of its words.
    static_cast<void>(send_all(fd->get(), std::as_bytes(std::span(words)), soon()));
    open_.push_back(std::move(*fd));
  }
  std::string host_;
  int port_ = 0;
  std::vector<Fd> open_;
};

TEST(TcpFault, StrangersDoNotDisturbTheSetUp) {
  Rank a(0, 2);
  Rank b(1, 2);
  Strangers strangers(b.address);
  strangers.everything();
  strangers.sit(200);
  Result<void> met;
  std::thread thread([&] {
    met = b.connect({0, 0, "host-a", a.address}, soon());
    EXPECT_TRUE(b.exchange(100'000, 10));
  });
  strangers.everything();
  const auto reached = a.connect({1, 0, "host-b", b.address}, soon());
  EXPECT_TRUE(reached) << reached.error().message;
  EXPECT_TRUE(reached && a.exchange(100'000, 10));
  thread.join();
  EXPECT_TRUE(met) << met.error().message;
}

TEST(TcpFault, StrangersDoNotDisturbTheTrafficNorALaterConnection) {
  Rank a(0, 2);
  Rank b(1, 2);
  std::atomic<bool> over{false};
  std::size_t came = 0;
  std::thread crowd([&] {
    Strangers at_a(a.address);
    Strangers at_b(b.address);
    while (!over) {
      at_a.everything();
      at_b.everything();
      came += at_a.count() + at_b.count();
      at_a.go();
      at_b.go();
    }
  });
  const auto life = [](Rank& me, const Peer& peer) {
    const auto met = me.connect(peer, soon());
    EXPECT_TRUE(met) << met.error().message;
    if (!met) return;
    EXPECT_TRUE(me.exchange(50'000, 200));
    const Peer again{peer.rank, 1, peer.host, peer.address};
    auto second = me.transport->connect({&again, 1}, soon());
    EXPECT_TRUE(second) << second.error().message;
    EXPECT_TRUE(me.exchange(50'000, 50));
  };
  std::thread thread([&] { life(b, {0, 0, "host-a", a.address}); });
  life(a, {1, 0, "host-b", b.address});
  thread.join();
  over = true;
  crowd.join();
  EXPECT_GT(came, 0u);
}

}  // namespace
}  // namespace gradrail

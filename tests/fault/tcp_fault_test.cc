// tcp between processes and among strangers: ranks are killed and stopped, and those who do not know the secret try
// everything; the others go on, or hear who is gone.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <thread>

#include "tests/fault/other_process.h"
#include "transports/handshake.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

Secret the_secret() { return Secret::from_text("known to the ranks of this job").value(); }
Secret wrong_secret() { return Secret::from_text("known to the ranks of another").value(); }

Rank tcp_rank(int rank, int connections = 1, const Secret& secret = the_secret()) {
  Settings settings;
  settings.rank = rank;
  settings.ranks = 2;
  settings.secret = secret;
  settings.connections = connections;
  return {"tcp", settings};
}

class OtherProcess : public gradrail::OtherProcess {
 public:
  OtherProcess(int connections, const std::function<void(Rank&)>& life)
      : gradrail::OtherProcess([&](int rank) { return tcp_rank(rank, connections); }, life) {}
};

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
    ASSERT_TRUE(other.here->exchange(1000, 5));
    ASSERT_TRUE(other.here->pipe->recv(other.here->memory(300'000)));
    other.signal(SIGKILL);
    other.here->drive_until_failure();
    expect_gone(*other.here->pipe);
  }
}

TEST(TcpFault, AKilledPeerIsNamedByWhoSends) {
  OtherProcess other(1, [](Rank&) { sleep_long(); });
  ASSERT_TRUE(other.here->pipe->send(other.here->memory(64 << 20)));
  other.here->drive([] { return false; }, Deadline::after(Seconds(0.1)));  // until the buffers are full
  ASSERT_EQ(other.here->pipe->failure(), nullptr);
  other.signal(SIGKILL);
  other.here->drive_until_failure();
  expect_gone(*other.here->pipe);
}

TEST(TcpFault, AKilledPeerIsNamedByWhoExpectsNothing) {
  OtherProcess other(2, [](Rank&) { sleep_long(); });
  other.signal(SIGKILL);
  other.here->drive_until_failure();
  expect_gone(*other.here->pipe);
  const auto late = other.here->pipe->send(other.here->memory(8));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().peer, 1);
}

TEST(TcpFault, AKilledPeerIsNamedInTheMiddleOfAMessage) {
  OtherProcess other(1, [](Rank& rank) {
    EXPECT_TRUE(rank.pipe->send(rank.memory(64 << 20)));
    rank.drive_until_failure();
  });
  const auto all = other.here->memory(64 << 20);
  ASSERT_TRUE(other.here->pipe->recv(all));
  const std::byte* first = all.data();
  std::fill(all.data(), all.data() + 64, std::byte{1});
  other.here->drive([&] { return *first == std::byte{0}; }, soon());  // it has begun
  ASSERT_EQ(*first, std::byte{0});
  other.signal(SIGKILL);
  other.here->drive_until_failure();
  expect_gone(*other.here->pipe);
  EXPECT_EQ(other.here->pipe->recvs_done(), 0u);
}

TEST(TcpFault, WhatWasSentBeforeTheEndStillArrives) {
  for (const bool in_place : {false, true}) {
    OtherProcess other(1, [](Rank& rank) {
      std::fill_n(rank.memory(500).data(), 500, std::byte{7});
      EXPECT_TRUE(rank.pipe->send(rank.memory(500)));
      rank.drive([&] { return rank.pipe->sends_done() == 1; }, soon());
    });
    other.here->drive([] { return false; }, Deadline::after(Seconds(0.2)));  // it is gone by now, or nearly
    auto& pipe = *other.here->pipe;
    const auto landing = other.here->memory(500);
    ASSERT_TRUE(in_place ? pipe.recv_in_place(500) : pipe.recv(landing));
    ASSERT_TRUE(pipe.recv({landing.region, 0, 1}));  // never comes
    if (in_place) {
      other.here->drive([&] { return pipe.readable().size() == 500; }, soon());
      other.here->drive([] { return false; }, Deadline::after(Seconds(0.2)));
      ASSERT_EQ(pipe.readable().size(), 500u) << "the end has not taken it away";
      EXPECT_EQ(pipe.readable()[499], std::byte{7});
      pipe.consume(500);
    } else {
      other.here->drive([&] { return pipe.recvs_done() == 1; }, soon());
      EXPECT_EQ(landing.data()[499], std::byte{7});
    }
    EXPECT_EQ(pipe.recvs_done(), 1u);
    other.here->drive_until_failure();
    expect_gone(pipe);
  }
}

TEST(TcpFault, AnEndBehindTheLastMessageIsNoticedWithNothingExpected) {
  OtherProcess other(1, [](Rank& rank) {
    EXPECT_TRUE(rank.pipe->send(rank.memory(500)));
    rank.drive([&] { return rank.pipe->sends_done() == 1; }, soon());
  });
  other.here->drive([] { return false; }, Deadline::after(Seconds(0.2)));
  EXPECT_EQ(other.here->pipe->failure(), nullptr) << "there is a message to be received";
  ASSERT_TRUE(other.here->pipe->recv(other.here->memory(500)));
  other.here->drive_until_failure();
  EXPECT_EQ(other.here->pipe->recvs_done(), 1u);
  expect_gone(*other.here->pipe);
}

TEST(TcpFault, AStoppedPeerHoldsNobodyBeyondTheDeadline) {
  OtherProcess other(1, [](Rank& rank) {
    EXPECT_TRUE(rank.exchange(16 << 20, 2));
    sleep_long();
  });
  ASSERT_TRUE(other.here->exchange(16 << 20, 1));
  other.signal(SIGSTOP);
  auto& pipe = *other.here->pipe;
  const auto all = other.here->memory(32 << 20);
  std::memset(all.data(), 2, 16 << 20);  // as in the second round there
  ASSERT_TRUE(pipe.recv({all.region, 16 << 20, 16 << 20}));
  ASSERT_TRUE(pipe.send({all.region, 0, 16 << 20}));
  const auto deadline = Deadline::after(Seconds(0.3));
  other.here->drive([&] { return pipe.recvs_done() == 2; }, deadline);
  EXPECT_TRUE(deadline.passed());
  EXPECT_EQ(pipe.failure(), nullptr) << "slow is not gone: " << pipe.failure()->message;
  other.signal(SIGCONT);
  other.here->drive([&] { return pipe.recvs_done() == 2 && pipe.sends_done() == 2; }, soon());
  EXPECT_EQ(pipe.recvs_done(), 2u);
}

TEST(TcpFault, ARankWithAnotherSecretIsRefusedByName) {
  Rank a = tcp_rank(0);
  Rank b = tcp_rank(1, 1, wrong_secret());
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
  Rank a = tcp_rank(0);
  Rank b = tcp_rank(1);
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
  Rank a = tcp_rank(0);
  Rank b = tcp_rank(1);
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

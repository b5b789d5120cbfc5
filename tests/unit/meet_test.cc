// Ranks that were started with different options: of transports each names both, instead of doubting the job's secret.
#include "transports/meet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "transports/settings.h"

namespace gradrail {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Address address_of_transport(const std::string& name, int rank) {
  Settings settings;
  settings.rank = rank;
  settings.ranks = 2;
  auto transport = make_transport(name, settings);
  EXPECT_TRUE(transport) << transport.error().message;
  return (*transport)->listen().value();
}

TEST(Meet, PeersOfAnotherTransportAreNamedOnBothSides) {
  for (const auto& [mine, theirs] : {std::pair<std::string, std::string>{"tcp", "shm"}, {"shm", "tcp"}})
    for (const int rank : {0, 1}) {
      SCOPED_TRACE(mine + " meets " + theirs);
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      auto transport = make_transport(mine, settings).value();
      ASSERT_TRUE(transport->listen());
      const Peer peer{1 - rank, 0, "host-b", address_of_transport(theirs, 1 - rank)};
      const auto met = transport->connect({&peer, 1}, Deadline::after(Seconds(20)));
      ASSERT_FALSE(met);
      EXPECT_EQ(met.error().code, Code::bad_usage);
      EXPECT_EQ(met.error().peer, 1 - rank);
      EXPECT_THAT(met.error().message,
                  AllOf(HasSubstr("rank " + std::to_string(1 - rank) + " on host-b"),
                        HasSubstr("uses transport " + theirs + ", this rank " + mine), HasSubstr("--transport")));
    }
}

// Only the pipe's maker has to know how long its rings are; the other reads it there.
TEST(Meet, RanksOverShmWhoseRingsDifferUseTheLowerOnes) {
  for (const auto& [ring_0, ring_1] : {std::pair<std::size_t, std::size_t>{64 << 10, 1 << 20}, {1 << 20, 64 << 10}}) {
    std::unique_ptr<Transport> transports[2];
    Address addresses[2];
    std::unique_ptr<Endpoint> pipes[2];
    for (const int rank : {0, 1}) {
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      settings.ring_bytes = rank == 0 ? ring_0 : ring_1;
      transports[rank] = make_transport("shm", settings).value();
      addresses[rank] = transports[rank]->listen().value();
    }
    const auto connect = [&](int rank) {
      const Peer peer{1 - rank, 0, "here", addresses[1 - rank]};
      auto made = transports[rank]->connect({&peer, 1}, Deadline::after(Seconds(20)));
      ASSERT_TRUE(made) << made.error().message;
      pipes[rank] = std::move(made->front());
    };
    std::thread other([&] { connect(1); });
    connect(0);
    other.join();
    ASSERT_TRUE(pipes[0] && pipes[1]);
    std::vector<std::byte> from(300'000), to(from.size());
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 7 / 5);
    for (const int rank : {0, 1}) {
      std::fill(to.begin(), to.end(), std::byte{});
      const auto out = transports[rank]->register_memory({from.data(), from.size()}).value();
      const auto in = transports[1 - rank]->register_memory({to.data(), to.size()}).value();
      ASSERT_TRUE(pipes[1 - rank]->recv({in.get(), 0, to.size()}));
      ASSERT_TRUE(pipes[rank]->send({out.get(), 0, from.size()}));
      const auto deadline = Deadline::after(Seconds(20));
      while ((pipes[rank]->sends_done() < 1 || pipes[1 - rank]->recvs_done() < 1) && !deadline.passed())
        for (auto& transport : transports) transport->progress();
      EXPECT_EQ(from, to) << "from rank " << rank;
    }
    for (auto& pipe : pipes) pipe.reset();
  }
}

TEST(Meet, WhatIsNoAddressIsNotTakenForATransport) {
  for (const Bytes& bytes : {Bytes{}, Bytes(3, std::byte{7}), Bytes(40, std::byte{0xff}), Bytes(8, std::byte{0})}) {
    const auto same = same_transport({1, 0, "host-b", bytes}, "tcp");
    ASSERT_FALSE(same);
    EXPECT_EQ(same.error().code, Code::malformed);
    EXPECT_THAT(same.error().message, HasSubstr("another build of gradrail"));
  }
}

}  // namespace
}  // namespace gradrail

// What only tcp promises: messages cut over several sockets arrive whole, whatever their size, and options that cannot
// work are refused with a reason.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "tests/contract/transport_job.h"
#include "transports/tcp/stripe.h"

namespace gradrail {
namespace {

using testing::fill;
using testing::first_wrong;
using testing::Job;
using testing::JobOptions;
using testing::Memory;

constexpr std::size_t k_block = k_stripe_bytes;

const std::vector<std::size_t> k_sizes{0,
                                       1,
                                       4097,
                                       k_block - 1,
                                       k_block,
                                       k_block + 1,
                                       2 * k_block,
                                       3 * k_block - 5,
                                       7 * k_block + 64,
                                       16 * k_block,
                                       (1 << 20) + 13,
                                       33 * k_block + 77,
                                       70 * k_block + 7};

TEST(TcpStripe, EveryByteTravelsOnceAndInOrder) {
  for (const std::size_t connections : {1, 2, 3, 5, 16}) {
    for (const std::size_t size : k_sizes) {
      std::vector<int> seen(size, 0);
      for (std::size_t index = 0; index < 2 * connections; ++index) {
        const Stripe stripe = Stripe::of(connections, index, size % 2 == 0);
        const std::size_t share = stripe.share(size);
        EXPECT_EQ(stripe.takes_part(size), share > 0 || (size == 0 && index == 0));
        std::size_t last_end = 0;
        for (std::size_t at = 0; at < share;) {
          const std::size_t position = stripe.position(at);
          const std::size_t run = stripe.run(at, share);
          ASSERT_GT(run, 0u);
          ASSERT_GE(position, last_end);
          ASSERT_LE(position + run, size);
          for (std::size_t i = 0; i < run; ++i) ++seen[position + i];
          last_end = position + run;
          at += run;
        }
      }
      EXPECT_TRUE(std::all_of(seen.begin(), seen.end(), [](int times) { return times == 1; }))
          << size << " bytes over " << connections;
    }
  }
}

class TcpConnections : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Of, TcpConnections, ::testing::Values(1, 2, 3, 16));

// Every size to memory and in place, all of them outstanding at once and both ways, so that sockets run ahead of each
// other by whole messages.
TEST_P(TcpConnections, CarryRaggedSizesInOrderBothWays) {
  JobOptions options;
  options.settings.connections = GetParam();
  Job job("tcp", options);
  ASSERT_TRUE(job.ok());
  struct Message {
    Memory out, in;
    std::size_t have = 0;
  };
  std::vector<Message> messages[2];
  const std::size_t count = 2 * k_sizes.size();
  for (int rank : {0, 1}) {
    auto& to = job.endpoint(1 - rank, rank);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t size = k_sizes[i / 2];
      messages[rank].push_back({Memory(job.transport(rank), Memory::Kind::plain, size),
                                Memory(job.transport(1 - rank), Memory::Kind::plain, size)});
      auto& one = messages[rank].back();
      fill(one.out.bytes(), 100 * static_cast<std::uint64_t>(rank) + i);
      ASSERT_TRUE(job.endpoint(rank, 1 - rank).send(one.out.all()));
      ASSERT_TRUE(i % 2 == 0 ? to.recv(one.in.all()) : to.recv_in_place(size));
    }
  }
  ASSERT_TRUE(job.drive([&] {
    bool all = true;
    for (int rank : {0, 1}) {
      auto& to = job.endpoint(1 - rank, rank);
      if (const auto part = to.readable(); !part.empty()) {
        auto& one = messages[rank][to.recvs_done()];
        // In bites, as a reduction would.
        const std::size_t bite = std::min(part.size(), std::size_t{9} * 64 * 1024);
        std::memcpy(one.in.bytes().data() + one.have, part.data(), bite);
        one.have += bite;
        to.consume(bite);
      }
      all = all && to.recvs_done() == count && job.endpoint(rank, 1 - rank).sends_done() == count;
    }
    return all;
  }));
  for (int rank : {0, 1}) {
    for (std::size_t i = 0; i < count; ++i) {
      EXPECT_EQ(first_wrong(messages[rank][i].in.bytes(), 100 * static_cast<std::uint64_t>(rank) + i), -1)
          << "message " << i << " of " << k_sizes[i / 2] << " bytes from rank " << rank;
    }
  }
}

TEST_P(TcpConnections, NoticeADifferenceInSize) {
  JobOptions options;
  options.settings.connections = GetParam();
  Job job("tcp", options);
  ASSERT_TRUE(job.ok());
  Memory out(job.transport(0), Memory::Kind::plain, 5 * k_block);
  Memory in(job.transport(1), Memory::Kind::plain, 4 * k_block + 3);
  auto& to = job.endpoint(1, 0);
  ASSERT_TRUE(job.endpoint(0, 1).send(out.all()));
  ASSERT_TRUE(to.recv(in.all()));
  ASSERT_TRUE(job.drive([&] { return to.failure() != nullptr; }));
  EXPECT_EQ(to.failure()->code, Code::malformed);
  EXPECT_THAT(to.failure()->message, ::testing::HasSubstr(std::to_string(5 * k_block)));
  EXPECT_THAT(to.failure()->message, ::testing::HasSubstr(std::to_string(4 * k_block + 3)));
  EXPECT_EQ(to.recvs_done(), 0u);
}

// Messages of such different sizes travel on different sockets.
TEST_P(TcpConnections, NoticeALongMessageInPlaceOfAShortOneAndTheOtherWayRound) {
  for (const std::size_t sent : {std::size_t{5}, 5 * k_block}) {
    JobOptions options;
    options.settings.connections = GetParam();
    Job job("tcp", options);
    ASSERT_TRUE(job.ok());
    Memory out(job.transport(1), Memory::Kind::plain, sent);
    Memory in(job.transport(0), Memory::Kind::plain, 5 * k_block + 5 - sent);
    auto& to = job.endpoint(0, 1);
    ASSERT_TRUE(job.endpoint(1, 0).send(out.all()));
    ASSERT_TRUE(to.recv(in.all()));
    ASSERT_TRUE(job.drive([&] { return to.failure() != nullptr; }));
    EXPECT_EQ(to.failure()->code, Code::malformed);
    EXPECT_THAT(to.failure()->message, ::testing::HasSubstr(std::to_string(sent)));
    EXPECT_EQ(to.recvs_done(), 0u);
  }
}

// wait() sleeps until there is something to do: then what it promised can be moved.
TEST(Tcp, WaitEndsWhenBytesComeAndNotMuchLaterThanAsked) {
  Job job("tcp", {});
  ASSERT_TRUE(job.ok());
  Memory out(job.transport(0), Memory::Kind::plain, 1000);
  Memory in(job.transport(1), Memory::Kind::plain, 1000);
  auto& to = job.endpoint(1, 0);
  ASSERT_TRUE(to.recv(in.all()));
  job.transport(1).wait(Seconds(0.01));
  EXPECT_FALSE(job.transport(1).progress());
  std::thread sender([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_TRUE(job.endpoint(0, 1).send(out.all()));
    while (job.endpoint(0, 1).sends_done() == 0) job.transport(0).progress();
  });
  const auto limit = Deadline::after(Seconds(20));
  while (to.recvs_done() == 0 && !limit.passed()) {
    job.transport(1).wait(Seconds(30));  // longer than the limit: a wait that sleeps through the bytes fails the test
    job.transport(1).progress();
  }
  EXPECT_EQ(to.recvs_done(), 1u);
  EXPECT_FALSE(limit.passed());
  sender.join();
}

TEST(Tcp, ImpossibleNumbersOfConnectionsAreRefused) {
  for (const int connections : {-1, 0, 17}) {
    Settings settings;
    settings.connections = connections;
    const auto made = make_transport("tcp", settings);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Code::bad_usage);
    EXPECT_THAT(made.error().message, ::testing::HasSubstr("1 to 16"));
  }
}

TEST(Tcp, RanksThatDisagreeOnConnectionsAreTold) {
  Settings settings[2];
  std::unique_ptr<Transport> transports[2];
  Address addresses[2];
  for (int rank : {0, 1}) {
    settings[rank].rank = rank;
    settings[rank].ranks = 2;
    settings[rank].connections = 1 + rank;
    transports[rank] = make_transport("tcp", settings[rank]).value();
    addresses[rank] = transports[rank]->listen().value();
  }
  std::thread dialing([&] {
    const Peer peer{1, 0, "host-b", addresses[1]};
    const auto endpoints = transports[0]->connect({&peer, 1}, Deadline::after(Seconds(10)));
    if (endpoints) return;
    EXPECT_EQ(endpoints.error().peer, 1);
    EXPECT_THAT(endpoints.error().message, ::testing::HasSubstr("rank 1 on host-b"));
  });
  const Peer peer{0, 0, "host-a", addresses[0]};
  const auto made = transports[1]->connect({&peer, 1}, Deadline::after(Seconds(10)));
  dialing.join();
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::bad_usage);
  EXPECT_EQ(made.error().peer, 0);
  EXPECT_THAT(made.error().message,
              ::testing::HasSubstr("rank 0 on host-a (lane 0) opens 1 connections a pipe, this rank 2; give all ranks "
                                   "the same number"));
}

TEST(Tcp, AddressesThatDoNotParseAreRefused) {
  Settings settings;
  settings.ranks = 2;
  auto transport = make_transport("tcp", settings).value();
  const auto mine = transport->listen().value();
  for (const auto& address : {Bytes{}, Bytes(3), Bytes(100, std::byte{0xff}), Bytes(mine.begin(), mine.end() - 1)}) {
    const Peer peer{1, 0, "host-b", address};
    const auto made = transport->connect({&peer, 1}, Deadline::after(Seconds(10)));
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Code::malformed);
    EXPECT_EQ(made.error().peer, 1);
  }
}

}  // namespace
}  // namespace gradrail

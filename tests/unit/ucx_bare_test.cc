// UCX's own operations, and the loops in which p2p times them, between two threads of this process, over shared memory
// and over sockets. A rank that dies is in tests/end_to_end/p2p_test.cc.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include "bench/measure/p2p_bare.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;

class UcxBareTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    for (const auto& kind : transport_kinds())
      if (kind.name == "ucx")
        if (const auto there = kind.available(); !there) GTEST_SKIP() << there.error().message;
    if (const char* before = std::getenv("UCX_TLS")) before_ = before;
    ::setenv("UCX_TLS", GetParam(), 1);
    for (const int rank : {0, 1}) {
      const auto at = static_cast<std::size_t>(rank);
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      auto made = make_transport("ucx", settings);
      ASSERT_TRUE(made) << made.error().message;
      transports_[at] = std::move(*made);
      addresses_[at] = transports_[at]->listen().value();
    }
  }
  void TearDown() override {
    if (before_) {
      ::setenv("UCX_TLS", before_->c_str(), 1);
    } else {
      ::unsetenv("UCX_TLS");
    }
  }

  using Opened = Result<std::unique_ptr<Bare>>;
  Opened open(int rank, const BareOptions& options) {
    const auto at = static_cast<std::size_t>(rank);
    return transports_[at]->open_bare(peer_of(rank), options, Deadline::after(Seconds(10)));
  }
  [[nodiscard]] Peer peer_of(int rank) const {
    return {1 - rank, 0, rank == 0 ? "host-b" : "host-a", addresses_[static_cast<std::size_t>(1 - rank)]};
  }
  // Each side on a thread of its own, since so is a worker of UCX.
  template <class Side>
  void both(const Side& side) {
    std::thread other([&] { side(1); });
    side(0);
    other.join();
  }

  std::array<std::unique_ptr<Transport>, 2> transports_;
  std::array<Address, 2> addresses_;
  std::optional<std::string> before_;
};

TEST_P(UcxBareTest, EveryOperationMovesTheRightBytesInEveryTest) {
  for (const Operation operation : {Operation::send, Operation::write, Operation::read})
    for (const int depth : {1, 5}) {
      SCOPED_TRACE(std::string(to_string(operation)));
      const BareOptions options{operation, 1, depth, 100'000};
      std::array<std::size_t, 2> samples{};
      std::array<Traffic, 2> traffic{};
      both([&](int rank) {
        const auto at = static_cast<std::size_t>(rank);
        auto bare = open(rank, options);
        ASSERT_TRUE(bare) << bare.error().message;
        BareEnd end(std::move(*bare), operation, peer_of(rank), rank == 0, true);
        for (const P2pTest test : {P2pTest::bandwidth, P2pTest::latency, P2pTest::bidirectional, P2pTest::message_rate})
          for (const std::int64_t messages : {1, 7, 30})
            for (const std::size_t bytes : {std::size_t{1}, std::size_t{64}, std::size_t{100'000}}) {
              const auto deadline = Deadline::after(Seconds(20));
              const auto times = end.run({test, bytes, messages, depth}, deadline);
              ASSERT_TRUE(times) << times.error().message;
              samples[at] += times->size();
              const auto wrong = end.check(bytes, static_cast<std::uint64_t>(messages), deadline);
              ASSERT_TRUE(wrong) << wrong.error().message;
              ASSERT_EQ(*wrong, 0);
            }
        traffic[at] = end.traffic();
      });
      EXPECT_EQ(samples[0], 3U * 38 + 3 * 3 * 3);
      const auto library = static_cast<std::size_t>(Path::library);
      EXPECT_GT(traffic[0][library], 0U);
      traffic[0][library] = 0;
      EXPECT_EQ(traffic[0], Traffic{}) << "only UCX knows how it went";
    }
}

TEST_P(UcxBareTest, WaitsOfOnesThatHaveACoreEndToo) {
  both([&](int rank) {
    for (const Operation operation : {Operation::send, Operation::write}) {
      auto bare = open(rank, {operation, 1, 1, 8});
      ASSERT_TRUE(bare) << bare.error().message;
      BareEnd end(std::move(*bare), operation, peer_of(rank), rank == 0, false);
      const auto times = end.run({P2pTest::latency, 8, 50, 1}, Deadline::after(Seconds(20)));
      ASSERT_TRUE(times) << times.error().message;
      const auto wrong = end.check(8, 1, Deadline::after(Seconds(20)));
      ASSERT_TRUE(wrong) << wrong.error().message;
      EXPECT_EQ(*wrong, 0) << to_string(operation) << " seen by rank " << rank;
    }
  });
}

TEST_P(UcxBareTest, WhatItCannotIsOneSentence) {
  const auto two = open(0, {Operation::send, 2, 8, 8});
  ASSERT_FALSE(two);
  EXPECT_EQ(two.error().code, Code::bad_usage);
  EXPECT_THAT(two.error().message, HasSubstr("one endpoint; --queue-pairs 2 is for pipes"));
  const auto none = open(0, {Operation::send, 1, 0, 8});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::bad_usage);
}

TEST_P(UcxBareTest, RanksThatWereAskedForDifferentOperationsAreToldSo) {
  std::array<std::optional<Error>, 2> errors;
  both([&](int rank) {
    const auto made = open(rank, {rank == 0 ? Operation::write : Operation::send, 1, 8, 8});
    if (!made) errors[static_cast<std::size_t>(rank)] = made.error();
  });
  ASSERT_TRUE(errors[0] && errors[1]);
  EXPECT_THAT(errors[0]->message, HasSubstr("another operation or other sizes"));
  EXPECT_THAT(errors[1]->message, HasSubstr("another operation or other sizes"));
}

TEST_P(UcxBareTest, APeerThatGoesOrStopsEndsEveryWait) {
  for (const Operation operation : {Operation::send, Operation::write, Operation::read})
    for (const bool goes : {true, false}) {
      SCOPED_TRACE(fmt::format("{}, {}", to_string(operation), goes ? "goes" : "stops"));
      std::atomic<bool> over = false;
      both([&](int rank) {
        auto bare = open(rank, {operation, 1, 1, 8});
        ASSERT_TRUE(bare) << bare.error().message;
        if (rank == 1) {
          ASSERT_TRUE((*bare)->tell({}, Deadline::after(Seconds(5))));  // it is at the first meeting
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
          if (goes) bare->reset();
          while (!over) std::this_thread::sleep_for(std::chrono::milliseconds(5));
          return;
        }
        BareEnd end(std::move(*bare), operation, peer_of(rank), true, true);
        const auto ran = end.run({P2pTest::latency, 8, 1 << 20, 1}, Deadline::after(Seconds(goes ? 20 : 0.5)));
        over = true;
        ASSERT_FALSE(ran);
        EXPECT_EQ(ran.error().code, goes ? Code::peer_gone : Code::timed_out);
        EXPECT_EQ(ran.error().peer, 1);
        EXPECT_THAT(ran.error().message, HasSubstr("rank 1 on host-b"));
      });
    }
}

INSTANTIATE_TEST_SUITE_P(Over, UcxBareTest, ::testing::Values("posix,cma,self", "tcp,self"), [](const auto& of) {
  return std::string(of.param).substr(0, std::string(of.param).find(','));
});

}  // namespace
}  // namespace gradrail

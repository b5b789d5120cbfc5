// The bare operations of verbs, and the loops in which p2p times them, over devices that do not exist (verbs_fake.h):
// what moves, what is asked for, and what is refused. The same over real libibverbs calls runs in scripts/soft-roce.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "bench/measure/p2p_bare.h"
#include "tests/unit/verbs_fake.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::FakeVerbs;
using testing::gid_entry;
using ::testing::HasSubstr;

class VerbsBareTest : public ::testing::Test {
 protected:
  VerbsBareTest() {
    calls_.machine.gids = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 0, 0, 1})};
    for (const int rank : {0, 1}) {
      const auto at = static_cast<std::size_t>(rank);
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      transports_[at] = VerbsTransport::make(settings, calls_).value();
      addresses_[at] = transports_[at]->listen().value();
    }
  }

  // What each rank's open_bare() came to.
  void open(const BareOptions& zero, const BareOptions& one) {
    const auto side = [&](int rank, const BareOptions& options) {
      const auto at = static_cast<std::size_t>(rank);
      const Peer peer{1 - rank, 0, rank == 0 ? "host-b" : "host-a", addresses_[1 - at]};
      auto made = transports_[at]->open_bare(peer, options, Deadline::after(Seconds(5)));
      if (made) {
        bare_[at] = std::move(*made);
      } else {
        errors_[at] = made.error();
      }
    };
    std::thread other([&] { side(1, one); });
    side(0, zero);
    other.join();
  }

  template <class Work>
  auto both(Operation operation, Work work) {
    std::array<std::optional<decltype(work(std::declval<PairEnd&>()))>, 2> answers;
    const auto side = [&](int rank) {
      const auto at = static_cast<std::size_t>(rank);
      const Peer peer{1 - rank, 0, rank == 0 ? "host-b" : "host-a", {}};
      BareEnd end(std::move(bare_[at]), operation, peer, rank == 0, true);
      answers[at] = work(static_cast<PairEnd&>(end));
    };
    std::thread other([&] { side(1); });
    side(0);
    other.join();
    EXPECT_TRUE(*answers[1]) << answers[1]->error().message;
    return std::move(*answers[0]);
  }

  FakeVerbs calls_;
  std::array<std::unique_ptr<Transport>, 2> transports_;
  std::array<Address, 2> addresses_;
  std::array<std::unique_ptr<Bare>, 2> bare_;
  std::array<std::optional<Error>, 2> errors_;
};

TEST_F(VerbsBareTest, EveryOperationMovesTheRightBytesInEveryTest) {
  for (const Operation operation : {Operation::write, Operation::send, Operation::read})
    for (const int pairs : {1, 3}) {
      SCOPED_TRACE(std::string(to_string(operation)));
      const BareOptions options{operation, pairs, 5, 4096};
      open(options, options);
      ASSERT_TRUE(bare_[0] && bare_[1]) << (errors_[0] ? errors_[0]->message : errors_[1]->message);
      const auto samples = both(operation, [&](PairEnd& end) -> Result<std::size_t> {
        std::size_t all = 0;
        for (const P2pTest test : {P2pTest::bandwidth, P2pTest::latency, P2pTest::bidirectional, P2pTest::message_rate})
          for (const std::int64_t messages : {1, 2, 7, 300})
            for (const std::size_t bytes : {std::size_t{1}, std::size_t{64}, std::size_t{4096}}) {
              const auto deadline = Deadline::after(Seconds(20));
              GRADRAIL_ASSIGN(const auto times, end.run({test, bytes, messages, 5}, deadline));
              all += times.size();
              GRADRAIL_ASSIGN(const auto wrong, end.check(bytes, static_cast<std::uint64_t>(messages), deadline));
              if (wrong != 0) return fail(Code::malformed, "bytes came out wrong");
            }
        return all;
      });
      ASSERT_TRUE(samples) << samples.error().message;
      EXPECT_EQ(*samples, 3U * 310 + 3 * 4 * 3);
      EXPECT_EQ(calls_.broken_rule, "");
    }
}

TEST_F(VerbsBareTest, ShortOnesGoInLineAndCompletionsAreAskedForNowAndThen) {
  const BareOptions options{Operation::write, 1, 64, 4096};
  open(options, options);
  ASSERT_TRUE(bare_[0] && bare_[1]);
  EXPECT_EQ(bare_[0]->inline_bytes(), 64U) << "what the device takes";
  const auto before = calls_.asked;
  const auto done = both(Operation::write, [](PairEnd& end) -> Result<Traffic> {
    GRADRAIL_TRY(end.run({P2pTest::bandwidth, 64, 160, 64}, Deadline::after(Seconds(20))));
    GRADRAIL_TRY(end.run({P2pTest::bandwidth, 65, 1, 64}, Deadline::after(Seconds(20))));
    return end.traffic();
  });
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(calls_.in_line, 160U);
  EXPECT_EQ((*done)[static_cast<std::size_t>(Path::in_line)], 160U * 64);
  EXPECT_EQ((*done)[static_cast<std::size_t>(Path::zero_copy)], 65U);
  EXPECT_EQ(calls_.asked - before, 160U / 16 + 1);
}

TEST_F(VerbsBareTest, WhatTheDeviceCannotIsOneSentence) {
  const auto refused = [&](const BareOptions& options) {
    const auto made = transports_[0]->open_bare({1, 0, "host-b", addresses_[1]}, options, Deadline::after(Seconds(5)));
    return made ? Error{Code::system, "it was taken"} : made.error();
  };
  const auto large = refused({Operation::write, 1, 8, (1 << 20) + 1});
  EXPECT_EQ(large.code, Code::bad_usage);
  EXPECT_THAT(large.message, AllOf(HasSubstr("fake0 port 1"), HasSubstr("at most 1048576 bytes")));
  EXPECT_EQ(refused({Operation::write, 0, 8, 8}).code, Code::bad_usage);
  EXPECT_EQ(refused({Operation::write, 1, 0, 8}).code, Code::bad_usage);
}

TEST_F(VerbsBareTest, RanksThatWereAskedForDifferentOperationsAreToldSo) {
  open({Operation::write, 1, 8, 8}, {Operation::send, 1, 8, 8});
  ASSERT_TRUE(errors_[0] && errors_[1]);
  EXPECT_THAT(errors_[1]->message, AllOf(HasSubstr("rank 0"), HasSubstr("another operation or other sizes")));
  EXPECT_THAT(errors_[0]->message, AllOf(HasSubstr("rank 1"), HasSubstr("another operation or other sizes")));
}

TEST_F(VerbsBareTest, AFailureNamesThePeerAndItsCause) {
  const BareOptions options{Operation::write, 1, 8, 8};
  open(options, options);
  ASSERT_TRUE(bare_[0] && bare_[1]);
  calls_.writes_until_failure = 2;
  BareEnd end(std::move(bare_[0]), Operation::write, {1, 0, "host-b", {}}, true, true);
  // The other side is at the first meeting; its answer lies in the socket.
  ASSERT_TRUE(bare_[1]->tell({}, Deadline::after(Seconds(5))));
  const auto ran = end.run({P2pTest::bandwidth, 8, 100, 8}, Deadline::after(Seconds(5)));
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().code, Code::peer_gone);
  EXPECT_EQ(ran.error().peer, 1);
  EXPECT_THAT(ran.error().message, AllOf(HasSubstr("rank 1 on host-b"), HasSubstr("retry exceeded")));
}

TEST_F(VerbsBareTest, APeerThatGoesIsNoticedWhileMemoryIsLookedAt) {
  const BareOptions options{Operation::write, 1, 8, 8};
  open(options, options);
  ASSERT_TRUE(bare_[0] && bare_[1]);
  ASSERT_TRUE(bare_[1]->tell({}, Deadline::after(Seconds(5))));
  BareEnd end(std::move(bare_[0]), Operation::write, {1, 0, "host-b", {}}, true, true);
  std::thread goes([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    bare_[1].reset();
  });
  const auto ran = end.run({P2pTest::latency, 8, 100, 8}, Deadline::after(Seconds(20)));
  goes.join();
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().code, Code::peer_gone);
  EXPECT_THAT(ran.error().message, HasSubstr("rank 1 on host-b is gone"));
}

TEST(BareOperations, OtherTransportsSayThatTheyHaveNone) {
  const auto made = make_transport("tcp", {});
  ASSERT_TRUE(made);
  const auto refused = (*made)->open_bare({}, {}, Deadline::after(Seconds(1)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unsupported);
  EXPECT_EQ(refused.error().message, "transport tcp has pipes only; verbs and ucx have operations");
}

}  // namespace
}  // namespace gradrail::verbs

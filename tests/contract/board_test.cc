// Boards: what a few ranks show each other in shared memory.
#include "transports/board.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "tests/contract/ranks.h"
#include "tests/contract/transport_job.h"

namespace gradrail::testing {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> pattern(std::size_t bytes, std::size_t member, std::size_t turn) {
  std::vector<std::byte> made(bytes);
  for (std::size_t i = 0; i < bytes; ++i) made[i] = std::byte((i * 7 + member * 31 + turn * 101) & 0xff);
  return made;
}

struct Boards : ::testing::TestWithParam<int> {
  Boards() {
    options.ranks = GetParam();
    options.lanes = 2;
    job.emplace("shm", options);
    members.resize(std::size_t(options.ranks));
    std::iota(members.begin(), members.end(), 0);
  }
  // The first of the members makes it and waits for nobody, so one thread will do.
  void open(int lane) {
    boards.clear();
    for (const int member : members) {
      auto opened = job->transport(member).open_board(members, lane, Deadline::after(Seconds(20)));
      ASSERT_TRUE(opened) << opened.error().message;
      boards.push_back(std::move(*opened));
    }
  }

  JobOptions options;
  std::optional<Job> job;
  std::vector<int> members;
  std::vector<std::unique_ptr<Board>> boards;
};

TEST_P(Boards, ShowEveryMessageToAllOthersTurnByTurn) {
  ASSERT_TRUE(job->ok());
  open(1);
  std::size_t turn = 0;
  for (int round = 0; round < 3; ++round)
    for (const std::size_t bytes : {1ul, 4ul, 55ul, 56ul, 57ul, 64ul, 1000ul, 40ul, 16384ul, 8ul}) {
      ++turn;
      // Each in turn is the last to show, and until then the others see nothing of it.
      const std::size_t last = turn % boards.size();
      for (std::size_t member = 0; member < boards.size(); ++member)
        if (member != last) boards[member]->show(pattern(bytes, member, turn));
      for (std::size_t member = 0; member < boards.size(); ++member) {
        if (member == last) continue;
        EXPECT_EQ(boards[member]->seen(last), nullptr) << bytes;
      }
      boards[last]->show(pattern(bytes, last, turn));
      for (std::size_t member = 0; member < boards.size(); ++member)
        for (std::size_t other = 0; other < boards.size(); ++other) {
          if (other == member) continue;
          const std::byte* const seen = boards[member]->seen(other);
          ASSERT_NE(seen, nullptr) << bytes << " bytes";
          const auto expected = pattern(bytes, other, turn);
          EXPECT_TRUE(std::equal(expected.begin(), expected.end(), seen)) << bytes << " bytes";
          EXPECT_FALSE(boards[member]->at_odds(other));
        }
    }
}

TEST_P(Boards, WhoIsATurnAheadSpoilsNothing) {
  ASSERT_TRUE(job->ok());
  open(0);
  const std::size_t slow = boards.size() - 1;
  for (std::size_t turn = 1; turn < 10; ++turn) {
    const std::size_t bytes = turn % 2 == 0 ? 48 : 16384;
    if (turn == 1)
      for (std::size_t member = 0; member < slow; ++member) boards[member]->show(pattern(bytes, member, turn));
    boards[slow]->show(pattern(bytes, slow, turn));
    // All others have seen everything and go on, before the slow one reads.
    for (std::size_t member = 0; member < slow; ++member)
      boards[member]->show(pattern(bytes == 48 ? 16384 : 48, member, turn + 1));
    for (std::size_t member = 0; member < slow; ++member) {
      const auto expected = pattern(bytes, member, turn);
      const std::byte* const seen = boards[slow]->seen(member);
      ASSERT_NE(seen, nullptr);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), seen)) << "turn " << turn;
    }
  }
}

TEST_P(Boards, AMessageOfAnotherLengthIsNotSeen) {
  ASSERT_TRUE(job->ok());
  open(0);
  for (std::size_t member = 0; member < boards.size(); ++member)
    boards[member]->show(pattern(member == 0 ? 8 : 100, member, 1));
  EXPECT_EQ(boards[1]->seen(0), nullptr);
  EXPECT_TRUE(boards[1]->at_odds(0));
  EXPECT_EQ(boards[0]->seen(1), nullptr);
  EXPECT_TRUE(boards[0]->at_odds(1));
}

TEST_P(Boards, AreNotWaitedForLongerThanAsked) {
  ASSERT_TRUE(job->ok());
  const auto late = job->transport(1).open_board(members, 0, Deadline::after(Seconds(0.05)));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, Code::timed_out);
  EXPECT_EQ(late.error().peer, 0);
  job->close(0);
  const auto gone = job->transport(1).open_board(members, 0, Deadline::after(Seconds(20)));
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().code, Code::peer_gone);
  EXPECT_EQ(gone.error().peer, 0);
  const auto unknown = job->transport(1).open_board(members, 7, Deadline::after(Seconds(20)));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().code, Code::bad_usage);
}

INSTANTIATE_TEST_SUITE_P(OverShm, Boards, ::testing::Values(2, 3, 8));

TEST(Gathering, RanksThatCallWithDifferentSizesAreTold) {
  Ranks ranks(2, "shm");
  const auto said = ranks.all([](Communicator& communicator) -> Result<void> {
    GRADRAIL_ASSIGN(const auto memory, communicator.allocate(64));
    Call call;
    call.in = call.out = {&memory, 0};
    call.in_place = true;
    call.algorithm = "one_shot";
    for (call.count = 1; call.count < 4; ++call.count)
      GRADRAIL_TRY(communicator.run(call, Deadline::after(Seconds(20))));
    call.count += static_cast<std::uint64_t>(communicator.rank());
    return communicator.run(call, Deadline::after(Seconds(20)));
  });
  for (std::size_t rank = 0; rank < said.size(); ++rank) {
    ASSERT_FALSE(said[rank]);
    EXPECT_EQ(said[rank].error().code, Code::malformed) << said[rank].error().message;
    EXPECT_EQ(said[rank].error().peer, 1 - static_cast<int>(rank));
    EXPECT_THAT(said[rank].error().message, HasSubstr("another number of bytes"));
  }
}

}  // namespace
}  // namespace gradrail::testing

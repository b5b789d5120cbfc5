// What is chosen where there is neither a table nor a measured link.
#include <gtest/gtest.h>

#include "collectives/select/selector.h"

namespace gradrail {
namespace {

std::string chosen(int ranks, std::uint64_t bytes, const char* transport) {
  Question question;
  question.collective = Collective::allreduce;
  question.ranks = ranks;
  question.bytes = bytes;
  question.transport = transport;
  return default_selection(question).algorithm;
}

TEST(SelectDefaults, FewRanksOnOneHostExchangeLittleInOneRound) {
  EXPECT_EQ(chosen(4, 1024, "shm"), "one_shot");
  EXPECT_EQ(chosen(8, 1024, "shm"), "one_shot");
  EXPECT_EQ(chosen(2, 1024, "shm"), "recursive_doubling");
  EXPECT_EQ(chosen(9, 1024, "shm"), "recursive_doubling");
  EXPECT_EQ(chosen(4, 1024, "tcp"), "recursive_doubling");
}

TEST(SelectDefaults, MuchDataIsCutIntoBlocks) {
  EXPECT_EQ(chosen(4, 1 << 20, "shm"), "two_shot");
  EXPECT_EQ(chosen(9, 1 << 20, "shm"), "ring");
}

TEST(SelectDefaults, TwoRanksOfOneHostExchangePlainMemory) {
  const auto plain = [](std::uint64_t bytes) {
    Question question;
    question.ranks = question.ranks_per_host = 2;
    question.bytes = bytes;
    question.transport = "shm";
    question.reached = Reached::no;
    return default_selection(question);
  };
  EXPECT_EQ(plain(16 << 10), (Selection{"recursive_doubling", 1, 1}));
  EXPECT_EQ(plain(256 << 10), (Selection{"two_shot", 1, 1}));
  EXPECT_EQ(plain(1 << 20), (Selection{"two_shot", 1, 4}));
  EXPECT_EQ(plain(256 << 20), (Selection{"two_shot", 1, 256}));
}

TEST(SelectDefaults, TwoRanksPushLongDataInPieces) {
  Question question;
  question.ranks = question.ranks_per_host = 2;
  question.transport = "shm";
  question.reached = Reached::yes;
  question.bytes = 64 << 20;
  EXPECT_EQ(default_selection(question), (Selection{"two_shot", 1, 1}));
  question.bytes = 256 << 20;
  EXPECT_EQ(default_selection(question), (Selection{"two_shot", 1, 64}));
}

TEST(SelectDefaults, FewRanksOfOneHostChooseAlikeWhateverTheirMemory) {
  Question question;
  question.ranks = question.ranks_per_host = 4;
  question.bytes = 4 << 20;
  question.transport = "shm";
  for (const auto reached : {Reached::no, Reached::yes}) {
    question.reached = reached;
    EXPECT_EQ(known_selection(question), (Selection{"two_shot", 1, 8}));
  }
  question.bytes = 4 << 10;
  EXPECT_EQ(known_selection(question), Selection{});
  question.bytes = 4 << 20;
  question.ranks = question.ranks_per_host = 8;
  EXPECT_EQ(known_selection(question).algorithm, "two_shot");
  question.ranks = question.ranks_per_host = 9;
  EXPECT_EQ(known_selection(question), Selection{});
}

TEST(SelectDefaults, ManyRanksStageLongDataInSmallerPieces) {
  Question question;
  question.transport = "shm";
  const auto pieces = [&](int ranks, std::uint64_t bytes) {
    question.ranks = question.ranks_per_host = ranks;
    question.bytes = bytes;
    return with_default_tuning("two_shot", question).pieces;
  };
  EXPECT_EQ(pieces(2, 16 << 20), 64);  // of 128 KiB
  EXPECT_EQ(pieces(4, 4 << 20), 8);
  EXPECT_EQ(pieces(4, 16 << 20), 64);  // of 64 KiB
  EXPECT_EQ(pieces(8, 1 << 20), 1);
  EXPECT_EQ(pieces(8, 16 << 20), 64);  // of 32 KiB
  EXPECT_EQ(pieces(64, 64 << 20), 32);
}

}  // namespace
}  // namespace gradrail

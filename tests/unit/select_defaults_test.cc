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

}  // namespace
}  // namespace gradrail

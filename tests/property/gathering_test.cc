// Which plans are carried out on a board: all ranks of a call must say the same of their own programs.
#include "collectives/exec/gathering.h"

#include <gtest/gtest.h>

#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

bool on_rank(const Planner& planner, const Shape& shape, int rank) {
  const auto program = plan(planner, shape, rank);
  EXPECT_TRUE(program) << describe(planner, shape);
  return program && gathers_all(*program);
}

TEST(Gathering, IsThatOfAllRanksOrOfNone) {
  for (const Planner* planner : planners())
    for (int ranks = 2; ranks <= 9; ++ranks)
      for (Shape shape : shapes(*planner, ranks, true)) {
        const bool first = on_rank(*planner, shape, 0);
        for (int rank = 1; rank < ranks; ++rank) {
          EXPECT_EQ(on_rank(*planner, shape, rank), first) << describe(*planner, shape) << ", rank " << rank;
          // Each rank of a call decides for itself whether it works in place.
          shape.in_place = !shape.in_place;
          EXPECT_EQ(on_rank(*planner, shape, rank), first) << describe(*planner, shape) << ", rank " << rank;
        }
      }
}

TEST(Gathering, IsWhatOneRoundOfEverythingIs) {
  const auto gathers = [](std::string_view name, int ranks, int pieces) {
    Shape shape;
    shape.ranks = shape.ranks_per_host = ranks;
    shape.pieces = pieces;
    for (const Planner* planner : planners())
      if (planner->name == name && planner->collective == Collective::allreduce) return on_rank(*planner, shape, 0);
    ADD_FAILURE() << "no " << name;
    return false;
  };
  for (const int ranks : {2, 3, 4, 8}) EXPECT_TRUE(gathers("one_shot", ranks, 1)) << ranks;
  EXPECT_TRUE(gathers("recursive_doubling", 2, 1));
  EXPECT_FALSE(gathers("recursive_doubling", 4, 1));
  EXPECT_FALSE(gathers("one_shot", 4, 2));
  EXPECT_FALSE(gathers("two_shot", 4, 1));
  EXPECT_FALSE(gathers("tree", 2, 1));
}

}  // namespace
}  // namespace gradrail::test

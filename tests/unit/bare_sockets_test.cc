// What the samples of bare sockets come to.
#include "bench/measure/bare_sockets.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradrail {
namespace {

using Samples = std::vector<BareSockets::Sample>;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(BareSockets, PairsThatTookTurnsTookTheTimeOfBoth) {
  const std::vector<std::string> hosts{"a", "a", "a", "a"};
  // The second pair leaves the barrier when the first is done.
  const std::vector<Samples> by_rank{{{1000, 3000}}, {{1500, 3500}}, {{3000, 5000}}, {{3500, 5500}}};
  EXPECT_THAT(BareSockets::times_us(by_rank, hosts), ElementsAre(4.5));
  EXPECT_THAT(BareSockets::times_us(std::vector<Samples>{{{1000, 3000, 4}}, {{2000, 5000, 4}}},
                                    std::vector<std::string>{"a", "a"}),
              ElementsAre(1))
      << "of four exchanges";
}

TEST(BareSockets, ClocksOfTwoHostsAreNotCompared) {
  const std::vector<std::string> hosts{"a", "b", "a", "b"};
  const std::vector<Samples> by_rank{{{1000, 3000}, {5000, 9000}},
                                     {{900000, 901000}, {910000, 911000}},
                                     {{2000, 4000}, {6000, 8000}},
                                     {{900500, 905000}}};
  EXPECT_THAT(BareSockets::times_us(by_rank, hosts), ElementsAre(5)) << "the second is not all ranks'";
  EXPECT_THAT(BareSockets::times_us({}, {}), IsEmpty());
}

}  // namespace
}  // namespace gradrail

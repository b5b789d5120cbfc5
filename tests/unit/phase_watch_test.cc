// What is remembered of the machine's phase between blocks.
#include "bench/measure/phase_watch.h"

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <vector>

namespace gradrail {
namespace {

class PhaseWatched : public ::testing::Test {
 protected:
  void SetUp() override {
    auto joined = join({1, "test", Seconds(10)});
    ASSERT_TRUE(joined) << joined.error().message;
    bootstrap_ = std::move(*joined);
    watch_.emplace(*bootstrap_, std::vector<int>(), Seconds(10));
  }
  std::unique_ptr<Bootstrap> bootstrap_;
  std::optional<PhaseWatch> watch_;
};

TEST_F(PhaseWatched, ABlockIsOfThePhaseBeforeAndAfterIt) {
  EXPECT_EQ(watch_->between({70, 0}, {90, 0}), "64ns");
  EXPECT_EQ(watch_->between({280, 0}, {300, 0}), "256ns");
  EXPECT_EQ(watch_->between({70, 0}, {300, 0}), "unsettled");
}

TEST_F(PhaseWatched, ASizeIsOfThePhaseOfAllItsBlocks) {
  EXPECT_EQ(watch_->of_blocks(), "");
  watch_->measured(8, "64ns");
  watch_->measured(8, "64ns");
  EXPECT_EQ(watch_->of_blocks(), "64ns");
  watch_->measured(8, "64ns");
  watch_->measured(8, "256ns");
  EXPECT_EQ(watch_->of_blocks(), "");
  watch_->measured(8, "256ns");
  EXPECT_EQ(watch_->of_blocks(), "256ns") << "what was asked for does not count again";
  watch_->measured(8, "unsettled");
  EXPECT_EQ(watch_->of_blocks(), "");
  watch_->measured(8, "64ns");
  watch_->measured(32, "256ns");
  EXPECT_EQ(watch_->of_blocks(), "256ns") << "nor do other sizes";
}

TEST_F(PhaseWatched, WaitsNoLongerThanItMay) {
  ASSERT_TRUE(watch_->look());
  ASSERT_TRUE(watch_->seen());
  double left = 0;
  EXPECT_FALSE(watch_->await("another", left).value());
  left = 0.01;
  EXPECT_FALSE(watch_->await("another", left).value());
  EXPECT_LE(left, 0);
  left = 10;
  EXPECT_FALSE(watch_->await("", left).value()) << "a size that is of several phases";
  EXPECT_EQ(left, 10);
}

}  // namespace
}  // namespace gradrail

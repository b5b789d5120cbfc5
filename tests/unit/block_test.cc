// A block that has only so much time.
#include "bench/measure/block.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "transports/local/hub.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class TimeOfABlock : public ::testing::Test {
 protected:
  void SetUp() override {
    auto joined = join({1, "test", Seconds(10)});
    ASSERT_TRUE(joined) << joined.error().message;
    bootstrap_ = std::move(*joined);
    CommunicatorOptions options;
    options.inner = options.outer = "local";
    options.settings.hub = std::make_shared<LocalHub>();
    auto created = Communicator::create(*bootstrap_, options, Deadline::after(Seconds(10)));
    ASSERT_TRUE(created) << created.error().message;
    group_ = std::move(*created);
  }

  std::vector<Outcome> measure(const std::vector<const char*>& algorithms, Seconds most_time) {
    auto buffers = Buffers::make(*group_, 4 * k_count, BufferKind::plain, Cache::hot);
    if (!buffers) return {};
    std::vector<Call> calls;
    for (const char* const algorithm : algorithms) {
      calls.emplace_back().count = k_count;
      calls.back().algorithm = algorithm;
    }
    MeasureRules rules;
    rules.samples = k_samples;
    rules.most_time = most_time;
    return measure_block(*bootstrap_, *group_, *buffers, calls, rules).value_or(std::vector<Outcome>());
  }

  static constexpr std::uint64_t k_count = 1000;
  static constexpr int k_samples = 24;
  std::unique_ptr<Bootstrap> bootstrap_;
  std::unique_ptr<Communicator> group_;
};

TEST_F(TimeOfABlock, WithoutALimitAllIsMeasured) {
  const auto outcomes = measure({"ring", "tree"}, Seconds(0));
  ASSERT_THAT(outcomes, SizeIs(2));
  for (const Outcome& outcome : outcomes) EXPECT_THAT(outcome.samples_us, SizeIs(k_samples));
}

TEST_F(TimeOfABlock, OnceItIsOverOnlyTheFirstHasATurn) {
  const auto outcomes = measure({"ring", "tree"}, Seconds(1e-9));
  ASSERT_THAT(outcomes, SizeIs(2));
  EXPECT_FALSE(outcomes[0].refused);
  EXPECT_THAT(outcomes[0].samples_us, SizeIs(1)) << "of the fewest, in the first of the turns";
  EXPECT_TRUE(outcomes[1].no_time);
  ASSERT_TRUE(outcomes[1].refused);
  EXPECT_THAT(outcomes[1].refused->message, HasSubstr("no time"));
  EXPECT_THAT(outcomes[1].samples_us, IsEmpty());
}

TEST_F(TimeOfABlock, OtherReasonsAreNoWantOfTime) {
  const auto outcomes = measure({"ring", "nonsense"}, Seconds(100));
  ASSERT_THAT(outcomes, SizeIs(2));
  EXPECT_TRUE(outcomes[1].refused);
  EXPECT_FALSE(outcomes[1].no_time);
}

}  // namespace
}  // namespace gradrail

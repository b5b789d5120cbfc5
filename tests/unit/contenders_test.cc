// Other libraries' ranks in a block: what happens where the host has no memory for all of them; how long samples are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "bench/measure/block.h"
#include "transports/local/hub.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;

// Of the host's memory, in ranks of one contender.
struct Host {
  int room = 0;
  int held = 0;
};

class Other : public Contender {
 public:
  Other(std::string name, double takes_us, Host& host) : name_(std::move(name)), takes_us_(takes_us), host_(host) {}
  [[nodiscard]] const std::string& library() const override { return name_; }
  [[nodiscard]] const std::string& name() const override { return name_; }
  Result<Trial> prepare(const Call&, Cache, int, bool, std::uint64_t, Deadline) override {
    EXPECT_LT(host_.held, host_.room) << "for " << name_;
    ++host_.held;
    holds_ = true;
    return Trial{0, takes_us_, 1};
  }
  Result<std::vector<double>> measure(int samples, int, Deadline) override {
    EXPECT_TRUE(holds_) << name_ << " was measured without memory";
    return std::vector<double>(static_cast<std::size_t>(samples), takes_us_);
  }
  void release(Deadline) override {
    if (holds_) --host_.held;
    holds_ = false;
  }

 private:
  std::string name_;
  double takes_us_;
  Host& host_;
  bool holds_ = false;
};

class ContendersOfABlock : public ::testing::Test {
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

  Result<std::vector<Outcome>> measure(int room, std::vector<double> times_us, Seconds shortest_sample = {}) {
    Host host{room};
    std::vector<std::unique_ptr<Other>> others;
    Contenders contenders;
    for (const double us : times_us) {
      others.push_back(std::make_unique<Other>(std::to_string(others.size()), us, host));
      contenders.push_back(others.back().get());
    }
    GRADRAIL_ASSIGN(Buffers buffers, Buffers::make(*group_, 4 * k_count, BufferKind::plain, Cache::hot));
    Call call;
    call.count = k_count;
    call.algorithm = "ring";
    MeasureRules rules;
    rules.samples = 8;
    rules.shortest_sample = shortest_sample;
    // A contender of one rank is given five times its data.
    rules.free_memory = [&] { return 1 + static_cast<std::uint64_t>(host.room - host.held) * 5 * 4 * k_count; };
    return measure_block(*bootstrap_, *group_, {{call, &buffers}}, rules, contenders);
  }

  static constexpr std::uint64_t k_count = 1000;
  std::unique_ptr<Bootstrap> bootstrap_;
  std::unique_ptr<Communicator> group_;
};

TEST_F(ContendersOfABlock, AllAreMeasuredWhereTheyHaveRoom) {
  const auto outcomes = measure(3, {30, 10, 20});
  ASSERT_TRUE(outcomes) << outcomes.error().message;
  for (std::size_t i = 1; i < 4; ++i) EXPECT_FALSE((*outcomes)[i].refused) << i;
}

TEST_F(ContendersOfABlock, TheSlowestGiveWayWhereTheyHaveNot) {
  const auto outcomes = measure(2, {30, 10, 40, 20});
  ASSERT_TRUE(outcomes) << outcomes.error().message;
  const auto& first = (*outcomes)[1];
  ASSERT_TRUE(first.refused);
  EXPECT_EQ(first.refused->code, Code::exhausted);
  EXPECT_THAT(first.refused->message, HasSubstr("left out after a trial of 30 us"));
  EXPECT_TRUE((*outcomes)[3].refused);
  EXPECT_EQ((*outcomes)[2].samples_us.size(), 8u);
  EXPECT_EQ((*outcomes)[4].samples_us.size(), 8u);
}

TEST_F(ContendersOfABlock, OperationsAreBatchedUntilASampleIsLongEnough) {
  const auto outcomes = measure(3, {100, 300, 5000}, Seconds(2e-3));
  ASSERT_TRUE(outcomes) << outcomes.error().message;
  EXPECT_EQ((*outcomes)[1].batch, 20);
  EXPECT_EQ((*outcomes)[2].batch, 7);
  EXPECT_EQ((*outcomes)[3].batch, 1);
}

}  // namespace
}  // namespace gradrail

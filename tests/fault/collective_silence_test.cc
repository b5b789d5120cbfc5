// A rank that waits in vain for one that is silent says, too, who has gone: that may be why.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/contract/ranks.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;

class CollectiveSilence : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    for (const auto& kind : transport_kinds())
      if (kind.name == GetParam())
        if (const auto there = kind.available(); !there) GTEST_SKIP() << there.error().message;
  }
};
INSTANTIATE_TEST_SUITE_P(Over, CollectiveSilence, testing::Values("shm", "tcp", "ucx"),
                         [](const auto& of) { return of.param; });

TEST_P(CollectiveSilence, WhoHasGoneIsNamedBesideWhoIsSilent) {
  Ranks ranks(3, GetParam());
  ASSERT_FALSE(HasFailure());
  Call call;
  call.count = 64;
  call.in_place = true;
  ranks.expect_all([&](Communicator& communicator) -> Result<void> {
    std::vector<float> data(call.count, 1);
    GRADRAIL_ASSIGN(const Memory memory, communicator.adopt(std::as_writable_bytes(std::span(data))));
    Call sum = call;
    sum.in = sum.out = {&memory, 0};
    sum.algorithm = "one_shot";
    return communicator.run(sum, soon());
  });
  ranks.leave(2);
  // Of a broadcast from rank 0 to the two others, rank 1 needs nothing of rank 2.
  std::vector<float> data(call.count);
  const Memory memory = ranks[1].adopt(std::as_writable_bytes(std::span(data))).value();
  call.collective = Collective::broadcast;
  call.root = 0;
  call.algorithm = "direct";
  call.in = call.out = {&memory, 0};
  const auto ran = ranks[1].run(call, Deadline::after(Seconds(3)));
  ASSERT_FALSE(ran);
  EXPECT_EQ(ran.error().code, Code::timed_out);
  EXPECT_EQ(ran.error().peer, 0);
  EXPECT_THAT(ran.error().message,
              AllOf(HasSubstr("direct: rank 0 "), HasSubstr("sent no more data before the deadline"),
                    ContainsRegex("; rank 2 .*is gone")));
}

}  // namespace
}  // namespace gradrail

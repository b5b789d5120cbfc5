// Queue pairs that rdma_cm connects, over an rdma_cm that does not exist (verbs_cm_fake.h). The same over librdmacm
// runs in scripts/soft-roce.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/verbs_cm_fake.h"
#include "tests/unit/verbs_ranks.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::fake;
using testing::FakeCm;
using testing::gid_entry;
using ::testing::HasSubstr;
using testing::TwoRanks;

class VerbsCm : public ::testing::Test {
 protected:
  VerbsCm() {
    calls->machine.names = {"fake0", "fake1", "fake2", "fake3"};
    for (std::uint8_t i = 0; i < 4; ++i) {
      const auto name = calls->machine.names[i];
      calls->machine.own_gids[name] = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 9, 0, i})};
      cm.devices[i] = name;
    }
  }
  // What both ranks say where they do not meet.
  std::string said(const std::string& verbs_0 = "connect=cm", const std::string& verbs_1 = "connect=cm") {
    TwoRanks ranks(*calls, verbs_0, verbs_1, 0, &cm);
    if (!ranks.errors[0] || !ranks.errors[1]) return "they met";
    return ranks.errors[0]->message + " | " + ranks.errors[1]->message;
  }

  std::unique_ptr<testing::FakeVerbs> calls = fake();
  FakeCm cm;
};

TEST_F(VerbsCm, ConnectsEveryQueuePairOfAPipe) {
  for (const std::string more : {"", ",pairs=3", ",rails=2,pairs=2"}) {
    {
      TwoRanks ranks(*calls, "connect=cm" + more, "connect=cm" + more, 1, &cm);
      ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]) << more;
      EXPECT_THAT(ranks.transports[0]->describe(), HasSubstr("connected by rdma_cm"));
      for (const std::size_t bytes : {0, 40, 5000, 300'000}) ASSERT_TRUE(ranks.message(bytes)) << bytes;
      ranks.meet_again();
      ASSERT_TRUE(ranks.message(100));
    }
    EXPECT_EQ(calls->broken_rule, "");
    EXPECT_TRUE(calls->empty());
    EXPECT_TRUE(cm.empty());
  }
}

TEST_F(VerbsCm, TheTransportsSettingsGoBeforeThoseOfTheConnection) {
  const std::string verbs = "connect=cm,timeout=18,retry=5,mtu=1024,traffic_class=106,service_level=3";
  TwoRanks ranks(*calls, verbs, verbs, 0, &cm);
  ASSERT_TRUE(ranks.message(100));
  int ready = 0, sending = 0;
  for (const auto& [attributes, mask] : calls->states) {
    if (attributes.qp_state == IBV_QPS_RTR) {
      ++ready;
      EXPECT_EQ(attributes.path_mtu, IBV_MTU_1024);
      EXPECT_EQ(attributes.ah_attr.grh.traffic_class, 106);
      EXPECT_EQ(attributes.ah_attr.sl, 3);
    } else if (attributes.qp_state == IBV_QPS_RTS) {
      ++sending;
      EXPECT_EQ(attributes.timeout, 18);
      EXPECT_EQ(attributes.retry_cnt, 5);
    }
  }
  EXPECT_EQ(ready, 2);
  EXPECT_EQ(sending, 2);
}

TEST_F(VerbsCm, ALostQuestionForAnAddressIsAskedAgain) {
  cm.lost_addresses = 3;
  EXPECT_EQ(said(), "they met");
  cm.lost_addresses = 100;
  EXPECT_THAT(said(), HasSubstr("rdma_cm found no way to 10.9.0.1 port"));
  EXPECT_TRUE(cm.empty());
}

TEST_F(VerbsCm, EveryStepThatFailsHasASentenceAtBothRanks) {
  using Step = CmStep;
  for (const auto& [step, status, words] :
       {std::tuple{Step::address_error, -EHOSTUNREACH, "is there a route to it from this device's address"},
        {Step::route_error, -EINVAL, "rdma_cm found no route to 10.9.0.1"},
        {Step::unreachable, -ETIMEDOUT, "did not answer rdma_cm (Connection timed out)"},
        {Step::connect_error, -EIO, "could not finish the connection"},
        {Step::rejected, 8, "nobody listens at 10.9.0.1 port"},
        {Step::rejected, 28, "refused rdma_cm's request"},
        {Step::rejected, 10, "(reason 10)"},
        {Step::disconnected, 0, "hung up on rdma_cm"},
        {Step::device_removed, 0, "the device was taken away"}}) {
    cm.breaks = step;
    cm.status = status;
    const auto both = said();
    EXPECT_THAT(both, AllOf(HasSubstr(std::string("rank 1 on host-b (lane 0): ")), HasSubstr(words),
                            HasSubstr(std::string("it refused: ")), HasSubstr("rank 0 on host-a")));
  }
  EXPECT_TRUE(cm.empty());
  EXPECT_TRUE(calls->empty());
}

TEST_F(VerbsCm, WhoDoesNotProveTheSecretIsRefused) {
  cm.forges_requests = true;
  EXPECT_THAT(said(), HasSubstr("10.9.0.1 port 40001 refused rdma_cm's request"));
  cm.forges_requests = false;
  cm.forges_responses = true;
  EXPECT_THAT(said(), HasSubstr("did not prove the job's secret"));
  EXPECT_TRUE(cm.empty());
}

TEST_F(VerbsCm, WhatCannotBeIsRefusedWithWhatToDo) {
  EXPECT_THAT(said("connect=cm", ""), HasSubstr("give all ranks the same verbs setting connect"));
  cm.other_device = "fake3";
  EXPECT_THAT(said(),
              AllOf(HasSubstr("rdma_cm takes fake3 port 1 for the way to 10.9.0.1"), HasSubstr("not fake0 port 1")));
  const auto refused = [&](CmCalls* through, Code code, const char* words) {
    Settings settings;
    settings.verbs = "connect=cm";
    const auto made = VerbsTransport::make(settings, *calls, through);
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, code);
    EXPECT_THAT(made.error().message, HasSubstr(words));
  };
  refused(nullptr, Code::unavailable, "built without librdmacm; install librdmacm-dev");
  cm.absent = true;
  refused(&cm, Code::unavailable, "modprobe rdma_ucm");
  cm.absent = false;
  calls->machine.own_gids["fake0"] = {gid_entry(0, IBV_GID_TYPE_ROCE_V2, {0xfe, 0x80, 0, 0, 0, 0, 0, 1})};
  refused(&cm, Code::unavailable, "fake0 port 1 has no IP address");
  EXPECT_TRUE(cm.empty());
}

}  // namespace
}  // namespace gradrail::verbs

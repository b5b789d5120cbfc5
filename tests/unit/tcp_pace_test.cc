// What keeps long messages over tcp in step: it holds back who is ahead, and never for good.
#include <gtest/gtest.h>

#include "transports/tcp/endpoint.h"
#include "transports/tcp/pace.h"

namespace gradrail {
namespace {

constexpr std::size_t k_turn = 256 << 10;

// Looks until a send is allowed.
int looks_until_sent(Pace& pace) {
  int looks = 1;
  while (!pace.may_send() && looks < 1'000'000) ++looks;
  return looks;
}

TEST(TcpPace, OneTurnLeavesAndTheNextWhenAsMuchHasCome) {
  Pace pace;
  for (int turn = 0; turn < 8; ++turn) {
    EXPECT_TRUE(pace.may_send());
    pace.sent(k_turn);
    EXPECT_FALSE(pace.may_send());
    pace.received(k_turn - 1);
    EXPECT_FALSE(pace.may_send());
    pace.received(1);
  }
  EXPECT_TRUE(pace.may_send());
}

TEST(TcpPace, WhoOnlySendsIsHeldBackForABoundedNumberOfLooks) {
  Pace pace;
  int waited = 0;
  for (int turn = 0; turn < 1024; ++turn) {
    waited += looks_until_sent(pace) > 1 ? 1 : 0;
    pace.sent(k_turn);
  }
  // The further it has been ahead, the further it may be.
  EXPECT_LE(waited, 11);
}

TEST(TcpPace, WhoIsInStepAgainIsKeptInStepAgain) {
  Pace pace;
  pace.sent(4 * k_turn);
  EXPECT_GT(looks_until_sent(pace), 1);
  pace.received(2 * k_turn);
  EXPECT_TRUE(pace.may_send());
  pace.received(2 * k_turn);
  pace.sent(k_turn);
  EXPECT_FALSE(pace.may_send());
}

TEST(TcpPace, WhatWasReceivedLongAgoIsNoReasonToRunFarAhead) {
  Pace pace;
  pace.received(1 << 30);
  pace.sent(1 << 20);
  EXPECT_FALSE(pace.may_send());
}

TEST(TcpTurns, CallsSendWholeSegmentsAndNoScrapIsLeftForTheLast) {
  for (const std::size_t segment : {std::size_t{1448}, std::size_t{65483}, k_long_turn_bytes}) {
    for (const std::size_t message : {1u, 300u << 10, 1u << 20, 5'000'000u}) {
      for (std::size_t rest = message; rest > 0;) {
        const std::size_t sent = whole_segments_of(rest, segment);
        ASSERT_GT(sent, 0u);
        ASSERT_LE(sent, k_long_turn_bytes + segment);
        rest -= sent;
        if (rest == 0) break;
        EXPECT_EQ(sent % segment, 0u) << message << " bytes in segments of " << segment;
        EXPECT_GT(rest, segment) << message << " bytes in segments of " << segment;
      }
    }
  }
}

}  // namespace
}  // namespace gradrail

// Ranks that were started with different transports: each names both, instead of doubting the job's secret.
#include "transports/meet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "transports/settings.h"

namespace gradrail {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Address address_of_transport(const std::string& name, int rank) {
  Settings settings;
  settings.rank = rank;
  settings.ranks = 2;
  auto transport = make_transport(name, settings);
  EXPECT_TRUE(transport) << transport.error().message;
  return (*transport)->listen().value();
}

TEST(Meet, PeersOfAnotherTransportAreNamedOnBothSides) {
  for (const auto& [mine, theirs] : {std::pair<std::string, std::string>{"tcp", "shm"}, {"shm", "tcp"}})
    for (const int rank : {0, 1}) {
      SCOPED_TRACE(mine + " meets " + theirs);
      Settings settings;
      settings.rank = rank;
      settings.ranks = 2;
      auto transport = make_transport(mine, settings).value();
      ASSERT_TRUE(transport->listen());
      const Peer peer{1 - rank, 0, "host-b", address_of_transport(theirs, 1 - rank)};
      const auto met = transport->connect({&peer, 1}, Deadline::after(Seconds(20)));
      ASSERT_FALSE(met);
      EXPECT_EQ(met.error().code, Code::bad_usage);
      EXPECT_EQ(met.error().peer, 1 - rank);
      EXPECT_THAT(met.error().message,
                  AllOf(HasSubstr("rank " + std::to_string(1 - rank) + " on host-b"),
                        HasSubstr("uses transport " + theirs + ", this rank " + mine), HasSubstr("--transport")));
    }
}

TEST(Meet, WhatIsNoAddressIsNotTakenForATransport) {
  for (const Bytes& bytes : {Bytes{}, Bytes(3, std::byte{7}), Bytes(40, std::byte{0xff}), Bytes(8, std::byte{0})}) {
    const auto same = same_transport({1, 0, "host-b", bytes}, "tcp");
    ASSERT_FALSE(same);
    EXPECT_EQ(same.error().code, Code::malformed);
    EXPECT_THAT(same.error().message, HasSubstr("another build of gradrail"));
  }
}

}  // namespace
}  // namespace gradrail

// What stands in the place of a transport that was not built: tests/CMakeLists.txt makes one, as a folder whose library
// is not found would.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "transports/settings.h"

namespace gradrail {

extern const TransportKind k_pigeon_transport;

namespace {

TEST(AbsentTransport, SaysWhyItIsNotThere) {
  EXPECT_EQ(k_pigeon_transport.name, "pigeon");
  EXPECT_EQ(k_pigeon_transport.summary, "homing pigeons");
  const auto there = k_pigeon_transport.available();
  ASSERT_FALSE(there);
  EXPECT_EQ(there.error().code, Code::unavailable);
  EXPECT_THAT(there.error().message, ::testing::HasSubstr("built without libpigeon"));
}

TEST(AbsentTransport, IsNotMade) {
  const auto made = k_pigeon_transport.make({});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, Code::unavailable);
}

}  // namespace
}  // namespace gradrail

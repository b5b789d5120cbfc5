// At which bandwidth of a link encoding breaks even, on made-up times.
#include <gtest/gtest.h>

#include <algorithm>

#include "bench/measure/point.h"

namespace gradrail {
namespace {

// A link of `gbs` on which `hidden` of the shorter of coding and the wire is hidden behind the longer.
CodedAndDense measured_on(double gbs, double hidden, double ratio = 4) {
  CodedAndDense measured;
  measured.dense_bytes = 64e6;
  measured.coded_bytes = measured.dense_bytes / ratio;
  measured.coding_us = 8000;
  measured.dense_us = measured.dense_bytes / gbs * 1e-3;
  const double wire = measured.coded_bytes / gbs * 1e-3;
  measured.coded_us = measured.coding_us + wire - hidden * std::min(measured.coding_us, wire);
  return measured;
}

TEST(BreakEven, CodingAndTheWireOneAfterTheOther) {
  // 48 MB are saved in 8 ms.
  EXPECT_NEAR(break_even_gbs(measured_on(1, 0)), 6, 1e-9);
}

TEST(BreakEven, WhatIsHiddenCountsForNothing) {
  // All of the wire is hidden where coding takes longer: 64 MB in 8 ms.
  EXPECT_NEAR(break_even_gbs(measured_on(1, 1)), 8, 1e-9);
  EXPECT_NEAR(break_even_gbs(measured_on(1, 0.5)), 7, 1e-9);
}

TEST(BreakEven, IsTheSameOnWhateverLinkItWasMeasured) {
  for (const double hidden : {0.0, 0.3, 1.0})
    for (const double ratio : {1.5, 2.0, 4.0, 40.0}) {
      const double at = break_even_gbs(measured_on(1, hidden, ratio));
      for (const double gbs : {0.1, 3.0, 30.0})
        EXPECT_NEAR(break_even_gbs(measured_on(gbs, hidden, ratio)) / at, 1, 1e-6) << hidden << " " << ratio;
      // And there both really take as long.
      const CodedAndDense there = measured_on(at, hidden, ratio);
      EXPECT_NEAR(there.coded_us / there.dense_us, 1, 1e-6) << hidden << " " << ratio;
    }
}

TEST(BreakEven, MoreThanCodingAndTheWireCountsAsCoding) {
  CodedAndDense measured = measured_on(1, 0);
  measured.coded_us += 4000;
  EXPECT_NEAR(break_even_gbs(measured), 4, 1e-9) << "48 MB in 12 ms";
}

TEST(BreakEven, NothingIsTakenToBeHiddenWithoutAnUncompressedRun) {
  CodedAndDense measured = measured_on(1, 1);
  measured.dense_us = 0;
  EXPECT_NEAR(break_even_gbs(measured), 6, 1e-9);
}

TEST(BreakEven, NoBytesSavedPayNowhere) {
  EXPECT_EQ(break_even_gbs(measured_on(1, 0, 1)), 0);
  EXPECT_EQ(break_even_gbs(measured_on(1, 0.5, 0.5)), 0);
  EXPECT_EQ(break_even_gbs({}), 0);
}

}  // namespace
}  // namespace gradrail

// For tests that run on every instruction set that kernels are built for and this machine has.
#pragma once

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gradrail {

[[nodiscard]] inline std::vector<std::int64_t> simd_targets_here() {
  std::vector<std::int64_t> out = {HWY_EMU128};
  for (const std::int64_t target : {HWY_SSE4, HWY_AVX2, HWY_AVX3, HWY_NEON})
    if (hwy::SupportedTargets() & target) out.push_back(target);
  return out;
}

[[nodiscard]] inline std::string simd_target_name(const testing::TestParamInfo<std::int64_t>& param) {
  return hwy::TargetName(param.param);
}

// Kernels take the instruction set that is the test's parameter, while the test runs.
class OnSimdTarget : public testing::TestWithParam<std::int64_t> {
 protected:
  void SetUp() override {
    hwy::SetSupportedTargetsForTest(0);
    ASSERT_NE(hwy::SupportedTargets() & GetParam(), 0);
    hwy::SetSupportedTargetsForTest(GetParam());
    hwy::GetChosenTarget().Update(GetParam());
  }
  void TearDown() override {
    hwy::SetSupportedTargetsForTest(0);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

}  // namespace gradrail

// What a user may say to UCX, and what becomes of it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <optional>
#include <string>

#include "transports/settings.h"

namespace gradrail {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Ucx : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const auto& kind : transport_kinds())
      if (kind.name == "ucx")
        if (const auto there = kind.available(); !there) GTEST_SKIP() << there.error().message;
  }
};

// A variable of the environment, for as long as this lives.
class Variable {
 public:
  Variable(std::string name, const std::string& value) : name_(std::move(name)) {
    if (const char* before = std::getenv(name_.c_str())) before_ = before;
    ::setenv(name_.c_str(), value.c_str(), 1);
  }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;
  ~Variable() {
    if (before_) {
      ::setenv(name_.c_str(), before_->c_str(), 1);
    } else {
      ::unsetenv(name_.c_str());
    }
  }

 private:
  std::string name_;
  std::optional<std::string> before_;
};

TEST_F(Ucx, SettingsThatItDoesNotTakeAreOneSentence) {
  struct Wrong {
    const char* name;
    const char* value;
    const char* named;
  };
  for (const auto& [name, value, named] : {Wrong{"UCX_TLS", "pigeon", "pigeon"},
                                           {"UCX_TLS", "tcp,pigeon", "pigeon"},
                                           {"UCX_NET_DEVICES", "pigeon0:1", "pigeon0:1"},
                                           {"UCX_RNDV_THRESH", "often", "RNDV_THRESH"}}) {
    SCOPED_TRACE(fmt::format("{}={}", name, value));
    const Variable variable(name, value);
    ::testing::internal::CaptureStderr();
    const auto made = make_transport("ucx", {});
    EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().code, Code::bad_usage);
    EXPECT_THAT(made.error().message, AllOf(HasSubstr("UCX"), HasSubstr(named), Not(HasSubstr("\n"))));
  }
  EXPECT_TRUE(make_transport("ucx", {})) << "nothing of that stays";
}

TEST_F(Ucx, SaysWhatMayBeUsed) {
  const Variable only("UCX_TLS", "tcp,self");
  const auto made = make_transport("ucx", {});
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_THAT((*made)->describe(), AllOf(HasSubstr("UCX_TLS=tcp,self"), HasSubstr("tcp/lo"), Not(HasSubstr("sysv"))));
}

TEST_F(Ucx, MemoryOfDevicesThatItDoesNotKnowIsRefused) {
  const auto made = make_transport("ucx", {});
  ASSERT_TRUE(made) << made.error().message;
  std::byte byte{};
  const auto refused = (*made)->register_memory({&byte, 1, Space::cuda, 0});
  if (refused) GTEST_SKIP() << "this UCX has CUDA";
  EXPECT_EQ(refused.error().code, Code::unsupported);
  EXPECT_THAT(refused.error().message, HasSubstr("CUDA"));
}

}  // namespace
}  // namespace gradrail

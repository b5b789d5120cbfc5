// What is registered with RDMA devices, over devices that do not exist: what is shared, what is kept, for how long, and
// that an address which means other pages by now is never taken for the old one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>

#include "tests/unit/verbs_fake.h"
#include "transports/verbs/registrations.h"

namespace gradrail::verbs {
namespace {

using testing::FakeVerbs;
using testing::gid_entry;
using ::testing::HasSubstr;

constexpr std::size_t k_bytes = 1 << 20;

class VerbsRegistrations : public ::testing::Test {
 protected:
  VerbsRegistrations() {
    calls_.machine.gids = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 9, 0, 1})};
    rails_ = Device::open_all(calls_, {}, 0, "127.0.0.1").value();
    begin(16 * k_bytes);
  }
  ~VerbsRegistrations() override {
    registrations_.reset();
    EXPECT_EQ(calls_.registered_bytes(), 0U) << "everything is given back";
  }
  void begin(std::size_t most_unused_bytes) {
    registrations_ = std::make_unique<Registrations>(rails_, most_unused_bytes);
  }
  Registrations::Use use(std::byte* data, std::size_t bytes = k_bytes) {
    return registrations_->use({data, bytes}).value();
  }
  // Registrations made so far.
  [[nodiscard]] std::uint64_t made() const { return registrations_->counts().made; }
  [[nodiscard]] bool keeps_plain() { return Lifetimes::start().has_value(); }

  FakeVerbs calls_;
  std::vector<std::unique_ptr<Device>> rails_;
  std::unique_ptr<Registrations> registrations_;
};

std::byte* map(std::size_t bytes = k_bytes, void* where = nullptr) {
  void* memory = ::mmap(where, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | (where == nullptr ? 0 : MAP_FIXED), -1, 0);
  EXPECT_NE(memory, MAP_FAILED);
  return static_cast<std::byte*>(memory);
}

TEST_F(VerbsRegistrations, TheSameRangeAndPartsOfItShareOneWhileItIsInUse) {
  std::byte* const memory = map();
  const auto first = use(memory);
  {
    const auto again = use(memory);
    const auto part = use(memory + 5000, 100);
    EXPECT_EQ(made(), 1U);
    EXPECT_EQ(again.remote_key(0), first.remote_key(0));
    EXPECT_EQ(part.local_key(0), first.local_key(0));
    const auto beyond = use(memory + 5000, k_bytes - 5000);
    EXPECT_EQ(made(), 1U);
  }
  EXPECT_EQ(calls_.registrations, 1U);
  const auto none = use(memory, 0);
  EXPECT_EQ(none.local_key(0), 0U);
  ::munmap(memory, k_bytes);
}

TEST_F(VerbsRegistrations, PlainMemoryStaysRegisteredAfterUseWhileItIsThere) {
  if (!keeps_plain()) GTEST_SKIP() << "this kernel does not tell when memory is given back";
  std::byte* const memory = map();
  for (int i = 0; i < 5; ++i) const auto one = use(memory);
  const auto part = use(memory + 4096, 4096);
  EXPECT_EQ(made(), 1U);
  EXPECT_EQ(registrations_->not_kept(), "");
  ::munmap(memory, k_bytes);
}

// The device would go on writing to pages that nobody sees.
TEST_F(VerbsRegistrations, AnAddressThatMeansOtherPagesIsRegisteredAnew) {
  if (!keeps_plain()) GTEST_SKIP() << "this kernel does not tell when memory is given back";
  std::byte* const memory = map();
  std::uint64_t expected = 0;
  const std::pair<const char*, void (*)(std::byte*)> ways[] = {
      {"unmapped and mapped again",
       [](std::byte* p) {
         ::munmap(p, k_bytes);
         map(k_bytes, p);
       }},
      {"mapped over", [](std::byte* p) { map(k_bytes, p); }},
      {"a page of it emptied", [](std::byte* p) { ::madvise(p + 8192, 4096, MADV_DONTNEED); }},
  };
  for (const auto& [name, renew] : ways) {
    static_cast<void>(use(memory));
    EXPECT_EQ(made(), ++expected) << name;
    static_cast<void>(use(memory));
    EXPECT_EQ(made(), expected) << name;
    renew(memory);
    EXPECT_EQ(registrations_->counts().unused_bytes, k_bytes) << name << ": not looked at yet";
  }
  static_cast<void>(use(memory));
  EXPECT_EQ(made(), ++expected);
  ::munmap(memory, k_bytes);
}

// Here a part is in use all the time, and what lies around it is given back and comes anew.
TEST_F(VerbsRegistrations, APartInUseVouchesForNoMoreThanItself) {
  std::byte* const memory = map();
  for (const std::size_t keep : {16 * k_bytes, std::size_t(0)}) {
    begin(keep);
    auto whole = use(memory);
    const auto part = use(memory + k_bytes / 2, 4096);
    whole = {};
    ::munmap(memory, 4096);
    map(4096, memory);
    EXPECT_EQ(made(), 1U);
    const auto first_page = use(memory, 4096);
    EXPECT_EQ(made(), 2U) << "the old registration still has the old page";
    EXPECT_NE(first_page.remote_key(0), part.remote_key(0));
    const auto within_part = use(memory + k_bytes / 2 + 64, 64);
    EXPECT_EQ(made(), keep == 0 ? 2U : 3U);
    static_cast<void>(within_part);
  }
  ::munmap(memory, k_bytes);
}

TEST_F(VerbsRegistrations, WhatIsUnusedIsBoundedAndTheOldestGoesFirst) {
  if (!keeps_plain()) GTEST_SKIP() << "this kernel does not tell when memory is given back";
  begin(3 * k_bytes);
  std::byte* const memory = map(5 * k_bytes);
  const auto held = use(memory + 4 * k_bytes);
  for (std::size_t i = 0; i < 3; ++i) static_cast<void>(use(memory + i * k_bytes));
  EXPECT_EQ(registrations_->counts().unused_bytes, 3 * k_bytes);
  static_cast<void>(use(memory));  // now the second is the oldest
  EXPECT_EQ(made(), 4U);
  static_cast<void>(use(memory + 3 * k_bytes));
  EXPECT_EQ(registrations_->counts().unused_bytes, 3 * k_bytes);
  EXPECT_EQ(calls_.registered_bytes(), 4 * k_bytes) << "what is in use is there, and does not count";
  static_cast<void>(use(memory));
  EXPECT_EQ(made(), 5U);
  static_cast<void>(use(memory + k_bytes));
  EXPECT_EQ(made(), 6U);
  ::munmap(memory, 5 * k_bytes);
}

TEST_F(VerbsRegistrations, NothingIsKeptWhereNothingMayBe) {
  begin(0);
  std::byte* const memory = map();
  static_cast<void>(use(memory));
  EXPECT_EQ(calls_.registered_bytes(), 0U);
  static_cast<void>(registrations_->allocate(k_bytes).value());
  EXPECT_EQ(calls_.registered_bytes(), 0U);
  ::munmap(memory, k_bytes);
}

TEST_F(VerbsRegistrations, AllocatedMemoryIsTakenAgainAndZeroed) {
  const std::byte* where = nullptr;
  {
    const auto one = registrations_->allocate(100'000).value();
    where = one.allocated();
    std::memset(one.allocated(), 7, 100'000);
  }
  {
    const auto again = registrations_->allocate(90'000).value();
    EXPECT_EQ(again.allocated(), where);
    EXPECT_EQ(made(), 1U);
    EXPECT_TRUE(std::all_of(again.allocated(), again.allocated() + 90'000, [](auto b) { return b == std::byte{0}; }));
    const auto other = registrations_->allocate(100'000).value();
    EXPECT_NE(other.allocated(), where) << "in use";
  }
  const auto small = registrations_->allocate(1000).value();
  EXPECT_EQ(made(), 3U) << "what is much too large stays for others";
}

TEST_F(VerbsRegistrations, WhatIsUnusedGivesWayWhereMemoryToPinIsShort) {
  calls_.machine.memory = 3 * k_bytes;
  static_cast<void>(registrations_->allocate(2 * k_bytes).value());
  EXPECT_EQ(calls_.registered_bytes(), 2 * k_bytes);
  std::byte* const memory = map(4 * k_bytes);
  const auto one = use(memory, 3 * k_bytes);
  EXPECT_EQ(calls_.registered_bytes(), 3 * k_bytes);
  const auto refused = registrations_->use({memory + k_bytes, 3 * k_bytes});
  ASSERT_FALSE(refused) << "what is in use does not";
  EXPECT_THAT(refused.error().message, HasSubstr("3145728 bytes"));
  ::munmap(memory, 4 * k_bytes);
}

}  // namespace
}  // namespace gradrail::verbs

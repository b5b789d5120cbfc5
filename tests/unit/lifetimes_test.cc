// Lifetimes: every way in which memory goes back to the system is noticed by the time that it has.
#include "transports/base/lifetimes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>

namespace gradrail {
namespace {

constexpr std::size_t k_bytes = 1 << 20;

std::byte* map(std::size_t bytes = k_bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  EXPECT_NE(memory, MAP_FAILED);
  std::memset(memory, 1, bytes);
  return static_cast<std::byte*>(memory);
}
AddressRange range_of(const std::byte* data, std::size_t bytes = k_bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  return {begin, begin + bytes};
}

class LifetimesTest : public testing::Test {
 protected:
  void SetUp() override {
    auto started = Lifetimes::start();
    if (!started) GTEST_SKIP() << started.error().message;
    lifetimes_ = std::move(*started);
  }
  std::unique_ptr<Lifetimes> lifetimes_;
  Lifetimes::Gone gone_;
};

TEST_F(LifetimesTest, EveryWayOfGivingBackIsToldByTheTimeItIsDone) {
  const std::pair<const char*, std::function<void(std::byte*)>> ways[] = {
      {"unmapped", [](std::byte* p) { ::munmap(p, k_bytes); }},
      {"a page of it unmapped", [](std::byte* p) { ::munmap(p + 8192, 4096); }},
      {"mapped over", [](std::byte* p) { ::mmap(p, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0); }},
      {"emptied", [](std::byte* p) { ::madvise(p + 4096, 4096, MADV_DONTNEED); }},
      {"emptied when the system likes", [](std::byte* p) { ::madvise(p, k_bytes, MADV_FREE); }},
      {"moved", [](std::byte* p) { ::mremap(p, k_bytes, 4 * k_bytes, MREMAP_MAYMOVE); }},
      {"unmapped by another thread", [](std::byte* p) { std::thread([p] { ::munmap(p, k_bytes); }).join(); }},
  };
  for (const auto& [name, give_back] : ways) {
    // With nothing to grow into, so that what grows must move.
    std::byte* const memory = map(2 * k_bytes);
    ASSERT_TRUE(lifetimes_->watch(range_of(memory))) << name;
    EXPECT_FALSE(lifetimes_->take_gone(gone_)) << name;
    give_back(memory);
    ASSERT_TRUE(lifetimes_->take_gone(gone_)) << name;
    EXPECT_TRUE(gone_.touches(range_of(memory))) << name;
    EXPECT_FALSE(gone_.touches(range_of(memory + k_bytes))) << name;
    EXPECT_FALSE(lifetimes_->take_gone(gone_)) << name;
  }
}

TEST_F(LifetimesTest, UseIsNotGivingBack) {
  std::byte* const memory = map();
  ASSERT_TRUE(lifetimes_->watch(range_of(memory)));
  std::memset(memory, 2, k_bytes);
  ::mprotect(memory, 4096, PROT_READ);
  EXPECT_FALSE(lifetimes_->take_gone(gone_));
  lifetimes_->unwatch(range_of(memory));
  ::munmap(memory, k_bytes);
  EXPECT_FALSE(lifetimes_->take_gone(gone_)) << "nobody asked any more";
}

TEST_F(LifetimesTest, MoreThanCanBeCountedIsAll) {
  constexpr std::size_t k_pages = Lifetimes::Gone::k_most + 10;
  std::byte* const memory = map(2 * k_pages * 4096);
  ASSERT_TRUE(lifetimes_->watch(range_of(memory, 2 * k_pages * 4096)));
  for (std::size_t i = 0; i < k_pages; ++i) ::munmap(memory + 2 * i * 4096, 4096);
  ASSERT_TRUE(lifetimes_->take_gone(gone_));
  EXPECT_TRUE(gone_.all);
  EXPECT_TRUE(gone_.touches({1, 2}));
}

TEST_F(LifetimesTest, WhatIsNotMappedCannotBeWatched) {
  std::byte* const memory = map();
  ::munmap(memory, k_bytes);
  EXPECT_FALSE(lifetimes_->watch(range_of(memory)));
}

TEST_F(LifetimesTest, PagesAreThoseThatARangeTouches) {
  const auto pages = pages_around({4097, 8193});
  EXPECT_EQ(pages.begin, 4096U);
  EXPECT_EQ(pages.end, 3 * 4096U);
}

}  // namespace
}  // namespace gradrail

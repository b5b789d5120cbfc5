// Ranks that were started with different settings, or that are different builds: where that cannot work, each is told
// what differs and what to do, or that the other refused and why.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/verbs_cm_fake.h"
#include "tests/unit/verbs_ranks.h"
#include "transports/bare.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::fake;
using testing::FakeCm;
using ::testing::HasSubstr;
using testing::TwoRanks;

// Both ranks name the peer, and the sentence of the one that noticed.
void expect_refused(const TwoRanks& ranks, const std::string& words) {
  ASSERT_TRUE(ranks.errors[0] && ranks.errors[1]) << words;
  EXPECT_EQ(ranks.errors[0]->peer, 1);
  EXPECT_EQ(ranks.errors[1]->peer, 0);
  EXPECT_THAT(ranks.errors[0]->message, AllOf(HasSubstr("rank 1 on host-b"), HasSubstr(words)));
  EXPECT_THAT(ranks.errors[1]->message, HasSubstr("rank 0 on host-a"));
  const std::string& first = ranks.errors[0]->message;
  const std::string& second = ranks.errors[1]->message;
  EXPECT_TRUE((first.find("refused") != first.npos) != (second.find("refused") != second.npos))
      << "one noticed, and the other was told: " << first << "; " << second;
}

Settings with_slots(std::size_t slots, std::size_t bytes) {
  Settings settings;
  settings.slots = slots;
  settings.slot_bytes = bytes;
  return settings;
}

TEST(VerbsSettings, SlotsThatDifferAreNamedWithBothRanks) {
  for (const auto& [mine, theirs, said] :
       {std::tuple{with_slots(8, 32768), with_slots(16, 32768), "8 x 32768 bytes, this rank's 16 x 32768"},
        {with_slots(8, 32768), with_slots(8, 16384), "8 x 32768 bytes, this rank's 8 x 16384"},
        // As many bytes in all.
        {with_slots(16, 16384), with_slots(8, 32768), "16 x 16384 bytes, this rank's 8 x 32768"},
        // Only what goes at once differs.
        {with_slots(64, 4096), with_slots(32, 8192), "64 x 4096 bytes, this rank's 32 x 8192"}}) {
    const auto calls = fake();
    const TwoRanks ranks(*calls, mine, theirs);
    expect_refused(ranks, fmt::format("its slots are {}; give all ranks the same", said));
  }
}

TEST(VerbsSettings, WhatRanksMustHaveAlikeIsNamed) {
  for (const auto& [verbs_0, verbs_1, words] :
       {std::tuple{"pairs=2", "",
                   "its pipes have 2 queue pairs over 1 rails, this rank's 1 over 1; give all ranks the same verbs "
                   "settings pairs and rails"},
        {"rails=2", "pairs=2", "its pipes have 2 queue pairs over 2 rails, this rank's 2 over 1"},
        {"mtu=1024", "mtu=4096",
         "a path MTU of 4096 bytes was asked for fake1 port 1, and the peer's device takes 1024; give both the same "
         "MTU, or leave out the verbs setting mtu"}}) {
    const auto calls = fake();
    const TwoRanks ranks(*calls, verbs_0, verbs_1);
    expect_refused(ranks, words);
  }
}

TEST(VerbsSettings, WaysToConnectThatDifferAreNamed) {
  for (const auto& [verbs_0, verbs_1] : {std::pair{"connect=cm", ""}, {"", "connect=cm"}}) {
    const auto calls = fake();
    FakeCm cm;
    const TwoRanks ranks(*calls, verbs_0, verbs_1, 0, &cm);
    expect_refused(
        ranks, "its queue pairs connect another way than this rank's; give all ranks the same verbs setting connect");
  }
}

TEST(VerbsSettings, DevicesOfDifferentNetworksAreNamed) {
  const auto calls = fake();
  calls->machine.own_gids["fake1"] = {};
  calls->machine.own_links["fake1"] = IBV_LINK_LAYER_INFINIBAND;
  const TwoRanks ranks(*calls);
  expect_refused(ranks, "fake1 port 1 is InfiniBand by LID, the peer's device is not; choose devices of one network");
}

TEST(VerbsSettings, WhatRanksMayHaveDifferentWorks) {
  for (const auto& [verbs_0, verbs_1] : {std::pair{"srq=1", ""},
                                         {"", "srq=1"},
                                         {"timeout=18,retry=5", "traffic_class=106"},
                                         {"inline=0", "inline=64"},
                                         {"cache=0", "chunk=64"},
                                         {"mtu=1024", ""}}) {
    const auto calls = fake();
    calls->machine.shared_queues = 2;
    TwoRanks ranks(*calls, verbs_0, verbs_1);
    ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]) << verbs_0 << " and " << verbs_1;
    for (const std::size_t bytes : {8, 5000, 100'000}) EXPECT_TRUE(ranks.message(bytes)) << bytes;
  }
}

// A rank of another build, which says what it likes.
struct Stranger final : Conversation {
  explicit Stranger(Bytes word) : says(std::move(word)) {}
  Result<Bytes> introduce() override { return says; }
  Result<void> agree(std::span<const std::byte>) override { return {}; }
  Bytes says;
};

TEST(VerbsSettings, RanksOfOtherBuildsAreToldSo) {
  Introduction sound;
  sound.ring_bytes = Settings().slot_bytes * Settings().slots;
  sound.part_bytes = Settings().slot_bytes;
  sound.eager_bytes = k_most_eager_bytes;
  sound.pairs.resize(1);
  Introduction newer = sound, narrow = sound, lost = sound;
  newer.version = Introduction::k_version + 1;
  narrow.window = k_shared_parts - 1;
  lost.pairs[0].rail = 1;
  for (const auto& [word, sentence] : {std::pair{newer.pack(), "it is another build of gradrail"},
                                       {Bytes(7, std::byte{1}), "it is another build of gradrail"},
                                       {narrow.pack(), "what it says of its queue pairs cannot be"},
                                       {lost.pack(), "what it says of its queue pairs cannot be"}}) {
    const auto calls = fake();
    Settings settings[2];
    for (const int rank : {0, 1}) settings[rank].rank = rank, settings[rank].ranks = 2;
    auto transport = VerbsTransport::make(settings[0], *calls).value();
    const Address here = transport->listen().value();
    Introductions introductions("verbs", Introduction::k_most_bytes);
    const Address there = introductions.listen(settings[1]).value();
    std::thread stranger([&, said = word] {
      Stranger conversation(said);
      Conversation* const conversations[] = {&conversation};
      const Peer peer{0, 0, "host-a", here};
      const auto met = introductions.meet(settings[1], {&peer, 1}, conversations, Deadline::after(Seconds(20)));
      ASSERT_FALSE(met);
      EXPECT_THAT(met.error().message, HasSubstr("rank 0 on host-a"));
    });
    const Peer peer{1, 0, "host-b", there};
    const auto made = transport->connect({&peer, 1}, Deadline::after(Seconds(20)));
    stranger.join();
    ASSERT_FALSE(made);
    EXPECT_EQ(made.error().peer, 1);
    EXPECT_THAT(made.error().message, AllOf(HasSubstr("rank 1 on host-b"), HasSubstr(sentence)));
  }
}

TEST(VerbsSettings, OperationsOfADeviceDoNotConnectByRdmaCm) {
  const auto calls = fake();
  FakeCm cm;
  auto transport = VerbsTransport::make(TwoRanks::with("connect=cm"), *calls, &cm).value();
  const auto refused = transport->open_bare({1, 0, "host-b", {}}, BareOptions{}, Deadline::after(Seconds(5)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::bad_usage);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("rdma_cm"), HasSubstr("is for pipes")));
}

}  // namespace
}  // namespace gradrail::verbs

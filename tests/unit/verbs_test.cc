// What the verbs transport decides, over devices that do not exist (verbs_fake.h): options, devices, GIDs, splitting,
// credit, signalling, and the words for failures. The same transport over real libibverbs calls runs in
// scripts/soft-roce.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/unit/verbs_ranks.h"
#include "transports/verbs/cause.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::fake;
using testing::gid_entry;
using ::testing::HasSubstr;
using testing::TwoRanks;

TEST(VerbsOptions, AreReadAndMistakesNamed) {
  const auto options = parse_options("device=mlx5_0+mlx5_3,gid=3,mtu=1024,timeout=18,traffic_class=106");
  ASSERT_TRUE(options);
  EXPECT_THAT(options->devices, ::testing::ElementsAre("mlx5_0", "mlx5_3"));
  EXPECT_EQ(options->gid_index, 3);
  EXPECT_EQ(options->mtu, 1024);
  EXPECT_EQ(options->timeout, 18);
  EXPECT_EQ(options->traffic_class, 106);
  EXPECT_TRUE(parse_options(""));
  for (const auto& [text, words] :
       {std::pair{"colour=3", "no setting 'colour'; it has device, gpu, connect, rails, pairs, srq, port"},
        {"timeout=32", "timeout is a whole number from 1 to 31, not '32'"},
        {"timeout=", "not ''"},
        {"gid=x", "not 'x'"},
        {"retry=7x", "not '7x'"},
        {"srq=2", "srq is a whole number from 0 to 1, not '2'"},
        {"rails=4,pairs=5", "make 20 queue pairs a pipe; at most 16 are possible"},
        {"mtu=1000", "256, 512, 1024, 2048 or 4096, not '1000'"}}) {
    const auto refused = parse_options(text);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code, Code::bad_usage);
    EXPECT_THAT(refused.error().message, HasSubstr(words));
  }
}

TEST(VerbsWire, ImmediatesCreditsExtentsAndIntroductionsComeBack) {
  for (const auto note : {Note::part, Note::last_part, Note::placed, Note::advert, Note::credit, Note::question}) {
    EXPECT_EQ(note_of(immediate(note, 12345)), note);
    EXPECT_EQ(value_of(immediate(note, (1ULL << 40) + 12345)), 12345U);
  }
  EXPECT_EQ(credited_parts(credit_value(k_parts, k_most_ring_bytes)), k_parts);
  EXPECT_EQ(credited_bytes(credit_value(k_parts, k_most_ring_bytes)), k_most_ring_bytes);
  EXPECT_EQ(value_of(immediate(Note::credit, credit_value(k_parts, 2 * k_most_ring_bytes - k_grain))),
            credit_value(k_parts, 2 * k_most_ring_bytes - k_grain));
  // A part never wraps; the gap before it counts as taken.
  EXPECT_EQ(next_extent(0, 0, 1024).taken, 0U);
  EXPECT_EQ(next_extent(0, 1, 1024).taken, 64U);
  EXPECT_EQ(next_extent(3 * 1024 + 960, 64, 1024).offset, 960U);
  EXPECT_EQ(next_extent(3 * 1024 + 960, 65, 1024).offset, 0U);
  EXPECT_EQ(next_extent(3 * 1024 + 960, 65, 1024).taken, 64U + 128U);
  Introduction one;
  one.rank = 3;
  one.landing = 0x1234'5678'9abc;
  one.part_bytes = 77;
  one.pairs.resize(k_most_pairs);
  one.pairs[2].queue_pair = 5;
  auto packed = one.pack();
  EXPECT_LE(packed.size(), Introduction::k_most_bytes);
  const auto parsed = Introduction::parse(packed);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->rank, 3);
  EXPECT_EQ(parsed->landing, one.landing);
  EXPECT_EQ(parsed->part_bytes, 77U);
  ASSERT_EQ(parsed->pairs.size(), k_most_pairs);
  EXPECT_EQ(parsed->pairs[2].queue_pair, 5U);
  packed.pop_back();
  EXPECT_FALSE(Introduction::parse(packed));
}

TEST(VerbsWire, StripesCoverAMessageAndShortOnesAreNotCut) {
  EXPECT_EQ(stripes_of(2 * k_least_stripe_bytes - 1, 4), 1U);
  EXPECT_EQ(stripes_of(1 << 20, 1), 1U);
  for (const std::size_t pairs : {2, 3, 16})
    for (const std::size_t bytes : {std::size_t{64} << 10, std::size_t{100'001}, std::size_t{5'000'003}}) {
      const auto stripes = stripes_of(bytes, pairs);
      EXPECT_LE(stripes, pairs);
      EXPECT_GE(stripes, 2U);
      EXPECT_EQ(stripe_at(bytes, stripes, 0), 0U);
      EXPECT_EQ(stripe_at(bytes, stripes, stripes), bytes);
      for (std::size_t i = 0; i < stripes; ++i)
        EXPECT_LT(stripe_at(bytes, stripes, i), stripe_at(bytes, stripes, i + 1));
      for (std::size_t i = 0; i < stripes; ++i) {
        EXPECT_EQ(stripe_with(bytes, stripes, stripe_at(bytes, stripes, i)), i);
        EXPECT_EQ(stripe_with(bytes, stripes, stripe_at(bytes, stripes, i + 1) - 1), i);
      }
    }
}

TEST(VerbsGid, TheBestEntryIsChosenAndTheReasonGiven) {
  const auto v1 = gid_entry(0, IBV_GID_TYPE_ROCE_V1, {10, 0, 0, 1});
  const auto local = gid_entry(1, IBV_GID_TYPE_ROCE_V2, {0xfe, 0x80, 0, 0, 0, 0, 0, 1});
  const auto routable = gid_entry(2, IBV_GID_TYPE_ROCE_V2, {0x20, 0x01, 0, 0, 0, 0, 0, 1});
  const auto ipv4 = gid_entry(3, IBV_GID_TYPE_ROCE_V2, {10, 0, 0, 1});
  const auto other_ipv4 = gid_entry(5, IBV_GID_TYPE_ROCE_V2, {192, 168, 0, 1});
  const auto choose = [](std::vector<ibv_gid_entry> entries, std::string_view host = "127.0.0.1", int wanted = -1,
                         int layer = IBV_LINK_LAYER_ETHERNET) {
    return choose_gid(entries, layer, wanted, host, "fake0 port 1");
  };
  EXPECT_EQ(choose({v1, local, routable, ipv4, other_ipv4})->index, 3);
  EXPECT_EQ(choose({v1, local, routable, ipv4, other_ipv4}, "192.168.0.1")->index, 5);
  EXPECT_THAT(choose({v1, local, routable, ipv4, other_ipv4}, "192.168.0.1")->why, HasSubstr("listens on"));
  EXPECT_EQ(choose({v1, local, routable})->index, 2);
  EXPECT_EQ(choose({v1, local})->index, 1);
  EXPECT_THAT(choose({v1, local})->why, HasSubstr("link-local"));
  EXPECT_EQ(choose({v1})->index, 0);
  EXPECT_THAT(choose({v1})->why, HasSubstr("RoCE v1"));
  EXPECT_EQ(choose({v1, ipv4}, "127.0.0.1", 0)->index, 0);
  EXPECT_FALSE(choose({}, "", -1, IBV_LINK_LAYER_INFINIBAND)->global);
  EXPECT_TRUE(choose({v1}, "", 0, IBV_LINK_LAYER_INFINIBAND)->global);
  const auto of_kind = [&](const char* kind, std::vector<ibv_gid_entry> entries) {
    return choose_gid(entries, IBV_LINK_LAYER_ETHERNET, -1, "10.0.0.1", "fake0 port 1", parse_options(kind)->gid_kind);
  };
  EXPECT_EQ(of_kind("gid=ipv6", {v1, local, routable, ipv4})->index, 2);
  EXPECT_EQ(of_kind("gid=link-local", {v1, local, routable, ipv4})->index, 1);
  EXPECT_EQ(of_kind("gid=v1", {v1, local, routable, ipv4})->index, 0);
  EXPECT_EQ(of_kind("gid=ipv4", {v1, local, routable, ipv4})->index, 3);
  const auto no_such = of_kind("gid=ipv6", {v1, ipv4});
  ASSERT_FALSE(no_such);
  EXPECT_EQ(no_such.error().code, Code::bad_usage);
  EXPECT_THAT(no_such.error().message, HasSubstr("fake0 port 1 has no GID of the kind ipv6; it has 0"));
  const auto none = choose({});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::unavailable);
  const auto absent = choose({v1, ipv4}, "", 9);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Code::bad_usage);
  EXPECT_THAT(absent.error().message, AllOf(HasSubstr("index 9"), HasSubstr("3 (::ffff:10.0.0.1)")));
}

Result<std::unique_ptr<Device>> first_of(Result<std::vector<std::unique_ptr<Device>>> all) {
  if (!all) return tl::unexpected<Error>(std::move(all).error());
  return std::move(all->front());
}

TEST(VerbsDevice, IsTakenInTurnAndRefusedWithAReason) {
  const auto calls = fake();
  const auto open = [&](const char* text, int rank = 0) {
    return first_of(Device::open_all(*calls, parse_options(text).value(), rank, "127.0.0.1"));
  };
  EXPECT_EQ((*open("", 0))->name(), "fake0");
  EXPECT_EQ((*open("", 3))->name(), "fake1");
  EXPECT_EQ((*open("device=fake1", 0))->name(), "fake1");
  EXPECT_THAT(
      (*open("mtu=1024"))->describe(),
      HasSubstr("fake0 port 1, GID 1 ::ffff:10.9.0.1 (RoCE v2, the first with an IPv4 address), path MTU 1024"));
  const auto refused = [&](const char* text, Code code, const char* words) {
    const auto device = open(text);
    ASSERT_FALSE(device) << text;
    EXPECT_EQ(device.error().code, code) << device.error().message;
    EXPECT_THAT(device.error().message, HasSubstr(words));
  };
  refused("device=fake7", Code::bad_usage, "no RDMA device 'fake7'; there is fake0, fake1");
  refused("rails=3", Code::bad_usage, "3 rails need as many RDMA devices; there are only fake0, fake1");
  calls->machine.iwarp = {"fake0"};
  EXPECT_EQ((*open("", 0))->name(), "fake1") << "what cannot be used is passed over";
  refused("device=fake0", Code::unavailable, "fake0 is an iWARP device: it has no RDMA write with immediate");
  calls->machine.iwarp = {"fake0", "fake1"};
  refused("", Code::unavailable, "use --transport tcp there");
  EXPECT_FALSE(Device::any(*calls));
  calls->machine.iwarp.clear();
  refused("port=2", Code::bad_usage, "has no port 2; its last is 1");
  calls->machine.ports[0].mtu = IBV_MTU_1024;
  refused("mtu=4096", Code::bad_usage, "more than the 1024");
  calls->machine.ports[0].state = IBV_PORT_DOWN;
  refused("device=fake0", Code::unavailable, "fake0 port 1 is down");
  refused("", Code::unavailable, "is active");
  EXPECT_FALSE(Device::any(*calls));
  calls->machine.names.clear();
  refused("", Code::unavailable, "scripts/soft-roce");
}

TEST(VerbsDevice, SaysWhatToDoAboutLockedMemory) {
  const auto calls = fake();
  calls->machine.memory = 100;
  auto device = first_of(Device::open_all(*calls, {}, 0, "127.0.0.1"));
  ASSERT_TRUE(device);
  std::vector<std::byte> memory(200);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_MEMLOCK, &before), 0);
  rlimit small = before;
  small.rlim_cur = std::min<rlim_t>(64 << 10, before.rlim_max);
  ASSERT_EQ(::setrlimit(RLIMIT_MEMLOCK, &small), 0);
  const auto refused = (*device)->register_memory(memory.data(), memory.size());
  EXPECT_EQ(::setrlimit(RLIMIT_MEMLOCK, &before), 0);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::exhausted);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("200 bytes"), HasSubstr("KiB; raise it (ulimit -l unlimited")));
}

// Every region has a key on every rail; short messages go over the first rail of their lane, long ones over all.
TEST(VerbsPipe, LanesBeginWithTheRailsInTurnAndLongMessagesUseAll) {
  for (const int lane : {0, 1, 3}) {
    const auto calls = fake();
    {
      TwoRanks ranks(*calls, "rails=2", lane);
      ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]);
      EXPECT_THAT(ranks.transports[0]->describe(),
                  AllOf(HasSubstr("fake0 port 1"), HasSubstr("fake1 port 1"), HasSubstr("2 rails"),
                        HasSubstr("striped over 2 queue pairs")));
      const auto* const first = lane % 2 == 0 ? "fake0" : "fake1";
      const auto* const second = lane % 2 == 0 ? "fake1" : "fake0";
      for (const std::size_t bytes : {0, 40, 5000, 60'000}) ASSERT_TRUE(ranks.message(bytes)) << bytes;
      EXPECT_GE(calls->bytes_sent[first], 65'000U);
      EXPECT_EQ(calls->bytes_sent[second], 0U);
      ASSERT_TRUE(ranks.message(300'000));
      EXPECT_GE(calls->bytes_sent[second], 150'000U);
    }
    EXPECT_EQ(calls->pairs_made["fake0"], 2);
    EXPECT_EQ(calls->pairs_made["fake1"], 2);
    EXPECT_EQ(calls->broken_rule, "");
    EXPECT_TRUE(calls->empty());
  }
}

// A message is there once all of its stripes are, and none overtakes it; a send is done once all are acknowledged.
TEST(VerbsPipe, AStripeThatLagsHoldsUpWhatComesAfter) {
  const auto calls = fake();
  {
    TwoRanks ranks(*calls, "rails=2,pairs=2");
    const auto from = ranks.memory(0, 500'000);
    const auto to = ranks.memory(1, 500'000);
    for (std::size_t i = 0; i < from.size; ++i) from.data()[i] = static_cast<std::byte>(i * 7 + i / 997);
    calls->slow_device = "fake1";
    for (const auto& [offset, size] :
         {std::pair<std::size_t, std::size_t>{0, 300'001}, {300'001, 10}, {300'011, 150'000}}) {
      ASSERT_TRUE(ranks.pipes[1]->recv({to.region, offset, size}));
      ASSERT_TRUE(ranks.pipes[0]->send({from.region, offset, size}));
    }
    for (int i = 0; i < 100; ++i)
      for (auto& transport : ranks.transports) transport->progress();
    EXPECT_EQ(ranks.pipes[1]->recvs_done(), 0U);
    EXPECT_EQ(ranks.pipes[0]->sends_done(), 0U);
    calls->slow_device.clear();
    ASSERT_TRUE(ranks.drive([&] { return ranks.pipes[1]->recvs_done() == 3 && ranks.pipes[0]->sends_done() == 3; }));
    EXPECT_EQ(std::memcmp(from.data(), to.data(), 450'011), 0);
  }
  EXPECT_EQ(calls->broken_rule, "");
  EXPECT_TRUE(calls->empty());
}

TEST(VerbsPipe, OneQueuePairThatFailsEndsThePipeAndItsDeviceIsNamed) {
  const auto calls = fake();
  TwoRanks ranks(*calls, "rails=2");
  calls->failing_device = "fake1";
  calls->writes_until_failure = 0;
  const auto from = ranks.memory(0, 300'000);
  ASSERT_TRUE(ranks.pipes[1]->recv(ranks.memory(1, 300'000)));
  ASSERT_TRUE(ranks.pipes[0]->send(from));
  ASSERT_TRUE(ranks.drive([&] { return ranks.pipes[0]->failure() != nullptr; }));
  EXPECT_THAT(ranks.pipes[0]->failure()->message, AllOf(HasSubstr("rank 1 on host-b"), HasSubstr("from fake1 port 1"),
                                                        HasSubstr("no packet was acknowledged")));
  ASSERT_TRUE(ranks.drive([&] { return ranks.pipes[1]->failure() != nullptr; })) << "the peer hears of it";
  EXPECT_FALSE(ranks.pipes[0]->send(from));
}

TEST(VerbsPipe, QueuePairsOfADeviceMayShareTheirReceives) {
  const auto calls = fake();
  calls->machine.shared_queues = 2;  // one for each rank, as many as come and go
  {
    TwoRanks ranks(*calls, "srq=1");
    ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]);
    EXPECT_THAT(ranks.transports[0]->describe(), HasSubstr("shared receive queues"));
    for (int times = 0; times < 20; ++times) {
      for (const std::size_t bytes : {0, 40, 5000, 300'000}) ASSERT_TRUE(ranks.message(bytes)) << bytes;
      ASSERT_TRUE(ranks.pipes[0]->send(ranks.memory(0, 10)));  // never received
      ranks.meet_again();
      ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]) << times;
    }
  }
  EXPECT_EQ(calls->broken_rule, "");
  EXPECT_TRUE(calls->empty());
  calls->machine.shared_queues = 0;
  Settings settings;
  settings.verbs = "srq=1";
  const auto refused = VerbsTransport::make(settings, *calls);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::unsupported);
  EXPECT_THAT(refused.error().message, HasSubstr("fake0 has no shared receive queues; leave out"));
}

TEST(VerbsPipe, TooManyQueuePairsAreRefusedWithWhatToDo) {
  const auto calls = fake();
  calls->machine.most_pairs = 3;
  Settings settings;
  settings.ranks = 2;
  settings.verbs = "pairs=4";
  const auto transport = VerbsTransport::make(settings, *calls).value();
  const Peer peer{1, 0, "host-b", transport->listen().value()};
  const auto refused = transport->connect({&peer, 1}, Deadline::after(Seconds(20)));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::exhausted);
  EXPECT_THAT(refused.error().message, AllOf(HasSubstr("fake0 port 1 gave no queue pair"), HasSubstr("it has 3 in all"),
                                             HasSubstr("use fewer lanes or pairs")));
}

TEST(VerbsPipe, TheSmallerMtuOfTwoPortsIsUsed) {
  const auto calls = fake();
  calls->machine.mtus["fake1"] = IBV_MTU_2048;
  TwoRanks ranks(*calls);
  ASSERT_TRUE(ranks.message(10'000));
  for (const auto& [attributes, mask] : calls->states) {
    if ((mask & IBV_QP_PATH_MTU) == 0) continue;
    EXPECT_EQ(attributes.path_mtu, IBV_MTU_2048);
  }
}

TEST(VerbsPipe, SettingsReachTheQueuePair) {
  const auto calls = fake();
  TwoRanks ranks(*calls, "traffic_class=106,service_level=3,timeout=18,retry=5,mtu=1024,gid=1");
  ASSERT_TRUE(ranks.message(100));
  int ready = 0, sending = 0;
  for (const auto& [attributes, mask] : calls->states) {
    if (attributes.qp_state == IBV_QPS_RTR) {
      ++ready;
      EXPECT_EQ(mask & (IBV_QP_AV | IBV_QP_PATH_MTU), IBV_QP_AV | IBV_QP_PATH_MTU);
      EXPECT_EQ(attributes.ah_attr.grh.traffic_class, 106);
      EXPECT_EQ(attributes.ah_attr.grh.sgid_index, 1);
      EXPECT_EQ(attributes.ah_attr.sl, 3);
      EXPECT_EQ(attributes.path_mtu, IBV_MTU_1024);
    } else if (attributes.qp_state == IBV_QPS_RTS) {
      ++sending;
      EXPECT_EQ(mask & (IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT), IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT);
      EXPECT_EQ(attributes.timeout, 18);
      EXPECT_EQ(attributes.retry_cnt, 5);
    }
  }
  EXPECT_EQ(ready, 2);
  EXPECT_EQ(sending, 2);
}

TEST(VerbsPipe, SmallMessagesGoInLineLongOnesStraightAndInPiecesTheDeviceTakes) {
  const auto calls = fake();
  {
    TwoRanks ranks(*calls);
    ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]);
    const auto path = [&](Path which) { return ranks.pipes[0]->traffic()[std::size_t(which)]; };
    ASSERT_TRUE(ranks.message(64));
    EXPECT_EQ(path(Path::in_line), 64U);
    EXPECT_EQ(calls->in_line, 1U);
    ASSERT_TRUE(ranks.message(65));
    EXPECT_EQ(path(Path::one_copy), 65U);
    calls->writes = calls->largest_write = 0;
    const std::size_t bytes = 3 * calls->machine.ports[0].largest_message + 5;
    ASSERT_TRUE(ranks.message(bytes));
    EXPECT_EQ(path(Path::zero_copy), bytes);
    EXPECT_EQ(calls->writes, 1U + 4U) << "an advert, and four pieces";
    EXPECT_EQ(calls->largest_write, calls->machine.ports[0].largest_message);
  }
  EXPECT_EQ(calls->broken_rule, "");
  EXPECT_TRUE(calls->empty());
}

TEST(VerbsPipe, ALostQuestionForAnAddressIsAskedAgain) {
  const auto calls = fake();
  calls->lost_addresses = 3;
  TwoRanks ranks(*calls);
  EXPECT_TRUE(ranks.pipes[0] && ranks.pipes[1]);
}

TEST(VerbsPipe, APeerWithoutAnAddressIsAnErrorThatAsksForTheRoute) {
  const auto calls = fake();
  calls->lost_addresses = 1000;
  TwoRanks ranks(*calls);
  ASSERT_TRUE(ranks.errors[0] && ranks.errors[1]);
  EXPECT_THAT(ranks.errors[0]->message + ranks.errors[1]->message, HasSubstr("is there a route between the two?"));
}

TEST(VerbsPipe, WorksWhereNothingGoesInLine) {
  const auto calls = fake();
  calls->machine.inline_bytes = 0;
  {
    TwoRanks ranks(*calls);
    for (const std::size_t bytes : {1, 100, 10'000, 1'000'000}) EXPECT_TRUE(ranks.message(bytes)) << bytes;
    EXPECT_EQ(calls->in_line, 0U);
  }
  EXPECT_EQ(calls->broken_rule, "");
  EXPECT_TRUE(calls->empty());
}

// Queues never run empty or over, however one side hurries and the other lags; the fake looks.
class VerbsCredits : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Settings, VerbsCredits,
                         ::testing::Values("", "pairs=3", "rails=2,pairs=2", "srq=1", "srq=1,rails=2,pairs=2"));
TEST_P(VerbsCredits, KeepEveryQueueWithinItsBounds) {
  const auto calls = fake();
  calls->machine.shared_queues = 4;
  {
    TwoRanks ranks(*calls, GetParam());
    const auto from = ranks.memory(0, 100'000);
    const auto to = ranks.memory(1, 100'000);
    const auto size = [](std::uint64_t n) -> std::size_t { return n % 11 == 5 ? 90'000 : n % 3 == 0 ? 4000 : n % 60; };
    std::uint64_t sent = 0, posted = 0;
    constexpr std::uint64_t k_messages = 5000;
    auto& out = *ranks.pipes[0];
    auto& in = *ranks.pipes[1];
    for (std::uint64_t turn = 0; in.recvs_done() < k_messages || out.sends_done() < k_messages; ++turn) {
      ASSERT_LT(turn, 1'000'000U);
      calls->silent = turn % 97 < 40;
      const bool lag = turn / 50 % 2 == 0;
      while (sent < k_messages && out.send({from.region, 0, size(sent)})) ++sent;
      ranks.transports[0]->progress();
      if (lag) continue;
      while (posted < k_messages) {
        const bool in_place = posted % 5 == 0;
        if (!(in_place ? in.recv_in_place(size(posted)) : in.recv({to.region, 0, size(posted)}))) break;
        ++posted;
      }
      for (auto part = in.readable(); !part.empty(); part = in.readable()) in.consume(part.size());
      ranks.transports[1]->progress();
      ASSERT_EQ(out.failure(), nullptr) << out.failure()->message;
      ASSERT_EQ(in.failure(), nullptr) << in.failure()->message;
    }
    EXPECT_LT(calls->asked, calls->writes / 2) << "most writes are silent";
    calls->silent = false;
  }
  EXPECT_EQ(calls->broken_rule, "");
  EXPECT_TRUE(calls->empty());
}

TEST(VerbsPipe, AFailedCompletionNamesPeerDevicePortStatusAndCause) {
  for (const auto& [status, words] :
       {std::pair{IBV_WC_RETRY_EXC_ERR, "no packet was acknowledged in 7 tries over about 1.9 s"},
        {IBV_WC_RNR_RETRY_EXC_ERR, "it had no receive posted"},
        {IBV_WC_REM_ACCESS_ERR, "it does not allow writing where it said"},
        {IBV_WC_WR_FLUSH_ERR, "taken down after an earlier error"},
        {IBV_WC_REM_OP_ERR, "its own message says why"},
        {IBV_WC_FATAL_ERR, "see dmesg"}}) {
    const auto calls = fake();
    TwoRanks ranks(*calls);
    calls->writes_until_failure = 0;
    calls->failure = status;
    const auto from = ranks.memory(0, 1000);
    ASSERT_TRUE(ranks.pipes[0]->send(from));
    ASSERT_TRUE(ranks.drive([&] { return ranks.pipes[0]->failure() != nullptr; }));
    const Error& error = *ranks.pipes[0]->failure();
    EXPECT_EQ(error.peer, 1);
    EXPECT_THAT(error.message, AllOf(HasSubstr("rank 1 on host-b"), HasSubstr("from fake0 port 1"), HasSubstr(words),
                                     HasSubstr(std::string(name_of(status)))));
    EXPECT_FALSE(ranks.pipes[0]->send(from));
    ASSERT_TRUE(ranks.drive([&] { return ranks.pipes[1]->failure() != nullptr; })) << "the peer hears of it";
  }
}

TEST(VerbsPipe, WhatHappenedToThePortExplainsTheFailure) {
  const auto calls = fake();
  TwoRanks ranks(*calls);
  calls->happen(IBV_EVENT_PORT_ERR, 1);
  calls->writes_until_failure = 0;
  ASSERT_TRUE(ranks.pipes[0]->send(ranks.memory(0, 1000)));
  ASSERT_TRUE(ranks.drive([&] { return ranks.pipes[0]->failure() != nullptr; }));
  EXPECT_THAT(ranks.pipes[0]->failure()->message, HasSubstr("the port went down"));
}

TEST(VerbsPipe, ADeviceThatFailsEndsEveryPipe) {
  const auto calls = fake();
  TwoRanks ranks(*calls);
  ASSERT_TRUE(ranks.pipes[0]->recv(ranks.memory(0, 10)));
  calls->happen(IBV_EVENT_DEVICE_FATAL, 0);
  ASSERT_TRUE(
      ranks.drive([&] { return ranks.pipes[0]->failure() != nullptr || ranks.pipes[1]->failure() != nullptr; }));
  const Error* error = ranks.pipes[0]->failure() != nullptr ? ranks.pipes[0]->failure() : ranks.pipes[1]->failure();
  EXPECT_THAT(error->message, AnyOf(HasSubstr("the device failed"), HasSubstr("is gone")));
}

TEST(VerbsPipe, EveryStatusAndEventHasWords) {
  for (int status = IBV_WC_SUCCESS; status <= IBV_WC_GENERAL_ERR; ++status) {
    EXPECT_FALSE(name_of(static_cast<ibv_wc_status>(status)).empty());
    const auto cause = cause_of(static_cast<ibv_wc_status>(status), 0x81, {"rank 1 on b", "fake0 port 1", 14, 7, ""});
    EXPECT_THAT(cause.message, AllOf(HasSubstr("rank 1 on b"), HasSubstr("fake0 port 1"), HasSubstr("0x81")));
  }
  EXPECT_EQ(meaning_of(IBV_EVENT_COMM_EST).reach, Reach::nothing);
  EXPECT_FALSE(meaning_of(IBV_EVENT_PORT_ERR).fatal);
  EXPECT_TRUE(meaning_of(IBV_EVENT_QP_ACCESS_ERR).fatal);
}

TEST(VerbsTransport, SettingsThatCannotBeAreRefused) {
  const auto calls = fake();
  for (const auto& [slot, slots] : {std::pair{32768, 3}, {100, 8}, {0, 8}, {1 << 20, 65}}) {
    Settings settings;
    settings.slot_bytes = static_cast<std::size_t>(slot);
    settings.slots = static_cast<std::size_t>(slots);
    const auto made = VerbsTransport::make(settings, *calls);
    ASSERT_FALSE(made) << slot << " x " << slots;
    EXPECT_EQ(made.error().code, Code::bad_usage);
  }
  Settings settings;
  settings.verbs = "nonsense";
  EXPECT_FALSE(VerbsTransport::make(settings, *calls));
}

}  // namespace
}  // namespace gradrail::verbs

// What the verbs transport decides, over devices that do not exist (verbs_fake.h): options, devices, GIDs, splitting,
// credit, signalling, and the words for failures. The same transport over real libibverbs calls runs in
// scripts/soft-roce.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <thread>

#include "tests/unit/verbs_fake.h"
#include "transports/verbs/cause.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

using ::testing::AllOf;
using testing::FakeVerbs;
using testing::gid_entry;
using ::testing::HasSubstr;

TEST(VerbsOptions, AreReadAndMistakesNamed) {
  const auto options = parse_options("device=mlx5_0+mlx5_3,gid=3,mtu=1024,timeout=18,traffic_class=106");
  ASSERT_TRUE(options);
  EXPECT_THAT(options->devices, ::testing::ElementsAre("mlx5_0", "mlx5_3"));
  EXPECT_EQ(options->gid_index, 3);
  EXPECT_EQ(options->mtu, 1024);
  EXPECT_EQ(options->timeout, 18);
  EXPECT_EQ(options->traffic_class, 106);
  EXPECT_TRUE(parse_options(""));
  for (const auto& [text, words] : {std::pair{"colour=3", "no setting 'colour'; it has device, gpu, rails, port"},
                                    {"timeout=32", "timeout is a whole number from 1 to 31, not '32'"},
                                    {"timeout=", "not ''"},
                                    {"gid=x", "not 'x'"},
                                    {"retry=7x", "not '7x'"},
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
  auto packed = one.pack();
  EXPECT_LE(packed.size(), Introduction::k_most_bytes);
  const auto parsed = Introduction::parse(packed);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->rank, 3);
  EXPECT_EQ(parsed->landing, one.landing);
  EXPECT_EQ(parsed->part_bytes, 77U);
  packed.pop_back();
  EXPECT_FALSE(Introduction::parse(packed));
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
  const auto none = choose({});
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, Code::unavailable);
  const auto absent = choose({v1, ipv4}, "", 9);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Code::bad_usage);
  EXPECT_THAT(absent.error().message, AllOf(HasSubstr("index 9"), HasSubstr("3 (::ffff:10.0.0.1)")));
}

std::unique_ptr<FakeVerbs> fake() {
  auto calls = std::make_unique<FakeVerbs>();
  calls->machine.gids = {gid_entry(1, IBV_GID_TYPE_ROCE_V2, {10, 9, 0, 1})};
  return calls;
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

// Two ranks in one process, over the fake.
struct TwoRanks {
  explicit TwoRanks(FakeVerbs& calls, const Settings& like = {}, int lane = 0) {
    Address addresses[2];
    for (int rank : {0, 1}) {
      Settings settings = like;
      settings.rank = rank;
      settings.ranks = 2;
      auto made = VerbsTransport::make(settings, calls);
      EXPECT_TRUE(made) << made.error().message;
      if (!made) return;
      transports[rank] = std::move(*made);
      addresses[rank] = transports[rank]->listen().value();
    }
    std::thread other([&] { connect(1, {0, lane, "host-a", addresses[0]}); });
    connect(0, {1, lane, "host-b", addresses[1]});
    other.join();
  }
  ~TwoRanks() {
    for (auto& pipe : pipes) pipe.reset();
    for (auto& region : regions) region.reset();
  }
  void connect(int rank, const Peer& peer) {
    auto made = transports[rank]->connect({&peer, 1}, Deadline::after(Seconds(20)));
    if (made)
      pipes[rank] = std::move(made->front());
    else
      errors[rank] = made.error();
  }
  [[nodiscard]] bool drive(const std::function<bool()>& done) {
    const auto deadline = Deadline::after(Seconds(20));
    while (!done()) {
      for (auto& transport : transports) transport->progress();
      if (deadline.passed()) return false;
    }
    return true;
  }
  Slice memory(int rank, std::size_t bytes) {
    regions[rank] = transports[rank]->allocate(bytes).value();
    return {regions[rank].get(), 0, bytes};
  }
  // One message from 0 to 1; true if it came whole.
  [[nodiscard]] bool message(std::size_t bytes) {
    const auto from = memory(0, bytes);
    const auto to = memory(1, bytes);
    std::memset(from.data(), 0x3c, bytes);
    const auto before = pipes[1]->recvs_done();
    const auto sends = pipes[0]->sends_done();
    if (!pipes[1]->recv(to) || !pipes[0]->send(from)) return false;
    return drive([&] { return pipes[1]->recvs_done() > before && pipes[0]->sends_done() > sends; }) &&
           std::memcmp(from.data(), to.data(), bytes) == 0;
  }

  std::unique_ptr<Transport> transports[2];
  std::unique_ptr<Region> regions[2];
  std::unique_ptr<Endpoint> pipes[2];
  std::optional<Error> errors[2];
};

// Every region has a key on every rail, and each pipe uses those of its own.
TEST(VerbsPipe, LanesTakeTheRailsInTurn) {
  for (const int lane : {0, 1, 3}) {
    const auto calls = fake();
    {
      Settings settings;
      settings.verbs = "rails=2";
      TwoRanks ranks(*calls, settings, lane);
      ASSERT_TRUE(ranks.pipes[0] && ranks.pipes[1]);
      EXPECT_THAT(ranks.transports[0]->describe(),
                  AllOf(HasSubstr("fake0 port 1"), HasSubstr("fake1 port 1"), HasSubstr("2 rails")));
      for (const std::size_t bytes : {0, 40, 5000, 300'000}) ASSERT_TRUE(ranks.message(bytes)) << bytes;
    }
    EXPECT_EQ(calls->pairs_made[lane % 2 == 0 ? "fake0" : "fake1"], 2);
    EXPECT_EQ(calls->pairs_made[lane % 2 == 0 ? "fake1" : "fake0"], 0);
    EXPECT_EQ(calls->broken_rule, "");
    EXPECT_TRUE(calls->empty());
  }
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
TEST(VerbsPipe, CreditsKeepEveryQueueWithinItsBounds) {
  const auto calls = fake();
  {
    TwoRanks ranks(*calls);
    const auto from = ranks.memory(0, 100'000);
    const auto to = ranks.memory(1, 100'000);
    const auto size = [](std::uint64_t n) -> std::size_t { return n % 11 == 5 ? 50'000 : n % 3 == 0 ? 4000 : n % 60; };
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

// Other libraries beside ours: which configurations there are, what is said to their ranks, and what comes of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "bench/peers/configurations.h"
#include "bench/peers/messages.h"
#include "bench/peers/serve.h"
#include "bench/report/against.h"
#include "bench/report/against_chart.h"

namespace gradrail {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// --- configurations --------------------------------------------------------------------------------------------------

std::vector<std::string> names(std::string_view library, std::string_view transport, int ranks, int cores,
                               std::vector<Collective> collectives = {Collective::allreduce}) {
  std::vector<std::string> found;
  for (const auto* one : find_configurations({library, transport, ranks, cores, collectives}))
    found.emplace_back(one->name);
  return found;
}

TEST(PeerConfigurations, EveryEntryIsOfAKnownLibraryAndHasANameOfItsOwn) {
  const auto libraries = peer_libraries();
  std::set<std::string> seen;
  std::set<std::string_view> with_default;
  for (const PeerConfiguration& one : peer_configurations()) {
    EXPECT_THAT(libraries, Contains(one.library));
    EXPECT_TRUE(
        seen.insert(std::string(one.library) + "/" + std::string(one.name) + "/" + std::string(one.transport)).second)
        << one.name << " is there twice";
    EXPECT_EQ(one.name.find(' '), one.name.npos);
    if (one.is_default) with_default.insert(one.library);
  }
  EXPECT_EQ(with_default.size(), libraries.size());
}

TEST(PeerConfigurations, AreThoseOfTheTransport) {
  EXPECT_THAT(names("openmpi", "shm", 2, 2), AllOf(Contains("ob1"), Contains("sm"), Contains("ucx")));
  EXPECT_THAT(names("openmpi", "tcp", 2, 2), AllOf(Contains("ob1"), Contains("ucx"), Not(Contains("sm"))));
  EXPECT_THAT(names("gloo", "shm", 2, 2), IsEmpty());
  EXPECT_THAT(names("gloo", "tcp", 2, 2),
              AllOf(Contains("ring"), Contains("ring_chunked"), Contains("halving_doubling"), Contains("bcube")));
  EXPECT_THAT(names("openmpi", "shm+tcp", 4, 2), Contains("ob1"));  // hosts of scripts/namespace-lab
  EXPECT_THAT(names("gloo", "shm+tcp", 4, 2), Contains("ring"));
  EXPECT_THAT(names("ucc", "shm", 2, 2), ElementsAre("default", "persistent"));
}

TEST(PeerConfigurations, YieldOrSpinIsTriedWhereItIsNotTheDefault) {
  EXPECT_THAT(names("openmpi", "shm", 2, 2), AllOf(Contains("ob1,yield"), Not(Contains("ob1,spin"))));
  EXPECT_THAT(names("openmpi", "shm", 4, 2), AllOf(Contains("ob1,spin"), Not(Contains("ob1,yield"))));
}

TEST(PeerConfigurations, WhatChangesAllreduceOnlyIsLeftOutForOthers) {
  EXPECT_THAT(names("openmpi", "shm", 2, 2, {Collective::broadcast}), Not(Contains("ob1,ring")));
  EXPECT_THAT(names("openmpi", "shm", 2, 2, {Collective::broadcast, Collective::allreduce}), Contains("ob1,ring"));
}

const PeerConfiguration& configuration(std::string_view library, std::string_view name, std::string_view transport) {
  for (const PeerConfiguration& one : peer_configurations())
    if (one.library == library && one.name == name && one.transport == transport) return one;
  ADD_FAILURE() << "no " << library << " " << name;
  return peer_configurations().front();
}

TEST(PeerConfigurations, ACommandStartsAllRanksOrOne) {
  const auto mpi = command_of(configuration("openmpi", "ucx", "shm"), 2, true, "/bin/runner", "/tmp/c", "/tmp/f");
  EXPECT_FALSE(mpi.one_a_rank);
  EXPECT_THAT(mpi.argv, AllOf(Contains("ucx"), Contains("core"), Contains("/bin/runner"), Contains("/tmp/c")));
  EXPECT_THAT(mpi.argv, Not(Contains("--oversubscribe")));
  EXPECT_THAT(mpi.environment, Contains("UCX_TLS=posix,cma,self"));
  const auto crowded = command_of(configuration("openmpi", "ob1", "shm"), 4, false, "/bin/runner", "/tmp/c", "/tmp/f");
  EXPECT_THAT(crowded.argv, AllOf(Contains("--oversubscribe"), Contains("none")));
  const auto gloo = command_of(configuration("gloo", "bcube", "tcp"), 3, false, "/bin/runner", "/tmp/c", "/tmp/f");
  EXPECT_TRUE(gloo.one_a_rank);
  EXPECT_EQ(gloo.argv.front(), "/bin/runner");
  EXPECT_THAT(gloo.argv, AllOf(Contains("/tmp/f"), Contains("3"), Contains("bcube")));
}

class RunnerFolder : public ::testing::Test {
 protected:
  RunnerFolder() {
    auto pattern = (std::filesystem::temp_directory_path() / "gradrail-runners-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~RunnerFolder() override { std::filesystem::remove_all(path_); }
  void build(std::string_view library) const {
    const auto path = runner_path(path_, library);
    std::ofstream(path) << "#!/bin/sh\n";
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  std::string path_;
};

TEST_F(RunnerFolder, NamesAreThoseThatWereBuilt) {
  build("mpich");
  build("gloo");
  EXPECT_THAT(parse_peers("gloo,mpich,gloo", path_).value(), ElementsAre("gloo", "mpich"));
  EXPECT_THAT(parse_peers("all", path_).value(), ElementsAre("mpich", "gloo"));
  const auto absent = parse_peers("gloo,openmpi", path_);
  ASSERT_FALSE(absent);
  EXPECT_EQ(absent.error().code, Code::bad_usage);
  EXPECT_THAT(absent.error().message, AllOf(HasSubstr("openmpi"), HasSubstr("libopenmpi-dev")));
  const auto unknown = parse_peers("lammps", path_);
  ASSERT_FALSE(unknown);
  EXPECT_THAT(unknown.error().message, AllOf(HasSubstr("'lammps'"), HasSubstr("openmpi, mpich, gloo")));
  EXPECT_FALSE(parse_peers("", path_));
}

TEST_F(RunnerFolder, AllOfNoneIsSaid) { EXPECT_FALSE(parse_peers("all", path_)); }

// --- messages --------------------------------------------------------------------------------------------------------

TEST(PeerMessages, ComeBackAsTheyWere) {
  const auto hello = decode_peer_hello(encode(PeerHello{1, 4, "Fake 2"}));
  ASSERT_TRUE(hello);
  EXPECT_EQ(hello->rank, 1);
  EXPECT_EQ(hello->ranks, 4);
  EXPECT_EQ(hello->version, "Fake 2");

  PeerRequest request;
  request.order = PeerOrder::prepare;
  request.call.collective = Collective::reduce_scatter;
  request.call.count = 1234567;
  request.call.type = Type::f64;
  request.call.op = ReduceOp::max;
  request.call.root = 3;
  request.call.in_place = true;
  request.cache = Cache::flush;
  request.warmup = 7;
  request.check = false;
  request.seed = 99;
  request.samples = 11;
  request.batch = 13;
  const auto back = decode_peer_request(encode(request));
  ASSERT_TRUE(back);
  EXPECT_EQ(encode(*back), encode(request));
  EXPECT_EQ(back->call.count, 1234567u);
  EXPECT_EQ(back->cache, Cache::flush);

  PeerReply reply;
  reply.error = Error{Code::unsupported, "no", -1, 0};
  reply.wrong = 5;
  reply.samples_us = {1.5, 2.5};
  const auto answer = decode_peer_reply(encode(reply));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->error->code, Code::unsupported);
  EXPECT_THAT(answer->samples_us, ElementsAre(1.5, 2.5));
}

TEST(PeerMessages, DamageIsNoticed) {
  const auto cut = [](Bytes bytes) {
    bytes.pop_back();
    return bytes;
  };
  const auto longer = [](Bytes bytes) {
    bytes.push_back({});
    return bytes;
  };
  EXPECT_FALSE(decode_peer_hello(cut(encode(PeerHello{}))));
  EXPECT_FALSE(decode_peer_request(cut(encode(PeerRequest{}))));
  EXPECT_FALSE(decode_peer_request(longer(encode(PeerRequest{}))));
  EXPECT_FALSE(decode_peer_reply(cut(encode(PeerReply{}))));
  auto unknown_order = encode(PeerRequest{});
  unknown_order[0] = std::byte{77};
  EXPECT_FALSE(decode_peer_request(unknown_order));
  auto unknown_type = encode(PeerRequest{});
  unknown_type[10] = std::byte{77};
  EXPECT_FALSE(decode_peer_request(unknown_type));
}

TEST(PeerArguments, ARunnerStartedByHandSaysWhatItIs) {
  const auto parsed = [](std::vector<std::string> words) {
    words.insert(words.begin(), "runner");
    std::vector<char*> argv;
    for (auto& word : words) argv.push_back(word.data());
    return parse_runner_arguments(static_cast<int>(argv.size()), argv.data());
  };
  EXPECT_THAT(parsed({}).error().message, HasSubstr("gradrail bench --against"));
  EXPECT_FALSE(parsed({"--control", "/tmp/c", "--rank", "one"}));
  EXPECT_FALSE(parsed({"--control"}));
  EXPECT_FALSE(parsed({"--speed", "11"}));
  const auto good = parsed({"--control", "/tmp/c", "--rank", "1", "--ranks", "2", "--variant", "ring"});
  ASSERT_TRUE(good);
  EXPECT_EQ(good->rank, 1);
  EXPECT_EQ(good->variant, "ring");
}

// --- comparisons -----------------------------------------------------------------------------------------------------

Point point_of(const std::string& library, const std::string& algorithm, std::int64_t bytes, double median_us) {
  Point point;
  point.library = library;
  point.collective = "allreduce";
  point.algorithm = algorithm;
  if (library == "gradrail") point.requested = "auto";
  point.transport = "shm";
  point.topology = "1x2";
  point.ranks = 2;
  point.bytes = bytes;
  point.type = "f32";
  point.op = "sum";
  point.phase = "near";
  point.wrong = 0;
  for (int i = -5; i <= 5; ++i) point.samples_us.push_back(median_us * (1 + 0.001 * i));
  point.time_us = Timing{.median = median_us, .ci = {0.999 * median_us, 1.001 * median_us}, .n = 11};
  return point;
}

TEST(Against, ThePeerIsTheBestOfAllThatAreRight) {
  auto wrong = point_of("mpich", "default", 8, 0.5);
  wrong.wrong = 3;
  auto fixed = point_of("gradrail", "ring", 8, 0.1);
  fixed.requested.reset();
  auto elsewhere = point_of("gloo", "ring", 8, 0.01);
  elsewhere.transport = "tcp";
  const std::vector<Point> points = {
      point_of("gradrail", "one_shot", 8, 1), fixed, wrong, elsewhere, point_of("openmpi", "ob1", 8, 3),
      point_of("openmpi", "ucx", 8, 2)};
  const auto comparisons = compare_with_peers(points);
  ASSERT_THAT(comparisons, SizeIs(1));
  EXPECT_EQ(comparisons[0].algorithm, "one_shot");
  EXPECT_EQ(comparisons[0].peer, "openmpi");
  EXPECT_EQ(comparisons[0].configuration, "ucx");
  EXPECT_NEAR(comparisons[0].ratio, 2, 1e-9);
  EXPECT_EQ(standing_of(comparisons[0]), Standing::faster);
}

TEST(Against, RegisteredBuffersOfOursMeetThePeersPlainOnes) {
  auto registered = point_of("gradrail", "ring", 8, 0.5);
  registered.buffers = "registered";
  const std::vector<Point> points = {point_of("gradrail", "ring", 8, 1), registered, point_of("openmpi", "ucx", 8, 2)};
  const auto comparisons = compare_with_peers(points);
  ASSERT_THAT(comparisons, SizeIs(2));
  EXPECT_EQ(comparisons[1].buffers, "registered");
  EXPECT_NEAR(comparisons[1].ratio, 4, 1e-9);
  EXPECT_THAT(by_case(comparisons), SizeIs(2));
}

TEST(Against, WithoutAPeerThereIsNothingToCompare) {
  EXPECT_THAT(compare_with_peers(std::vector<Point>{point_of("gradrail", "ring", 8, 1)}), IsEmpty());
  EXPECT_EQ(against_table({}), "");
}

std::vector<Comparison> two_sizes() {
  std::vector<Point> small = {point_of("gradrail", "ring", 8, 1), point_of("openmpi", "ucx", 8, 4)};
  std::vector<Point> large = {point_of("gradrail", "ring", 1 << 20, 100), point_of("mpich", "default", 1 << 20, 50)};
  auto all = compare_with_peers(small);
  for (const auto& one : compare_with_peers(large)) all.push_back(one);
  return all;
}

TEST(Against, TheTableEndsWithTheGeometricMeanAndMarksWhereOursLoses) {
  const auto score = score_of(two_sizes());
  EXPECT_NEAR(score.geometric_mean, std::sqrt(2), 1e-9);
  EXPECT_NEAR(score.least, 0.5, 1e-9);
  EXPECT_EQ(score.least_bytes, 1 << 20);
  EXPECT_EQ(score.slower, 1u);
  const std::string table = against_table(two_sizes());
  EXPECT_THAT(table, AllOf(HasSubstr("openmpi:ucx"), HasSubstr("4.00x"), HasSubstr("SLOWER"),
                           HasSubstr("geometric mean 1.41x over 2 sizes; least 0.50x at 1 MiB; ours is slower at 1")));
}

TEST(Against, ThePictureHasACurveACaseAndALineAtOne) {
  const std::string svg = against_svg(two_sizes(), {"peers", "a <machine>"});
  EXPECT_THAT(svg, AllOf(HasSubstr("<polyline"), HasSubstr("geometric mean 1.41x"), HasSubstr("a &lt;machine&gt;"),
                         HasSubstr("stroke=\"#444\"")));
  EXPECT_THAT(svg, testing::EndsWith("</svg>\n"));
  EXPECT_THAT(against_svg({}, {}), HasSubstr("nothing was compared"));
}

}  // namespace
}  // namespace gradrail

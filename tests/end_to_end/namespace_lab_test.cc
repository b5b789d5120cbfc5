// Two hosts as network namespaces (scripts/namespace-lab), joined by a shaped link: they are recognised as two hosts,
// shared memory is used inside them, and the hierarchical allreduce carries over the link what it must, and no more.
// Bytes are counted on the interface. No timing is asserted.
#include <gmock/gmock.h>

#include <filesystem>
#include <numeric>

#include "collectives/exec/communicator.h"
#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::HasSubstr;

const std::string k_lab = std::string(GRADRAIL_SOURCE_DIR) + "/scripts/namespace-lab";
constexpr Seconds k_limit{60};
constexpr std::size_t k_count = 256 << 10;  // floats: 1 MiB
constexpr int k_calls = 4;

struct Counted {
  std::uint64_t received = 0;
  std::uint64_t sent = 0;
};

// By the interface `wire` of this network namespace.
Counted counted() {
  std::ifstream in("/proc/net/dev");
  for (std::string line; std::getline(in, line);) {
    const auto name = line.find("wire:");
    if (name == line.npos) continue;
    std::istringstream fields(line.substr(name + 5));
    std::vector<std::uint64_t> numbers{std::istream_iterator<std::uint64_t>(fields), {}};
    if (numbers.size() > 8) return {numbers[0], numbers[8]};
  }
  return {};
}

// What every rank of the laboratory does; rank 0 says what it saw.
Result<void> act() {
  JoinOptions join_options;
  join_options.expected_ranks = 4;
  join_options.build_id = "lab";
  GRADRAIL_ASSIGN(const auto job, join(join_options));
  const auto soon = [] { return Deadline::after(Seconds(20)); };
  GRADRAIL_ASSIGN(const auto group, Communicator::create(*job, {}, soon()));
  GRADRAIL_ASSIGN(Memory in, group->allocate(k_count * sizeof(float)));
  GRADRAIL_ASSIGN(Memory out, group->allocate(k_count * sizeof(float)));
  const std::span<float> numbers(reinterpret_cast<float*>(in.data()), k_count);
  std::iota(numbers.begin(), numbers.end(), static_cast<float>(group->rank()));
  Call call;
  call.in = {&in, 0};
  call.out = {&out, 0};
  call.count = k_count;
  call.algorithm = "hierarchical";
  GRADRAIL_TRY(group->run(call, soon()));  // opens connections
  GRADRAIL_TRY(job->barrier(soon()));

  // Nobody sends before all have looked, nor looks before all have what was sent.
  const Counted before = counted();
  GRADRAIL_TRY(job->barrier(soon()));
  const Traffic traffic = group->traffic();
  for (int i = 0; i < k_calls; ++i) GRADRAIL_TRY(group->run(call, soon()));
  const Traffic later = group->traffic();
  GRADRAIL_TRY(job->barrier(soon()));
  const Counted after = counted();

  const std::span<const float> sums(reinterpret_cast<const float*>(out.data()), k_count);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < k_count; ++i) wrong += sums[i] != 4 * static_cast<float>(i) + 6;
  const auto socket = static_cast<std::size_t>(Path::socket);
  const std::uint64_t all =
      std::accumulate(later.begin(), later.end(), 0ull) - std::accumulate(traffic.begin(), traffic.end(), 0ull);
  say(fmt::format("rank {} of {}x{} over {} on {}: wrong {} link_sent {} link_received {} socket {} inside {}",
                  group->rank(), group->hosts(), group->ranks_per_host(), group->transport_name(),
                  job->members()[static_cast<std::size_t>(group->rank())].host, wrong, after.sent - before.sent,
                  after.received - before.received, later[socket] - traffic[socket],
                  all - (later[socket] - traffic[socket])));
  return job->barrier(soon());
}

// Before main(), in the processes that the laboratory starts.
const bool k_acted = [] {
  if (variable("GRADRAIL_LAB_TEST_RANK").empty()) return false;
  const auto done = act();
  if (!done) fmt::print(stderr, "{}\n", done.error().message);
  std::exit(done ? 0 : 1);
}();

std::uint64_t figure(const std::string& line, const std::string& name) {
  const auto at = line.find(" " + name + " ");
  return at == line.npos ? 0 : std::strtoull(line.c_str() + at + name.size() + 2, nullptr, 10);
}

class NamespaceLab : public CommandTest {
 protected:
  Process start(const std::vector<std::string>& arguments) {
    std::vector<std::string> words = {k_lab};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return Process(words, {{"GRADRAIL_LAB_TEST_RANK", "1"}});
  }
};

TEST_F(NamespaceLab, HierarchicalCarriesTheLeastOverTheLinkAndUsesSharedMemoryInsideHosts) {
  const std::string counts = folder_ / "counts";
  auto lab = start({"--counts", counts, "each", std::filesystem::read_symlink("/proc/self/exe")});
  const int code = lab.wait(k_limit);
  if (code == 77) GTEST_SKIP() << lab.err();
  ASSERT_EQ(code, 0) << lab.err();
  const auto lines = lab.lines("rank ");
  ASSERT_EQ(lines.size(), 4u) << lab.out();
  // Each of two hosts must hand the other what it knows of one half of the data, and the sum of the other half.
  constexpr double k_data = k_count * sizeof(float);
  constexpr double k_least = k_calls * k_data;
  std::set<std::string> hosts;
  for (const auto& line : lines) {
    SCOPED_TRACE(line);
    EXPECT_THAT(line, HasSubstr("of 2x2 over shm+tcp on lab"));
    hosts.insert(line.substr(line.find(" on "), 8));
    EXPECT_THAT(line, HasSubstr(": wrong 0 "));
    EXPECT_GE(static_cast<double>(figure(line, "link_sent")), k_least);
    EXPECT_LE(static_cast<double>(figure(line, "link_sent")), 1.05 * k_least);
    EXPECT_GE(static_cast<double>(figure(line, "link_received")), k_least);
    EXPECT_LE(static_cast<double>(figure(line, "link_received")), 1.05 * k_least);
    // Two ranks share the host's part; inside, each sends the other half of its data, and half of the sum.
    EXPECT_EQ(static_cast<double>(figure(line, "socket")), k_least / 2);
    EXPECT_EQ(static_cast<double>(figure(line, "inside")), k_least);
  }
  EXPECT_EQ(hosts.size(), 2u);
  // The script counts the same interface, over the whole job.
  const auto told = lines_of(text_of(counts));
  ASSERT_EQ(told.size(), 2u);
  for (const auto& line : told) {
    std::istringstream in(line);
    std::string host;
    double sent = 0;
    double received = 0;
    in >> host >> sent >> received;
    EXPECT_GE(sent, k_least + k_data) << line;
    EXPECT_GE(received, k_least + k_data) << line;
  }
}

// A link on which encoded data takes a third of the time, and shared memory, on which it takes longer.
TEST_F(NamespaceLab, AutoEncodesOverASlowLinkWhereAnErrorIsBorne) {
  const std::string records = folder_ / "lab.jsonl";
  Process lab(Words{k_lab, "each", GRADRAIL_BINARY} +
                  words("bench --transport shm -a auto -b 4M -e 4M --iters 8 -w 1 --codec none,auto,int8,bf16 "
                        "--error-budget 2e-2 --json") +
                  Words{records},
              {});
  const int code = lab.wait(Seconds(100));
  if (code == 77) GTEST_SKIP() << lab.err();
  ASSERT_EQ(code, 0) << lab.err() << lab.out();
  int chosen = 0;
  for (const auto& point : of_kind(records_of(records), "point")) {
    if (!point.contains("requested_codec")) continue;
    ++chosen;
    EXPECT_NE(point.at("codec"), "none");
    EXPECT_LE(point.at("rel_l2_error"), 2e-2);
  }
  EXPECT_EQ(chosen, 1);
}

TEST_F(NamespaceLab, GivesTheExitCodeOfTheFirstToFailAndEndsTheOthers) {
  auto lab = start({"each", "sh", "-c", "[ $RANK != 2 ] || exit 3; sleep 60"});
  const int code = lab.wait(Seconds(30));
  if (code == 77) GTEST_SKIP() << lab.err();
  EXPECT_EQ(code, 3) << lab.err();
}

TEST_F(NamespaceLab, SaysWhatIsWrongWithItsArguments) {
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"each"},
                                                    {"--ranks", "0", "each", "true"},
                                                    {"--nonsense"},
                                                    {"enter", "lab0", "true"}}) {
    auto lab = start(arguments);
    EXPECT_EQ(lab.wait(Seconds(10)), 2) << lab.err();
    EXPECT_THAT(lab.err(), HasSubstr("namespace-lab: "));
  }
}

}  // namespace
}  // namespace gradrail::test

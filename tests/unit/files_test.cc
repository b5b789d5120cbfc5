// Reading below a root: links stay inside, what is no ordinary file is empty, and a record holds what was read.
#include "bench/measure/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/unit/doctor_hosts.h"

namespace gradrail {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Files, LinksAreFollowedAsIfTheRootWereTheRoot) {
  const test::PlantedHost host;
  host.write("etc/passwd", "ours\n");
  host.link("a/out", "../../../../../../../../etc/passwd");
  host.link("a/absolute", "/etc/passwd");
  host.link("a/loop", "loop");
  host.link("a/dangling", "nowhere");
  const Files files(host.root());
  EXPECT_EQ(files.line("a/out"), "ours");
  EXPECT_EQ(files.line("a/absolute"), "ours");
  EXPECT_EQ(files.real("a/absolute"), "etc/passwd");
  EXPECT_EQ(files.line("../../etc/passwd"), "ours");
  EXPECT_EQ(files.real("a/loop"), "");
  EXPECT_EQ(files.line("a/loop"), "");
  EXPECT_FALSE(files.exists("a/dangling"));
}

TEST(Files, OnlyOrdinaryFilesAreRead) {
  const test::PlantedHost host;
  ASSERT_EQ(::mkfifo((host.root() / "pipe").c_str(), 0600), 0);  // opening it would wait
  std::filesystem::create_directory(host.root() / "folder");
  const Files files(host.root());
  EXPECT_EQ(files.line("pipe"), "");
  EXPECT_EQ(files.line("folder"), "");
  EXPECT_THAT(files.lines("pipe"), IsEmpty());
  EXPECT_THAT(files.entries("pipe"), IsEmpty());
}

TEST(Files, LongLinesAreCut) {
  const test::PlantedHost host;
  host.write("long", std::string(1 << 20, 'x'));
  EXPECT_EQ(Files(host.root()).line("long").size(), 4096u);
}

TEST(Files, EntriesAreSortedAndNumbersNumbered) {
  const test::PlantedHost host;
  for (const char* name : {"cpu10", "cpu2", "cpux", "cpu-3", "cpu99999999999999999999", "other"})
    host.write(std::string("f/") + name, "");
  const Files files(host.root());
  EXPECT_THAT(files.numbered("f", "cpu"), ElementsAre(2, 10));
  EXPECT_THAT(files.entries("f", "o"), ElementsAre("other"));
}

TEST(Files, NumbersThatCannotBeAreNone) {
  EXPECT_EQ(number_in("24 kB"), 24 << 10);
  EXPECT_EQ(number_in("-1"), -1);
  EXPECT_FALSE(number_in("9223372036854775807 kB"));
  EXPECT_FALSE(number_in("99999999999999999999"));
  EXPECT_FALSE(number_in("many"));
  EXPECT_THAT(numbers_in("0-2,5"), ElementsAre(0, 1, 2, 5));
  EXPECT_LE(numbers_in("0-1000000,0-1000000,0-1000000").size(), 2u << 20);
}

TEST(Files, ARecordHoldsWhatWasReadAndNothingElse) {
  const test::PlantedHost host;
  host.write("proc/meminfo", "MemTotal: 5 kB\nSecret: 1\n");
  host.write("proc/other", "secret\n");
  host.write("devices/x/state", "4: ACTIVE\nsecret\n");
  host.link("class/x", "../devices/x");
  const test::PlantedHost copy;
  const auto folder = copy.root() / "record";
  Files files(host.root());
  ASSERT_TRUE(files.record(folder));
  EXPECT_EQ(files.value("proc/meminfo", "MemTotal", ':'), "5 kB");
  EXPECT_EQ(files.line("class/x/state"), "4: ACTIVE");
  ASSERT_TRUE(files.recorded());
  const Files again(folder);
  EXPECT_EQ(again.value("proc/meminfo", "MemTotal", ':'), "5 kB");
  EXPECT_EQ(again.line("class/x/state"), "4: ACTIVE");
  EXPECT_EQ(again.real("class/x"), "devices/x");
  EXPECT_FALSE(again.exists("proc/other"));
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::ifstream in(entry.path());
    const std::string text(std::istreambuf_iterator<char>(in), {});
    EXPECT_EQ(text.find("ecret"), text.npos) << entry.path();
  }
  EXPECT_FALSE(files.record(folder)) << "what is there is not written over";
}

}  // namespace
}  // namespace gradrail

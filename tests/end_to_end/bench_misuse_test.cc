// What people get wrong on the command line of `gradrail bench`: one sentence that says so, the right exit code, and
// nothing touched.
#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

struct Mistake {
  std::string name;
  std::string options;
  int code;
  std::vector<std::string> said;
};

class BenchMisuse : public CommandTest {};
class BenchMistake : public CommandTest, public ::testing::WithParamInterface<Mistake> {};

void expect_one_sentence(const Ended& ran) {
  EXPECT_THAT(lines_of(ran.err), SizeIs(1)) << ran.err;
  EXPECT_THAT(ran.err, StartsWith("gradrail: "));
  EXPECT_LT(ran.err.size(), 400u) << ran.err;
}

TEST_P(BenchMistake, IsOneSentence) {
  const Mistake& mistake = GetParam();
  const auto ran = gradrail(words("bench " + mistake.options), Seconds(30));
  EXPECT_EQ(ran.code, mistake.code);
  EXPECT_EQ(ran.out, "");
  expect_one_sentence(ran);
  for (const auto& part : mistake.said) EXPECT_THAT(ran.err, HasSubstr(part));
}

INSTANTIATE_TEST_SUITE_P(
    Of, BenchMistake,
    ::testing::Values(
        Mistake{"flag", "--alogrithm ring", 2, {"--alogrithm"}}, Mistake{"stray_word", "-n 2 ring", 2, {"ring"}},
        Mistake{"algorithm", "-a rign", 2, {"'rign'", "recursive_doubling"}},
        Mistake{"algorithm_of_another_collective", "--collective broadcast -a ring", 2, {"'ring'", "broadcast"}},
        Mistake{"inner_algorithm", "-a hierarchical:foo+ring", 2, {"'foo'", "two_shot"}},
        Mistake{"outer_algorithm", "-a hierarchical:ring+bar", 2, {"'bar'"}},
        Mistake{"half_an_algorithm", "-a hierarchical:ring", 2, {"hierarchical:INNER+OUTER"}},
        Mistake{"parts_of_what_has_none", "-a ring:tree+tree", 2, {"ring"}},
        Mistake{"type", "-d floaty", 2, {"'floaty'", "bf16"}}, Mistake{"operation", "-o xor", 2, {"'xor'", "avg"}},
        Mistake{"collective", "--collective allsprinkle", 2, {"'allsprinkle'", "all_to_all"}},
        Mistake{"transport", "--transport pigeon", 2, {"'pigeon'", "shm, tcp"}},
        Mistake{"transport_for_one_process_only", "--transport local", 2, {"'local'", "shm, tcp"}},
        Mistake{"codec", "--codec int9", 2, {"'int9'", "powersgd"}},
        Mistake{"codec_parameter", "--codec none,topk:2", 2, {"'topk:2'", "0 to 1"}},
        Mistake{"codec_wrapper", "--codec int8+fe", 2, {"'fe'", "ef"}},
        Mistake{"codec_of_other_types", "--codec int8 -d half,double", 2, {"float32", "-d half,double"}},
        Mistake{"codec_of_a_maximum", "--codec int8 -o max", 2, {"-o max", "averaging"}},
        Mistake{"codec_of_a_broadcast", "--codec none,int8 --collective broadcast", 2, {"--collective broadcast"}},
        Mistake{"codec_where", "--codec int8 --codec-where here", 2, {"between-hosts", "'here'"}},
        Mistake{"inner_alone", "--inner shm", 2, {"--outer"}},
        Mistake{"topology_of_others", "-n 4 --topology 3x2", 2, {"3x2", "6 ranks", "4"}},
        Mistake{"topology_of_nobody", "--topology 0x4", 2, {"'0x4'", "2x2"}},
        Mistake{"topology_beyond_numbers", "--topology 4294967296x4294967296", 2, {"4294967296x4294967296"}},
        Mistake{"picture_to_standard_output", "-n 2 --svg -", 2, {"--svg", "standard output"}},
        Mistake{"two_outputs_to_one_file", "-n 2 --json - --csv -", 2, {"two outputs"}},
        Mistake{"size_zero", "-b 0", 2, {"'0'", "at least 1 byte"}},
        Mistake{"size_negative", "-b -8", 2, {"'-8'", "negative"}},
        Mistake{"size_overflowing", "-e 99999999999G", 2, {"'99999999999G'", "larger"}},
        Mistake{"size_of_words", "-e huge", 2, {"'huge'", "256M"}},
        Mistake{"largest_below_smallest", "-b 1M -e 1K", 2, {"1K", "1M"}}, Mistake{"step_zero", "-i 0", 2, {"'0'"}},
        Mistake{"steps_without_end", "-i 1 -e 1G", 2, {"more than 1000 sizes"}},
        Mistake{"factor_of_one", "-f 1", 2, {"-f 1", "above 1"}},
        Mistake{"factor_of_nothing", "-f nan", 2, {"above 1"}}, Mistake{"no_ranks", "-n 0", 2, {"'0'", "at least 1"}},
        Mistake{"less_than_no_ranks", "-n -1", 2, {"'-1'", "at least 1"}},
        Mistake{"ranks_in_words", "-n four", 2, {"'four'"}},
        Mistake{"ranks_beyond_numbers", "-n 99999999999", 2, {"'99999999999'"}},
        Mistake{"ranks_beyond_the_machine", "-n 1000000", 1, {"1000000 ranks", "at most"}},
        Mistake{"root_of_nobody", "-n 2 -r 2", 2, {"--root is 2", "0 to 1"}},
        Mistake{"buffers", "--buffers pinned", 2, {"'pinned'", "registered"}},
        Mistake{"cache", "--cache warm", 2, {"'warm'", "flush"}},
        Mistake{"bind", "--bind socket", 2, {"'socket'", "core or none"}},
        Mistake{"timeout_of_zero", "-T 0", 2, {"--timeout"}},
        Mistake{"negative_iterations", "--iters -1", 2, {"--iters"}},
        Mistake{"too_many_lanes", "--lanes 65", 2, {"--lanes", "64"}},
        Mistake{"output_into_a_folder", "--json /tmp", 2, {"'/tmp'", "directory"}},
        Mistake{"output_into_no_folder", "--csv /nonexistent/x", 2, {"'/nonexistent/x'"}},
        Mistake{"output_where_nothing_may_be_made", "--svg /proc/x", 2, {"'/proc/x'"}},
        Mistake{"two_outputs_one_file", "--json /tmp/gradrail-both --csv /tmp/gradrail-both", 2, {"one file"}}),
    [](const auto& instance) { return instance.param.name; });

TEST_F(BenchMisuse, AnEmptyNameIsNoWayToLoseResults) {
  for (const char* option : {"--json", "--csv", "--trace", "--svg", "--table"}) {
    const auto ran = gradrail(words("bench -n 2 -a ring -b 8 -e 8 --iters 1") + Words{option, ""});
    EXPECT_EQ(ran.code, 2) << option;
    EXPECT_EQ(ran.out, "");
    expect_one_sentence(ran);
    EXPECT_THAT(ran.err, AllOf(HasSubstr(option), HasSubstr("empty")));
  }
  EXPECT_EQ(gradrail(words("doctor --json")).code, 0);
}

TEST_F(BenchMisuse, WhatIsWrongIsNamedFirst) {
  const auto unknown = gradrail(words("bench -n 2 --sizes 8"));
  EXPECT_EQ(unknown.code, 2);
  EXPECT_EQ(unknown.err, "gradrail: gradrail bench knows no '--sizes'; see gradrail bench --help\n");
  const auto without = gradrail(words("bench -n 2 --json"));
  EXPECT_EQ(without.code, 2);
  EXPECT_EQ(without.err, "gradrail: --json needs a value; see gradrail bench --help\n");
  const auto twice = gradrail(words("bench -n 2 -b 8 -b 16"));
  EXPECT_EQ(twice.code, 2);
  EXPECT_EQ(twice.err, "gradrail: --minbytes is given 2 times; give it once\n");
}

TEST_F(BenchMisuse, AHostWithoutLoopbackIsToldSo) {
  const Words without_network = {"/usr/bin/unshare", "--user", "--map-root-user", "--net"};
  Process possible(without_network + Words{"true"}, {});
  if (ended(possible).code != 0) GTEST_SKIP() << "unshare may make no network namespace here";
  Process process(without_network + Words{GRADRAIL_BINARY} + words("bench -n 2 -a ring -b 8 -e 8 --iters 1"), {});
  const auto ran = ended(process);
  EXPECT_EQ(ran.code, 1);
  expect_one_sentence(ran);
  EXPECT_THAT(ran.err, HasSubstr("ip link set lo up"));
}

TEST_F(BenchMisuse, LeavesEarlierResultsAlone) {
  const std::string path = folder_ / "results.json";
  std::ofstream(path) << "precious\n";
  for (const char* mistake : {"-n 1000000", "-a rign", "--csv /nonexistent/x"}) {
    EXPECT_NE(gradrail(words(fmt::format("bench {} --json {}", mistake, path))).code, 0);
    EXPECT_EQ(text_of(path), "precious\n") << mistake;
  }
  EXPECT_NE(gradrail(words("bench -n 1000000 --csv ") + Words{folder_ / "new.csv"}).code, 0);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "new.csv"));
}

TEST_F(BenchMisuse, AFullDiskIsAFailure) {
  const std::string bench = "bench -n 2 -a ring -b 8 -e 8 --iters 1";
  for (const char* output : {"--json", "--csv", "--trace", "--svg"}) {
    const auto ran = gradrail(words(fmt::format("{} {} /dev/full", bench, output)));
    EXPECT_EQ(ran.code, 1) << output;
    expect_one_sentence(ran);
    EXPECT_THAT(ran.err, AllOf(HasSubstr("/dev/full"), HasSubstr("No space left")));
  }
  Process to_full({"/bin/sh", "-c", fmt::format("{} {} > /dev/full", GRADRAIL_BINARY, bench)}, {});
  const auto ran = ended(to_full);
  EXPECT_EQ(ran.code, 1);
  expect_one_sentence(ran);
  EXPECT_THAT(ran.err, HasSubstr("standard output"));
}

TEST_F(BenchMisuse, ACloseStandardStreamIsNoFileOfResults) {
  const std::string path = folder_ / "results.json";
  Process closed(
      {"/bin/sh", "-c",
       fmt::format("{} bench -n 2 -a ring -b 8 -e 8 --iters 1 --json {} <&- >&- 2>&-", GRADRAIL_BINARY, path)},
      {});
  EXPECT_EQ(ended(closed).code, 0);
  EXPECT_THAT(of_kind(records_of(path), "point"), SizeIs(1));
}

TEST_F(BenchMisuse, BuffersBeyondTheMachineAreRefused) {
  const auto ran = gradrail(words("bench -n 2 -a ring -b 8T -e 8T --iters 1"));
  EXPECT_EQ(ran.code, 1);
  expect_one_sentence(ran);
  EXPECT_THAT(ran.err, AllOf(HasSubstr("8 TiB"), HasSubstr("smaller")));
}

TEST_F(BenchMisuse, HelpIsNoMistake) {
  const auto ran = gradrail(words("bench --help"));
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.err, "");
  for (const char* option : {"--ranks", "--algorithm", "--topology", "--json", "--trace", "--time-per-point"})
    EXPECT_THAT(ran.out, HasSubstr(option));
  const auto nothing = gradrail({});
  EXPECT_EQ(nothing.code, 2);
  expect_one_sentence(nothing);
}

TEST_F(BenchMisuse, CommandsAreNamedWhereNoneOrAnUnknownOneWasGiven) {
  for (const char* typed : {"", "bnech -n 2"}) {
    const auto ran = gradrail(words(typed), Seconds(30));
    EXPECT_EQ(ran.code, 2);
    EXPECT_EQ(ran.out, "");
    expect_one_sentence(ran);
    EXPECT_THAT(ran.err, HasSubstr("bench, p2p, doctor, plan, tune"));
  }
}

}  // namespace
}  // namespace gradrail::test

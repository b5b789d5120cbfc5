// `gradrail tune` makes a table, and `gradrail bench --algorithm auto` does what the table says, unless the table was
// made elsewhere or is damaged.
#include <fstream>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using nlohmann::json;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class Tune : public testing::Test {
 protected:
  // The machine's phase may change between tuning and measuring, and the table is not used then.
  const Words k_in_any_phase{"--on-foreign-table", "warn"};

  [[nodiscard]] std::string table() const { return folder_ / "table.json"; }

  void tune() const {
    const auto run =
        gradrail(words("tune -n 2 --transport shm -b 64 -e 64K --budget 3") + Words{"--table", table()}, Seconds(100));
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr("# Held out"));
    EXPECT_THAT(run.out, HasSubstr("auto by this table loses"));
    EXPECT_THAT(run.out, HasSubstr("gradrail bench -n 2 --algorithm auto --table " + table()));
  }
  [[nodiscard]] Ended bench_auto(const Words& more = {}) const {
    return gradrail(words("bench -n 2 --transport shm -a auto -b 64 -e 64K -f 8 --iters 10 --table") + Words{table()} +
                    more);
  }
  // The table with a word of it replaced.
  void change(const std::string& from, const std::string& to) const {
    std::string text = text_of(table());
    const auto at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from << " is not in " << text;
    std::ofstream(table()) << text.replace(at, from.size(), to);
  }

  Folder folder_;
};

TEST_F(Tune, NamesTheCommandForTheJobThatItWasMadeBy) {
  const auto run = gradrail(
      words("tune -n 3 --transport tcp --collective broadcast -b 64 -e 64 --budget 2") + Words{"--table", table()},
      Seconds(100));
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("gradrail bench -n 3 --collective broadcast --transport tcp --algorithm auto"));
}

TEST_F(Tune, ItsTableAnswersAuto) {
  tune();
  const auto made = json::parse(text_of(table()));
  EXPECT_EQ(made.at("schema"), 2);
  const std::string records = folder_ / "out.jsonl";
  const auto run = bench_auto(k_in_any_phase + Words{"--json", records});
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr(table()));
  const auto points = of_kind(records_of(records), "point");
  ASSERT_THAT(points, Not(IsEmpty()));
  for (const auto& point : points) {
    EXPECT_EQ(point.at("requested"), "auto");
    EXPECT_THAT(text_of(table()), HasSubstr(point.at("algorithm").get<std::string>()));
  }
}

TEST_F(Tune, ATableFromOtherHardwareIsRefusedOrUsedWithAWarning) {
  tune();
  const auto cpu = json::parse(text_of(table())).at("origin").at("cpu_model").get<std::string>();
  change(cpu, "Difference Engine");
  const auto refused = bench_auto();
  EXPECT_EQ(refused.code, 2) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("Difference Engine"));
  EXPECT_THAT(refused.err, HasSubstr("--on-foreign-table warn"));
  const auto warned = bench_auto({"--on-foreign-table", "warn"});
  EXPECT_EQ(warned.code, 0) << warned.err;
  EXPECT_THAT(warned.out + warned.err, HasSubstr("Difference Engine"));
}

TEST_F(Tune, ATableOfAnotherPhaseIsLeftForATrialOrUsedWithAWarning) {
  tune();
  auto made = json::parse(text_of(table()));
  if (made.at("entries").at(0).at("core_to_core_ns") == 0) GTEST_SKIP() << "this machine has one core only";
  made.at("entries").at(0).at("core_to_core_ns") = 1e6;
  std::ofstream(table()) << made;
  const auto left = bench_auto();
  EXPECT_EQ(left.code, 0) << left.err;
  EXPECT_THAT(left.err, HasSubstr("from core to core in 1000000 ns"));
  EXPECT_THAT(left.err, HasSubstr("--on-foreign-table warn"));
  EXPECT_THAT(left.out, HasSubstr("auto is answered by cost model (measured links)"));
  const auto used = bench_auto(k_in_any_phase);
  EXPECT_EQ(used.code, 0) << used.err;
  EXPECT_THAT(used.err, HasSubstr("its choices may be wrong"));
  EXPECT_THAT(used.out, HasSubstr("auto is answered by table " + table()));
}

// The codec of the last row of `gradrail bench --error-budget` with the table, which is what auto chose.
class ErrorBudget : public Tune {
 protected:
  [[nodiscard]] json chosen_within(const std::string& budget) const {
    const std::string records = folder_ / "out.jsonl";
    const auto run = gradrail(words("bench -n 2 --transport shm -a auto -b 64K -e 64K --iters 8 --error-budget") +
                              Words{budget, "--table", table(), "--json", records} + k_in_any_phase);
    EXPECT_EQ(run.code, 0) << run.err << run.out;
    const auto points = of_kind(records_of(records), "point");
    EXPECT_THAT(points, testing::SizeIs(2)) << "none, and what auto chose";
    if (points.size() != 2) return {};
    EXPECT_EQ(points[0].at("codec"), "none");
    EXPECT_FALSE(points[0].contains("requested_codec"));
    EXPECT_LT(points[0].at("rel_l2_error"), 1e-6);
    EXPECT_EQ(points[1].at("requested_codec"), "auto");
    return points[1];
  }
};

TEST_F(ErrorBudget, TakesTheTablesCodecWhereItIsExactEnough) {
  tune();
  auto made = json::parse(text_of(table()));
  made["entries"][0]["codecs"] = json::parse(R"([{"bytes": 65536, "dense_us": 90, "choices": [
      {"codec": "bf16", "where": "all", "algorithm": "two_shot", "lanes": 1, "pieces": 2, "time_us": 60, "error": 0.003},
      {"codec": "int8", "where": "all", "algorithm": "ring", "lanes": 1, "pieces": 1, "time_us": 40, "error": 0.0095}]}])");
  std::ofstream(table()) << made;
  const json int8 = chosen_within("1e-2");
  EXPECT_EQ(int8.value("codec", ""), "int8");
  EXPECT_EQ(int8.value("algorithm", ""), "ring");
  const json bf16 = chosen_within("5e-3");
  EXPECT_EQ(bf16.value("codec", ""), "bf16");
  EXPECT_LT(bf16.value("rel_l2_error", 1.0), 5e-3);
  EXPECT_EQ(chosen_within("1e-3").value("codec", ""), "none");
}

TEST_F(ErrorBudget, TuneKeepsWhatItFoundOfCodecs) {
  const auto run = gradrail(words("tune -n 2 --transport shm -b 16K -e 64K --budget 2 --error-budget 1e-2 --codec "
                                  "int8,int4,bf16 --table") +
                                Words{table()},
                            Seconds(100));
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("--table " + table() + " --error-budget 0.01"));
  const auto made = json::parse(text_of(table()));
  const json& codecs = made["entries"][0].at("codecs");
  ASSERT_THAT(codecs, testing::SizeIs(2)) << "16 and 64 KiB";
  for (const json& size : codecs)
    for (const json& choice : size.at("choices")) {
      EXPECT_NE(choice.at("codec"), "int4") << "it is off by more";
      EXPECT_LT(choice.at("time_us"), size.at("dense_us"));
    }
  const auto bench = bench_auto({"--error-budget", "1e-2"});
  EXPECT_EQ(bench.code, 0) << bench.err;
}

TEST_F(ErrorBudget, WithoutATableCodecsAreMeasured) {
  const auto run = gradrail(words("bench -n 2 --transport tcp -a auto -b 64 -e 256K -f 64 --iters 8 --error-budget 0.5 "
                                  "--json") +
                            Words{folder_ / "out.jsonl"});
  ASSERT_EQ(run.code, 0) << run.err << run.out;
  int small = 0;
  for (const json& point : of_kind(records_of(folder_ / "out.jsonl"), "point")) {
    if (!point.contains("requested_codec")) {
      EXPECT_EQ(point.at("codec"), "none");
    }
    if (point.at("bytes") > 4096) continue;
    ++small;
    EXPECT_EQ(point.at("codec"), "none") << "so little data is never encoded";
  }
  EXPECT_EQ(small, 4);
}

TEST_F(ErrorBudget, AskedForWrongly) {
  for (const auto& [typed, said] :
       {std::pair("bench -n 2 --codec none,auto", "say how large: --error-budget"),
        std::pair("bench -n 2 --error-budget 1", "--error-budget is 1"),
        std::pair("bench -n 2 --error-budget -0.1", "--error-budget is -0.1"),
        std::pair("bench -n 2 --error-budget 0.1 -d half", "codecs are for float32"),
        std::pair("tune -n 2 --error-budget 0.1 --codec int8,auto", "name the codecs to try")}) {
    const auto run = gradrail(words(typed) + (words(typed)[0] == "tune" ? Words{"--table", table()} : Words{}));
    EXPECT_EQ(run.code, 2) << typed;
    EXPECT_THAT(run.err, HasSubstr(said)) << typed;
    EXPECT_THAT(lines_of(run.err), testing::SizeIs(1));
  }
}

TEST_F(Tune, ADamagedTableIsASentence) {
  std::ofstream(table()) << R"({"schema": 1, "origin": {"cpu_)";
  const auto run = bench_auto();
  EXPECT_EQ(run.code, 2) << run.err;
  EXPECT_THAT(lines_of(run.err), testing::SizeIs(1));
  EXPECT_THAT(run.err, HasSubstr(table()));
}

}  // namespace
}  // namespace gradrail::test

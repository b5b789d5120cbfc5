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
  [[nodiscard]] std::string table() const { return folder_ / "table.json"; }

  void tune() const {
    const auto run =
        gradrail(words("tune -n 2 --transport shm -b 64 -e 64K --budget 3") + Words{"--table", table()}, Seconds(100));
    ASSERT_EQ(run.code, 0) << run.err;
    EXPECT_THAT(run.out, HasSubstr("# Held out"));
    EXPECT_THAT(run.out, HasSubstr("auto by this table loses"));
    EXPECT_THAT(run.out, HasSubstr("--algorithm auto --table " + table()));
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

TEST_F(Tune, ItsTableAnswersAuto) {
  tune();
  const auto made = json::parse(text_of(table()));
  EXPECT_EQ(made.at("schema"), 1);
  const std::string records = folder_ / "out.jsonl";
  const auto run = bench_auto({"--json", records});
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

TEST_F(Tune, ADamagedTableIsASentence) {
  std::ofstream(table()) << R"({"schema": 1, "origin": {"cpu_)";
  const auto run = bench_auto();
  EXPECT_EQ(run.code, 2) << run.err;
  EXPECT_THAT(lines_of(run.err), testing::SizeIs(1));
  EXPECT_THAT(run.err, HasSubstr(table()));
}

}  // namespace
}  // namespace gradrail::test

// `gradrail doctor` as a person types it: on this host, on a made-up one, and what it cannot do.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/end_to_end/command.h"
#include "tests/unit/doctor_hosts.h"

namespace gradrail::test {
namespace {

using ::testing::HasSubstr;

class DoctorCommand : public CommandTest {};

TEST_F(DoctorCommand, ExaminesThisHost) {
  const auto run = gradrail(words("doctor"));
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, ::testing::StartsWith("cpu\n"));
  EXPECT_THAT(run.out, HasSubstr("transport tcp"));
  EXPECT_THAT(run.out, HasSubstr(" unknown\n"));
}

TEST_F(DoctorCommand, JsonGoesWhereItIsSent) {
  const auto run = gradrail(words("doctor --json"));
  EXPECT_EQ(run.code, 0) << run.err;
  const auto json = nlohmann::json::parse(run.out, nullptr, false);
  ASSERT_FALSE(json.is_discarded()) << run.out;
  EXPECT_EQ(json["kind"], "doctor");
  const std::string file = folder_ / "d.json";
  EXPECT_EQ(gradrail({"doctor", "--json", file}).code, 0);
  EXPECT_EQ(records_of(file).size(), 1u);
}

TEST_F(DoctorCommand, ARecordOfThisHostCanBeExamined) {
  const std::string record = folder_ / "record";
  const auto recorded = gradrail({"doctor", "--record", record});
  EXPECT_EQ(recorded.code, 0) << recorded.err;
  EXPECT_THAT(recorded.out, HasSubstr("look through it"));
  const auto read = gradrail({"doctor", "--root", record});
  EXPECT_EQ(read.code, 0) << read.err;
  // What only this build knows of this host, and what asks the CPU itself, is not in a record.
  EXPECT_THAT(read.out, HasSubstr("locked memory"));
  EXPECT_EQ(read.out.find("transport tcp"), std::string::npos);
}

TEST_F(DoctorCommand, AMadeUpHost) {
  const PlantedHost host("infiniband");
  const auto run = gradrail({"doctor", "--root", host.root().string()});
  EXPECT_EQ(run.code, 0) << "what is bad about a host is no failure of doctor";
  EXPECT_THAT(run.out, HasSubstr("8 of 16 lanes"));
}

TEST_F(DoctorCommand, Misuse) {
  const auto nowhere = gradrail(words("doctor --root nowhere-at-all"));
  EXPECT_EQ(nowhere.code, 2);
  EXPECT_THAT(nowhere.err, HasSubstr("'nowhere-at-all' is no folder"));
  const auto taken = gradrail({"doctor", "--record", GRADRAIL_SOURCE_DIR});
  EXPECT_EQ(taken.code, 2);
  EXPECT_THAT(taken.err, HasSubstr("is there already"));
  EXPECT_EQ(gradrail(words("doctor --frobnicate")).code, 2);
}

}  // namespace
}  // namespace gradrail::test

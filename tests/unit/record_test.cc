// Records as they are written to a file and read back, and that results/schema.json describes what is written.
#include "results/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "results/store.h"

namespace gradrail {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

Run example_run() {
  Run run;
  run.machine = {"node7",       "Example CPU 9000", 8,           1,       1,           32768,
                 1048576,       33554432,           25769803776, "6.1.0", "Debian 12", "none",
                 "performance", "madvise",          "AVX3"};
  run.build = {"0.1.0", "0123456789ab", "Release", "GNU 12.2.0", "-O3", "", {{"fmt", "9.1.0"}, {"hwloc", "2.9.0"}}};
  run.job = {4, 1, "launcher", {0, 2, 1, 3}};
  run.args = {"bench", "-n", "4"};
  run.started = "2025-01-31T12:00:00Z";
  return run;
}

Point example_point() {
  Point point;
  point.collective = "allreduce";
  point.algorithm = "ring";
  point.transport = "shm";
  point.topology = "1x4";
  point.ranks = 4;
  point.bytes = 1048576;
  point.count = 262144;
  point.type = "f32";
  point.op = "sum";
  point.in_place = true;
  point.path = "one-copy";
  point.lanes = 2;
  point.chunks = 4;
  point.wrong = 0;
  point.phase = "near";
  point.time_us = {.median = 160.5,
                   .ci = {158, 163.25},
                   .p95 = 170,
                   .p99 = 180,
                   .min = 150,
                   .max = 181,
                   .cv = 0.03,
                   .n = 3,
                   .batch = 2};
  point.algbw_gbs = 6.533184;
  point.busbw_gbs = 9.799776;
  point.model_us = 155;
  point.expected_gbs = 12.5;
  point.expected_share = 0.75;
  point.samples_us = {150, 160.5, 181};
  return point;
}

Point encoded_point() {
  Point point = example_point();
  point.codec = "int8";
  point.codec_where = "between-hosts";
  point.wire_bytes = 260;
  point.wire_ratio = 3.9;
  point.encode_us = 1.5;
  point.wire_us = 150;
  point.decode_us = 9;
  point.rel_l2_error = 0.006;
  point.max_error = 0.01;
  point.break_even_gbs = 12.5;
  point.non_finite = true;
  return point;
}

Choice example_choice() { return {"allreduce", "shm", "1x4", 4, "f32", "sum", 1048576, "ring", 1.25, true, "tree"}; }

PeerRecord example_peer() {
  return {"openmpi", "ucx", "shm", 2, "Open MPI v4.1.4", "mpirun -n 2 gradrail-peer-openmpi", "UCX_TLS=posix", {}};
}
PeerRecord absent_peer() {
  PeerRecord peer = example_peer();
  peer.error = "it ended";
  return peer;
}

Comparison example_comparison() {
  return {"allreduce", "shm",  "1x2",      2,   "f32",     "sum", 64,  true, "plain",
          "hot",       "near", "one_shot", 0.5, "openmpi", "ucx", 1.5, 3,    {2.5, 3.5}};
}

class ResultsFile : public testing::Test {
 protected:
  ~ResultsFile() override { std::filesystem::remove(path_); }

  void put(std::string_view text) const { std::ofstream(path_, std::ios::binary) << text; }
  std::string text() const {
    std::ostringstream out;
    out << std::ifstream(path_).rdbuf();
    return out.str();
  }

  const std::string path_ =
      (std::filesystem::temp_directory_path() / ("gradrail-record-test-" + std::to_string(::getpid()))).string();
};

// --- one line --------------------------------------------------------------------------------------------------------

TEST(Record, APointIsOneObjectOnOneLine) {
  EXPECT_EQ(
      format_record(example_point()),
      R"({"kind":"point","library":"gradrail","collective":"allreduce","algorithm":"ring","transport":"shm",)"
      R"("topology":"1x4","ranks":4,"bytes":1048576,"count":262144,"type":"f32","op":"sum","root":-1,)"
      R"("in_place":true,"buffers":"plain","cache":"hot","path":"one-copy","lanes":2,"chunks":4,"wrong":0,)"
      R"("phase":"near","time_us":{"median":160.5,"ci":[158.0,163.25],"p95":170.0,"p99":180.0,"min":150.0,)"
      R"("max":181.0,"cv":0.03,"n":3,"batch":2},"algbw_gbs":6.533184,"busbw_gbs":9.799776,"model_us":155.0,"expected_gbs":12.5,"expected_share":0.75,)"
      R"("samples_us":[150.0,160.5,181.0]})");
}

TEST(Record, AChoiceSaysByHowMuchAndHowSurely) {
  EXPECT_EQ(format_record(example_choice()),
            R"({"kind":"choice","collective":"allreduce","transport":"shm","topology":"1x4","ranks":4,"type":"f32",)"
            R"("op":"sum","bytes":1048576,"algorithm":"ring","margin":1.25,"confident":true,"runner_up":"tree"})");
}

TEST(Record, EveryKindComesBackAsItWas) {
  Point failed = example_point();
  failed.time_us.reset();
  failed.model_us.reset();
  failed.expected_gbs.reset();
  failed.expected_share.reset();
  failed.samples_us.clear();
  failed.wrong.reset();
  failed.error = "ring needs at least 2 ranks";
  for (const Record& record : {Record(example_run()), Record(example_point()), Record(encoded_point()), Record(failed),
                               Record(Limits{"far", 280, 140}), Record(example_choice()), Record(example_peer()),
                               Record(absent_peer()), Record(example_comparison())}) {
    const std::string line = format_record(record);
    const auto back = parse_record(line);
    ASSERT_TRUE(back) << back.error().message;
    ASSERT_TRUE(*back);
    EXPECT_EQ((*back)->index(), record.index());
    EXPECT_EQ(format_record(**back), line);
  }
  const auto back = parse_record(format_record(failed));
  const auto& point = std::get<Point>(**back);
  EXPECT_FALSE(point.time_us);
  EXPECT_FALSE(point.wrong) << "unchecked is not the same as none wrong";
  EXPECT_EQ(point.error, "ring needs at least 2 ranks");
}

TEST(Record, WhatIsNotANumberIsNull) {
  Point point = example_point();
  point.busbw_gbs = std::numeric_limits<double>::quiet_NaN();
  point.time_us->p99 = std::numeric_limits<double>::infinity();
  const std::string line = format_record(point);
  EXPECT_THAT(line, AllOf(HasSubstr(R"("busbw_gbs":null)"), HasSubstr(R"("p99":null)")));
  const auto back = parse_record(line);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_TRUE(std::isnan(std::get<Point>(**back).busbw_gbs));
}

TEST(Record, FiguresKeepSevenSignificantDigits) {
  Point point = example_point();
  point.samples_us = {1.0 / 3, 12345678.9, 0.1 + 0.2};
  EXPECT_THAT(format_record(point), HasSubstr(R"("samples_us":[0.3333333,12345680.0,0.3])"));
}

TEST(Record, ArgumentsThatAreNotTextStillMakeAValidFile) {
  gradrail::Run run = example_run();
  run.args = {"--json", "caf\xe9.json"};
  EXPECT_TRUE(json::accept(format_record(run)));
}

TEST(Record, KindsAndKeysOfLaterVersionsArePassedOver) {
  const auto kind = parse_record(R"({"kind":"weather","sky":"blue"})");
  ASSERT_TRUE(kind) << kind.error().message;
  EXPECT_FALSE(*kind);
  json line = json::parse(format_record(example_point()));
  line["codec"] = "int8";
  line["time_us"]["encode_us"] = 3;
  const auto point = parse_record(line.dump());
  ASSERT_TRUE(point && *point) << point.error().message;
  EXPECT_EQ(std::get<Point>(**point).bytes, 1048576);
}

TEST(Record, AFileOfALaterSchemaIsRefused) {
  json line = json::parse(format_record(example_run()));
  line["schema"] = 2;
  line.erase("machine");  // whatever a later schema may look like, its number is what is wrong
  const auto run = parse_record(line.dump());
  ASSERT_FALSE(run);
  EXPECT_THAT(run.error().message, AllOf(HasSubstr("schema 2"), HasSubstr("reads schema 1")));
}

TEST(Record, DamageIsNamedByItsField) {
  struct Case {
    const char* pointer;
    json value;
    const char* message;
  };
  for (const auto& [pointer, value, message] :
       {Case{"/ranks", "four", "\"ranks\" is not a whole number"},
        Case{"/ranks", 4.5, "\"ranks\" is not a whole number"},
        Case{"/ranks", 5000000000, "\"ranks\" is not a whole number of 32 bits"},
        Case{"/bytes", 18446744073709551615u, "\"bytes\" is not a whole number below 2^63"},
        Case{"/algorithm", 7, "\"algorithm\" is not text"}, Case{"/in_place", 1, "\"in_place\" is not true or false"},
        Case{"/time_us", 7, "\"time_us\" is not an object"},
        Case{"/time_us/ci", json::array({1}), "in \"time_us\", \"ci\" is not two numbers"},
        Case{"/samples_us", json::array({"a"}), "\"samples_us\" is not a number"}}) {
    json line = json::parse(format_record(example_point()));
    line[json::json_pointer(pointer)] = value;
    const auto refused = parse_record(line.dump());
    ASSERT_FALSE(refused) << pointer;
    EXPECT_EQ(refused.error().code, Code::malformed);
    EXPECT_THAT(refused.error().message, HasSubstr(message));
  }
  json line = json::parse(format_record(example_point()));
  line.erase("algorithm");
  EXPECT_THAT(parse_record(line.dump()).error().message, HasSubstr("\"algorithm\" is missing"));
}

// --- files -----------------------------------------------------------------------------------------------------------

TEST_F(ResultsFile, EachRecordIsThereAsSoonAsItIsWritten) {
  auto writer = RecordWriter::create(path_);
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(writer->write(example_run()));
  const auto first = read_records(path_);  // the writer is still open
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_THAT(first->records, SizeIs(1));
  ASSERT_TRUE(writer->write(example_point()));
  ASSERT_TRUE(writer->write(example_choice()));
  const auto all = read_records(path_);
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_THAT(all->records, SizeIs(3));
  EXPECT_THAT(all->warnings, IsEmpty());
  EXPECT_EQ(std::get<gradrail::Run>(all->records[0]).machine.hostname, "node7");
  EXPECT_EQ(std::get<gradrail::Run>(all->records[0]).build.libraries[1].version, "2.9.0");
  EXPECT_EQ(std::get<Choice>(all->records[2]).runner_up, "tree");
}

TEST_F(ResultsFile, AKilledRunLosesAtMostItsLastLine) {
  const std::string whole = format_record(example_run()) + "\n" + format_record(example_point()) + "\n";
  put(whole + format_record(example_point()).substr(0, 100));
  const auto file = read_records(path_);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_THAT(file->records, SizeIs(2));
  EXPECT_THAT(file->warnings, ElementsAre(AllOf(HasSubstr("line 3"), HasSubstr("cut short"), HasSubstr("2 records"))));
}

TEST_F(ResultsFile, ALastLineThatOnlyLacksItsEndIsTaken) {
  put(format_record(example_run()) + "\n\n" + format_record(example_point()));
  const auto file = read_records(path_);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_THAT(file->records, SizeIs(2));
  EXPECT_THAT(file->warnings, IsEmpty());
}

TEST_F(ResultsFile, DamageInTheMiddleIsNamedByItsLine) {
  put(format_record(example_run()) + "\n{\"kind\":\"poi\n" + format_record(example_point()) + "\n");
  const auto file = read_records(path_);
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, AllOf(HasSubstr(path_), HasSubstr("line 2"), HasSubstr("not JSON")));
}

TEST_F(ResultsFile, FilesThatAreNoResultsAreRefusedInASentence) {
  for (const char* other :
       {"size,time\n8,1.5\n", "[1, 2, 3]\n", "{\"benchmarks\": []}\n", "{\"kind\": 7}\n", "\xff\xfe\n"}) {
    put(other);
    const auto file = read_records(path_);
    ASSERT_FALSE(file) << other;
    EXPECT_THAT(file.error().message, HasSubstr("line 1"));
  }
  put(std::string(200'000, '[') + "\n");
  EXPECT_FALSE(read_records(path_)) << "deep nesting is no way to crash us";
}

TEST_F(ResultsFile, AnUnwritablePathIsTheUsersMistake) {
  const auto writer = RecordWriter::create("/no/such/folder/results.jsonl");
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code, Code::bad_usage);
  EXPECT_THAT(writer.error().message, AllOf(HasSubstr("/no/such/folder/results.jsonl"), HasSubstr("No such file")));
  EXPECT_FALSE(RecordWriter::create("/"));
  EXPECT_FALSE(read_records("/no/such/file"));
}

TEST_F(ResultsFile, AFullDiskIsAnErrorAndNotACrash) {
  auto writer = RecordWriter::create("/dev/full");
  ASSERT_TRUE(writer) << writer.error().message;
  const auto wrote = writer->write(example_run());
  ASSERT_FALSE(wrote);
  EXPECT_EQ(wrote.error().sys_errno, ENOSPC);
  EXPECT_THAT(wrote.error().message, AllOf(HasSubstr("/dev/full"), HasSubstr("No space left")));
}

// A limit on the file's size stands in for a disk that fills up in the middle of a line.
TEST_F(ResultsFile, ALineThatDoesNotFitIsTakenBackWhole) {
  auto writer = RecordWriter::create(path_);
  ASSERT_TRUE(writer) << writer.error().message;
  ASSERT_TRUE(writer->write(example_run()));
  const auto fits = std::filesystem::file_size(path_);

  struct rlimit before {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit tight { fits + 100, before.rlim_max };
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &tight), 0);
  const auto wrote = writer->write(example_point());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);

  ASSERT_FALSE(wrote);
  EXPECT_EQ(wrote.error().sys_errno, EFBIG);
  EXPECT_THAT(wrote.error().message, HasSubstr("what was written before is kept"));
  EXPECT_EQ(std::filesystem::file_size(path_), fits);
  ASSERT_TRUE(writer->write(example_choice())) << "what fits again is written on a line of its own";
  const auto file = read_records(path_);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_THAT(file->records, SizeIs(2));
  EXPECT_THAT(file->warnings, IsEmpty());
}

// --- the schema ------------------------------------------------------------------------------------------------------

// As much of JSON Schema 2020-12 as results/schema.json uses; a keyword that is not known here fails the test, so that
// the file cannot come to rely on one that nobody checks. Returns what does not conform, or nothing.
class Schema {
 public:
  explicit Schema(json root) : root_(std::move(root)) {}

  std::string check(const json& value) const { return check(root_, value, ""); }

 private:
  static bool has_type(const json& value, const std::string& type) {
    if (type == "object") return value.is_object();
    if (type == "array") return value.is_array();
    if (type == "string") return value.is_string();
    if (type == "boolean") return value.is_boolean();
    if (type == "integer") return value.is_number_integer();
    if (type == "number") return value.is_number();
    return type == "null" && value.is_null();
  }

  std::string check(const json& schema, const json& value, const std::string& at) const {
    for (const auto& [keyword, rule] : schema.items()) {
      const std::string problem = check_keyword(schema, keyword, rule, value, at);
      if (!problem.empty()) return problem;
    }
    return {};
  }

  std::string check_keyword(const json& schema, const std::string& keyword, const json& rule, const json& value,
                            const std::string& at) const {
    const auto unless = [&](bool conforms) {
      return conforms ? std::string() : at + ": " + keyword + " " + rule.dump();
    };
    if (keyword == "$ref") return check(root_.at(json::json_pointer(rule.get<std::string>().substr(1))), value, at);
    if (keyword == "type") {
      bool any = false;
      for (const auto& type : rule.is_array() ? rule : json::array({rule}))
        any |= has_type(value, type.get<std::string>());
      return unless(any);
    }
    if (keyword == "const") return unless(value == rule);
    if (keyword == "enum") return unless(std::find(rule.begin(), rule.end(), value) != rule.end());
    if (keyword == "minimum") return unless(!value.is_number() || value >= rule);
    if (keyword == "minItems") return unless(!value.is_array() || value.size() >= rule);
    if (keyword == "maxItems") return unless(!value.is_array() || value.size() <= rule);
    if (keyword == "required") {
      for (const auto& key : rule)
        if (value.is_object() && !value.contains(key.get<std::string>())) return at + ": lacks " + key.dump();
      return {};
    }
    if (keyword == "properties") {
      for (const auto& [key, part] : rule.items())
        if (value.is_object() && value.contains(key))
          if (auto problem = check(part, value[key], at + "/" + key); !problem.empty()) return problem;
      return {};
    }
    if (keyword == "additionalProperties") {
      for (const auto& [key, part] : value.items())
        if (auto problem = check(rule, part, at + "/" + key); !problem.empty()) return problem;
      return {};
    }
    if (keyword == "items") {
      for (const auto& part : value.is_array() ? value : json::array())
        if (auto problem = check(rule, part, at + "[]"); !problem.empty()) return problem;
      return {};
    }
    if (keyword == "allOf") {
      for (const auto& part : rule)
        if (auto problem = check(part, value, at); !problem.empty()) return problem;
      return {};
    }
    if (keyword == "anyOf") {
      for (const auto& part : rule)
        if (check(part, value, at).empty()) return {};
      return unless(false);
    }
    if (keyword == "if") return check(rule, value, at).empty() ? check(schema.at("then"), value, at) : std::string();
    for (const char* known : {"then", "$defs", "$schema", "title", "description"})
      if (keyword == known) return {};
    return "the schema uses '" + keyword + "', which this test cannot check";
  }

  json root_;
};

Schema schema() { return Schema(json::parse(std::ifstream(GRADRAIL_SOURCE_DIR "/results/schema.json"))); }

std::vector<json> examples() {
  Point odd;  // as bare as a point gets: nothing measured, nothing reduced, figures that are no numbers
  odd.collective = "all_to_all";
  odd.type = "bf16";
  odd.ranks = 1;
  odd.error = "not enough memory";
  odd.busbw_gbs = std::nan("");
  std::vector<json> lines;
  for (const Record& record :
       {Record(example_run()), Record(example_point()), Record(odd), Record(Limits{}), Record(example_choice()),
        Record(example_peer()), Record(absent_peer()), Record(example_comparison()), Record(encoded_point())})
    lines.push_back(json::parse(format_record(record)));
  return lines;
}

TEST(RecordSchema, DescribesWhatIsWritten) {
  for (const json& line : examples()) EXPECT_EQ(schema().check(line), "") << line;
}

TEST(RecordSchema, KnowsEveryKeyThatIsWritten) {
  const json root = json::parse(std::ifstream(GRADRAIL_SOURCE_DIR "/results/schema.json"));
  const auto expect_known = [&](const json& object, const char* definition) {
    for (const auto& [key, value] : object.items())
      EXPECT_TRUE(key == "kind" || root["$defs"][definition]["properties"].contains(key)) << definition << "." << key;
  };
  for (const json& line : examples()) {
    expect_known(line, line["kind"].get<std::string>().c_str());
    for (const auto& [key, definition] :
         {std::pair{"machine", "machine"}, {"build", "build"}, {"job", "job"}, {"time_us", "timing"}})
      if (line.contains(key) && line[key].is_object()) expect_known(line[key], definition);
  }
}

TEST(RecordSchema, RefusesWhatIsNotARecord) {
  const auto changed = [](std::size_t example, const char* pointer, const json& value) {
    json line = examples()[example];
    line[json::json_pointer(pointer)] = value;
    return schema().check(line);
  };
  EXPECT_THAT(changed(0, "/schema", 2), StartsWith("/schema"));
  EXPECT_THAT(changed(0, "/machine/cores", "eight"), StartsWith("/machine/cores"));
  EXPECT_THAT(changed(0, "/build/libraries/fmt", 9), StartsWith("/build/libraries/fmt"));
  EXPECT_THAT(changed(0, "/args/0", 1), StartsWith("/args[]"));
  EXPECT_THAT(changed(1, "/ranks", 0), StartsWith("/ranks"));
  EXPECT_THAT(changed(1, "/type", "float"), StartsWith("/type"));
  EXPECT_THAT(changed(1, "/time_us/ci", json::array({1})), StartsWith("/time_us"));
  EXPECT_THAT(changed(4, "/confident", 1), StartsWith("/confident"));
  json line = examples()[1];
  line.erase("samples_us");
  EXPECT_THAT(schema().check(line), HasSubstr("samples_us"));
}

}  // namespace
}  // namespace gradrail

// Decision tables: written and read back, looked up, and refused with the right words when damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "collectives/select/table.h"

namespace gradrail {
namespace {

using ::testing::HasSubstr;

TableRange range(std::uint64_t from, std::uint64_t to, const Selection& selection, double confidence) {
  TableRange made;
  made.from_bytes = from;
  made.to_bytes = to;
  made.selection = selection;
  made.median_us = 2.5;
  made.margin = 1.5;
  made.confidence = confidence;
  made.sizes = 4;
  made.runner_up = "one_shot";
  return made;
}

DecisionTable example() {
  DecisionTable table;
  table.origin = {"Some CPU", 2, "0.1", "abc", "2025-01-31T12:00:00Z", "plain", "hot", "f32", "sum", "64ns-64GB/s"};
  TableEntry flat{Collective::allreduce, "shm", 4, 4, {}};
  flat.ranges.push_back(range(8, 4095, {"recursive_doubling", 1, 1}, 1));
  flat.ranges.push_back(range(4096, 100'000, {"two_shot", 1, 1}, 0.5));
  flat.ranges.push_back(range(200'000, 1 << 26, {"ring", 2, 8}, 0.75));
  TableEntry hosts{Collective::allreduce, "shm+tcp", 4, 2, {}};
  hosts.ranges.push_back(range(8, 1 << 26, {"hierarchical:ring+tree", 1, 1}, 0));
  hosts.core_to_core_ns = 76.25;
  hosts.codecs.push_back({64 << 10, 800, {}});
  hosts.codecs.push_back({16 << 20,
                          145'000,
                          {{{"hierarchical", 1, 8, "bf16", CodecWhere::everywhere}, 80'000, 0.0023},
                           {{"hierarchical", 1, 4, "int8", CodecWhere::between_hosts}, 42'000, 0.0098},
                           {{"gather", 1, 1, "topk:0.01", CodecWhere::everywhere}, 8'000, 0.96}}});
  table.entries = {flat, hosts};
  return table;
}

// The table's text with the first `from` replaced by `to`.
std::string with(const std::string& from, const std::string& to) {
  std::string text = format_table(example());
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string refusal(const std::string& text) {
  const auto table = parse_table(text);
  if (table) return "accepted";
  EXPECT_EQ(table.error().code, Code::malformed);
  return table.error().message;
}

TEST(DecisionTable, TextRoundTrip) {
  const std::string text = format_table(example());
  const auto table = parse_table(text);
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_EQ(format_table(*table), text);
  EXPECT_EQ(table->entries[0].ranges[2].selection, (Selection{"ring", 2, 8}));
  EXPECT_DOUBLE_EQ(table->entries[1].core_to_core_ns, 76.25);
  EXPECT_EQ(table->origin.cpu_model, "Some CPU");
  EXPECT_DOUBLE_EQ(table->entries[0].ranges[2].confidence, 0.75);
}

TEST(DecisionTable, EveryTruncationIsRefused) {
  const std::string text = format_table(example());
  // The last byte is the newline behind the closing brace.
  for (std::size_t length = 0; length + 1 < text.size(); ++length)
    EXPECT_NE(refusal(text.substr(0, length)), "accepted") << length;
}

TEST(DecisionTable, DamagesAreNamedByTheirPlace) {
  EXPECT_THAT(refusal("[]"), HasSubstr("not a JSON object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("no decision table"));
  EXPECT_THAT(refusal(with("\"schema\": 2", "\"schema\": 3")), HasSubstr("later version"));
  EXPECT_THAT(refusal(with("\"schema\": 2", "\"schema\": \"2\"")), HasSubstr("schema is not a whole number"));
  EXPECT_THAT(refusal(with("\"bytes\": 65536", "\"bytes\": 99999999")), HasSubstr("entries[1].codecs[1] is of"));
  EXPECT_THAT(refusal(with("\"codec\": \"int8\"", "\"codec\": \"int9\"")),
              HasSubstr("entries[1].codecs[1].choices[1]: "));
  EXPECT_THAT(refusal(with("\"where\": \"between-hosts\"", "\"where\": \"nowhere\"")),
              HasSubstr("choices[1].where is"));
  EXPECT_THAT(refusal(with("\"error\": 0.0098", "\"wrong\": 0.0098")), HasSubstr("choices[1].error is missing"));
  EXPECT_THAT(refusal(with("\"algorithm\": \"gather\"", "\"algorithm\": \"ga/ther\"")),
              HasSubstr("no exchange's name"));
  EXPECT_THAT(refusal(with("\"from_bytes\": 8", "\"from_bytes\": \"8\"")),
              HasSubstr("entries[0].ranges[0].from_bytes is not a whole number"));
  EXPECT_THAT(refusal(with("\"from_bytes\": 8", "\"from_bytes\": -8")), HasSubstr("from_bytes is not a whole number"));
  EXPECT_THAT(refusal(with("\"from_bytes\": 8", "\"from_bytes\": 8.5")), HasSubstr("from_bytes is not a whole number"));
  EXPECT_THAT(refusal(with("\"from_bytes\": 8", "\"from\": 8")), HasSubstr("from_bytes is missing"));
  EXPECT_THAT(refusal(with("\"from_bytes\": 8", "\"from_bytes\": 9999")), HasSubstr("before it begins"));
  EXPECT_THAT(refusal(with("\"from_bytes\": 4096", "\"from_bytes\": 4095")), HasSubstr("covers already"));
  EXPECT_THAT(refusal(with("\"recursive_doubling\"", "\"teleport\"")), HasSubstr("no algorithm 'teleport'"));
  EXPECT_THAT(refusal(with("hierarchical:ring+tree", "hierarchical:ring+warp")), HasSubstr("warp"));
  EXPECT_THAT(refusal(with("\"collective\": \"allreduce\"", "\"collective\": \"everything\"")),
              HasSubstr("entries[0].collective"));
  EXPECT_THAT(refusal(with("\"ranks\": 4", "\"ranks\": 0")), HasSubstr("entries[0].ranks"));
  EXPECT_THAT(refusal(with("\"ranks\": 4", "\"ranks\": 70000")), HasSubstr("it may be 1 to 65535"));
  EXPECT_THAT(refusal(with("\"ranks_per_host\": 4", "\"ranks_per_host\": 3")), HasSubstr("does not divide"));
  EXPECT_THAT(refusal(with("\"lanes\": 1", "\"lanes\": 65")), HasSubstr("65 lanes are not possible"));
  EXPECT_THAT(refusal(with("\"pieces\": 1", "\"pieces\": 1025")), HasSubstr("1025 pieces are not possible"));
  EXPECT_THAT(refusal(with("\"confidence\": 0.5", "\"confidence\": 1.5")), HasSubstr("confidence is 1.5"));
  EXPECT_THAT(refusal(with("\"transport\": \"shm\"", "\"transport\": 3")), HasSubstr("transport is not a text"));
  EXPECT_THAT(refusal(with("\"cores\": 2", "\"cores\": true")), HasSubstr("origin.cores"));
}

// As `gradrail tune` wrote it before tables had codecs.
TEST(DecisionTable, TablesOfTheFirstSchemaAreRead) {
  const auto table = parse_table(R"({"kind": "decision_table", "schema": 1, "origin": {"cpu_model": "Some CPU",
    "cores": 2, "phase": "64ns-64GB/s"}, "entries": [{"collective": "allreduce", "transport": "shm", "ranks": 4,
    "ranks_per_host": 4, "ranges": [{"from_bytes": 8, "to_bytes": 1024, "algorithm": "ring", "lanes": 1, "pieces": 4,
    "median_us": 2.5, "margin": 1.5, "confidence": 1, "sizes": 4, "runner_up": "tree"}]}]})");
  ASSERT_TRUE(table) << table.error().message;
  EXPECT_TRUE(table->entries[0].codecs.empty());
  Question question{Collective::allreduce, 1 << 20, 4, 4, "shm", false};
  question.error_budget = 0.5;
  EXPECT_EQ(TableSelector(*table, "old", nullptr).choose(question), (Selection{"ring", 1, 4}));
}

TEST(DecisionTable, HugeNumbersAreRefused) {
  EXPECT_THAT(refusal(with("\"to_bytes\": 4095", "\"to_bytes\": 18446744073709551615")), HasSubstr("to_bytes is"));
  EXPECT_THAT(refusal(with("\"to_bytes\": 4095", "\"to_bytes\": 99999999999999999999999")), HasSubstr("to_bytes"));
  EXPECT_NE(refusal(with("\"margin\": 1.5", "\"margin\": 1e999")), "accepted");
  EXPECT_THAT(refusal(with("\"margin\": 1.5", "\"margin\": 1e300")), HasSubstr("margin"));
  EXPECT_THAT(refusal(with("\"pieces\": 1", "\"pieces\": 4294967297")), HasSubstr("pieces"));
}

TEST(DecisionTable, EmptyAndDoubledEntriesAreRefused) {
  DecisionTable table = example();
  table.entries.push_back(table.entries[0]);
  EXPECT_THAT(refusal(format_table(table)), HasSubstr("same collective"));
  table = example();
  table.entries[1].ranges.clear();
  EXPECT_THAT(refusal(format_table(table)), HasSubstr("entries[1].ranges is empty"));
  table.entries.clear();
  EXPECT_TRUE(parse_table(format_table(table)));  // says nothing, wrongs nobody
}

TEST(DecisionTable, DeepNestingDoesNotOverflowTheStack) {
  const std::string deep = std::string(1'000'000, '[');
  EXPECT_NE(refusal(deep), "accepted");
  EXPECT_NE(refusal(deep + std::string(1'000'000, ']')), "accepted");
}

TEST(DecisionTable, SizesBetweenAndBeyondBelongToTheNearestRange) {
  const DecisionTable table = example();
  const TableEntry& entry = table.entries[0];
  const auto algorithm = [&](std::uint64_t bytes) { return find_range(entry, bytes).selection.algorithm; };
  EXPECT_EQ(algorithm(0), "recursive_doubling");
  EXPECT_EQ(algorithm(1), "recursive_doubling");
  EXPECT_EQ(algorithm(4095), "recursive_doubling");
  EXPECT_EQ(algorithm(4096), "two_shot");
  EXPECT_EQ(algorithm(130'000), "two_shot");
  EXPECT_EQ(algorithm(160'000), "ring");
  EXPECT_EQ(algorithm(std::uint64_t{1} << 40), "ring");
}

TEST(DecisionTable, NearestRanksInLogarithms) {
  DecisionTable table = example();
  TableEntry eight = table.entries[0];
  eight.ranks = eight.ranks_per_host = 8;
  table.entries.push_back(eight);
  const auto ranks = [&](int asked) {
    const TableEntry* entry = find_entry(table, {Collective::allreduce, 64, asked, asked, "shm", false});
    return entry == nullptr ? 0 : entry->ranks;
  };
  EXPECT_EQ(ranks(4), 4);
  EXPECT_EQ(ranks(8), 8);
  EXPECT_EQ(ranks(5), 4);
  EXPECT_EQ(ranks(6), 8);  // sqrt(32) = 5.66
  EXPECT_EQ(ranks(2), 4);
  EXPECT_EQ(ranks(16), 8);
  EXPECT_EQ(ranks(17), 0);
  EXPECT_EQ(ranks(1), 0);
  EXPECT_EQ(find_entry(table, {Collective::broadcast, 64, 4, 4, "shm", false}), nullptr);
  EXPECT_EQ(find_entry(table, {Collective::allreduce, 64, 4, 4, "tcp", false}), nullptr);
  EXPECT_EQ(find_entry(table, {Collective::allreduce, 64, 4, 2, "shm", false}), nullptr) << "one host is not two";
}

class Says : public Selector {
 public:
  [[nodiscard]] Selection choose(const Question&) const override { return {"one_shot", 1, 3}; }
  [[nodiscard]] std::string describe() const override { return "test"; }
};

TEST(TableSelector, AnswersOrFallsBack) {
  const TableSelector selector(example(), "a.json", std::make_shared<Says>());
  EXPECT_EQ(selector.choose({Collective::allreduce, 1 << 20, 4, 4, "shm", false}), (Selection{"ring", 2, 8}));
  EXPECT_EQ(selector.choose({Collective::allreduce, 1 << 20, 64, 64, "shm", false}), (Selection{"one_shot", 1, 3}));
  EXPECT_EQ(selector.choose({Collective::allreduce, 1 << 20, 4, 4, "tcp", false}), (Selection{"one_shot", 1, 3}));
  EXPECT_EQ(selector.describe(), "table a.json");
  const TableSelector alone({}, "empty", nullptr);
  const Question question{Collective::broadcast, 64, 4, 4, "shm", false};
  EXPECT_EQ(alone.choose(question), default_selection(question));
}

TEST(TableSelector, NamesACodecOnlyToWhoBearsItsError) {
  const TableSelector selector(example(), "a.json", nullptr);
  Question question{Collective::allreduce, 16 << 20, 4, 2, "shm+tcp", false};
  const auto codec = [&](std::uint64_t bytes, double budget) {
    question.bytes = bytes;
    question.error_budget = budget;
    return selector.choose(question).codec;
  };
  EXPECT_EQ(codec(16 << 20, 0), "");
  EXPECT_EQ(codec(16 << 20, 1e-3), "");
  EXPECT_EQ(codec(16 << 20, 3e-3), "bf16");
  EXPECT_EQ(codec(16 << 20, 1e-2), "int8");
  EXPECT_EQ(codec(16 << 20, 0.99), "topk:0.01");
  EXPECT_EQ(selector.choose(question).algorithm, "gather");
  question.error_budget = 1e-2;
  EXPECT_EQ(selector.choose(question), (Selection{"hierarchical", 1, 4, "int8", CodecWhere::between_hosts}));
  // By the nearest size: none paid at 64 KiB, and for less data none ever does.
  EXPECT_EQ(codec(1 << 30, 1e-2), "int8");
  EXPECT_EQ(codec(2 << 20, 1e-2), "int8");
  EXPECT_EQ(codec(512 << 10, 1e-2), "");
  EXPECT_EQ(codec(8 << 10, 0.99), "");
  // Without a codec, what the table says of such calls.
  EXPECT_EQ(selector.choose(question).algorithm, "hierarchical:ring+tree");
  // Of other cases nothing is known.
  question.transport = "shm";
  EXPECT_EQ(codec(16 << 20, 0.99), "");
}

TEST(TableSelector, AsksTheOtherSelectorForACodecWhereTheTableHasNone) {
  class Encodes : public Selector {
   public:
    [[nodiscard]] Selection choose(const Question& question) const override {
      if (question.error_budget >= 0.01) return {"two_shot", 1, 1, "int8"};
      return {"one_shot", 1, 3};
    }
    [[nodiscard]] std::string describe() const override { return "test"; }
  };
  const TableSelector selector(example(), "a.json", std::make_shared<Encodes>());
  Question question{Collective::allreduce, 1 << 20, 4, 4, "shm", false};
  EXPECT_EQ(selector.choose(question).algorithm, "ring");
  question.error_budget = 0.01;
  EXPECT_EQ(selector.choose(question).codec, "int8");
  question.error_budget = 0.001;
  EXPECT_EQ(selector.choose(question), (Selection{"ring", 2, 8})) << "no codec is exact enough: the table's";
}

TEST(CodedSizes, KeepWhatIsFasterThanEverythingMoreExact) {
  CodedSize size{1 << 20, 100, {}};
  const auto add = [&](const char* codec, double us, double error) {
    size.choices.push_back({{"two_shot", 1, 1, codec}, us, error});
  };
  add("int4", 40, 0.1);
  add("int8", 45, 0.01);
  add("slow", 60, 0.02);
  add("bf16", 70, 0.002);
  add("slower", 110, 0.0001);
  order_choices(size);
  ASSERT_EQ(size.choices.size(), 3u);
  EXPECT_EQ(size.choices[0].selection.codec, "bf16");
  EXPECT_EQ(size.choices[1].selection.codec, "int8");
  EXPECT_EQ(size.choices[2].selection.codec, "int4");
}

TEST(DecisionTable, ForeignHardwareIsSaid) {
  const TableOrigin origin = example().origin;
  EXPECT_FALSE(foreign(origin, "Some CPU", 2));
  EXPECT_EQ(foreign(origin, "Some CPU", 8), "made on a Some CPU with 2 cores; this is a Some CPU with 8 cores");
  EXPECT_EQ(foreign(origin, "AMD EPYC", 1), "made on a Some CPU with 2 cores; this is an AMD EPYC with 1 core");
  EXPECT_TRUE(foreign({}, "", 0)) << "two unknown machines are not known to be alike";
}

}  // namespace
}  // namespace gradrail

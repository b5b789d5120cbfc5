// `gradrail bench --against`: other libraries' rows beside ours, the closing comparison, and a run that goes on
// whatever happens to them.
#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

bool is_built(const std::string& peer) {
  return std::string("," GRADRAIL_PEERS ",").find("," + peer + ",") != std::string::npos;
}

class AgainstCommand : public CommandTest {
 protected:
  // A folder of runners in which every one that the command may ask for is the fake.
  std::string fake_folder() const {
    std::filesystem::create_directory(folder_ / "runners");
    std::filesystem::create_symlink(GRADRAIL_FAKE_PEER, folder_ / "runners/gradrail-peer-gloo");
    return folder_ / "runners";
  }
  Ended with_fake(const std::string& trouble, const std::string& more = "") const {
    return gradrail(words("bench -n 2 --transport tcp --against gloo -b 8 -e 64 -f 8 --iters 8 -c 0 -T 2 " + more +
                          " --json " + (folder_ / "out.jsonl")),
                    Seconds(120), {{"GRADRAIL_PEER_RUNNERS", fake_folder()}, {"FAKE_PEER", trouble}});
  }
  std::vector<json> kind(std::string_view name) const { return of_kind(records_of(folder_ / "out.jsonl"), name); }
};

class AgainstLibrary : public AgainstCommand, public ::testing::WithParamInterface<const char*> {};

TEST_P(AgainstLibrary, ItsPointsAreCheckedTimedAndCompared) {
  const std::string library = GetParam();
  if (!is_built(library)) GTEST_SKIP() << library << " was not found when gradrail was configured";
  const std::string transport = library == "gloo" ? "tcp" : "shm";
  const auto run = gradrail(words("bench -n 2 --against " + library + " --transport " + transport +
                                  " -b 64 -e 4K -f 64 --iters 8 --in-place --json " + (folder_ / "out.jsonl") +
                                  " --svg " + (folder_ / "out.svg")),
                            Seconds(180));
  ASSERT_EQ(run.code, 0) << run.err << run.out;
  EXPECT_THAT(run.out, AllOf(HasSubstr("# Against the best peer: allreduce of f32 sum, 2 ranks"),
                             HasSubstr("geometric mean"), HasSubstr(library + ":")));
  const auto peers = kind("peer");
  ASSERT_THAT(peers, Not(IsEmpty()));
  for (const json& peer : peers) {
    EXPECT_EQ(peer["library"], library);
    EXPECT_FALSE(peer.contains("error")) << peer.dump();
    EXPECT_NE(peer["version"], "");
  }
  std::size_t timed = 0;
  for (const json& point : kind("point")) {
    EXPECT_EQ(point["wrong"], 0) << point.dump();
    if (point["library"] == "gradrail") continue;
    EXPECT_EQ(point["library"], library);
    EXPECT_EQ(point["buffers"], "plain");
    timed += !point["time_us"].is_null();
  }
  EXPECT_EQ(timed, 2 * peers.size());
  const auto comparisons = kind("comparison");
  ASSERT_THAT(comparisons, SizeIs(2));
  for (const json& comparison : comparisons) {
    EXPECT_GT(comparison["ratio"].get<double>(), 0);
    EXPECT_EQ(comparison["peer"], library);
    EXPECT_NEAR(comparison["ratio"].get<double>(),
                comparison["peer_us"].get<double>() / comparison["ours_us"].get<double>(), 1e-4);
  }
  EXPECT_THAT(text_of(folder_ / "out.svg"), HasSubstr("above 1, gradrail is faster"));
}
INSTANTIATE_TEST_SUITE_P(Of, AgainstLibrary, ::testing::Values("openmpi", "mpich", "gloo", "ucc"),
                         [](const auto& of) { return std::string(of.param); });

// Each library's own collectives, in place and out of place, come out right; what it has not is said and not timed.
TEST_P(AgainstLibrary, ItsOtherCollectivesAreCheckedAsWell) {
  const std::string library = GetParam();
  if (!is_built(library)) GTEST_SKIP() << library << " was not found when gradrail was configured";
  const std::string transport = library == "gloo" ? "tcp" : "shm";
  std::set<std::string> right;
  for (const std::string in_place : {"", " --in-place"}) {
    const std::string file = folder_ / (in_place.empty() ? "out.jsonl" : "in.jsonl");
    const auto run = gradrail(words("bench -n 3 --against " + library + " --transport " + transport +
                                    " --collective all -b 4K -e 4K --iters 2 --json " + file + in_place),
                              Seconds(240));
    ASSERT_EQ(run.code, 0) << run.err;
    for (const json& point : of_kind(records_of(file), "point")) {
      if (point["library"] != library) continue;
      if (point["time_us"].is_null()) {
        EXPECT_NE(point["error"], "") << point.dump();
      } else {
        EXPECT_EQ(point["wrong"], 0) << point.dump();
        right.insert(point["collective"]);
      }
    }
  }
  EXPECT_THAT(right, SizeIs(library == "gloo" || library == "ucc" ? 7 : 9));
}

TEST_F(AgainstCommand, WhatALibraryCannotDoIsSaidInItsRow) {
  if (!is_built("mpich")) GTEST_SKIP() << "mpich was not found when gradrail was configured";
  const auto run =
      gradrail(words("bench -n 2 --against mpich --transport shm -d bfloat16 -b 1K -e 1K --iters 2 --json " +
                     (folder_ / "out.jsonl")),
               Seconds(120));
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("MPI has no type bf16"), HasSubstr("nothing could be compared")));
}

TEST_F(AgainstCommand, ANameThatIsNoneIsAMistake) {
  const auto run = gradrail(words("bench -n 2 --against lammps"));
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("'lammps' is no library to compare with"));
}

TEST_F(AgainstCommand, ALibraryThatWasNotThereIsNamedWithWhatToInstall) {
  const auto run = gradrail(words("bench -n 2 --against nccl"), Seconds(60),
                            {{"GRADRAIL_PEER_RUNNERS", std::filesystem::temp_directory_path() / "nowhere"}});
  EXPECT_EQ(run.code, 2);
  EXPECT_THAT(run.err, HasSubstr("gradrail-peer-nccl, which was not built"));
}

TEST_F(AgainstCommand, OneThatDiesAtItsStartLosesOnlyItsRows) {
  const auto run = with_fake("die@open");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, AllOf(HasSubstr("no luck today"), HasSubstr("nothing could be compared")));
  for (const json& point : kind("point")) {
    if (point["library"] == "gradrail") {
      EXPECT_FALSE(point["time_us"].is_null());
    } else {
      EXPECT_THAT(point["error"].get<std::string>(), HasSubstr("it could not be started"));
    }
  }
}

TEST_F(AgainstCommand, OneThatDiesLaterLosesOnlyItsRows) {
  const auto run = with_fake("die@measure");
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("no luck today"));
  EXPECT_THAT(kind("comparison"), IsEmpty());
}

TEST_F(AgainstCommand, ARunThatIsKilledLeavesNoRanksOfOthers) {
  auto run = start_gradrail(words("bench -n 2 --transport tcp --against gloo -b 8 -e 64 -c 0 --time-per-point 60"),
                            {{"GRADRAIL_PEER_RUNNERS", fake_folder()}});
  const auto fakes = [] {
    std::vector<std::string> pids;
    std::error_code error;
    const auto binary = std::filesystem::canonical(GRADRAIL_FAKE_PEER, error);
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error))
      if (std::filesystem::read_symlink(entry.path() / "exe", error) == binary) pids.push_back(entry.path().filename());
    return pids;
  };
  const auto deadline = Deadline::after(Seconds(30));
  while (fakes().size() < 4 && !deadline.passed()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  const auto pids = fakes();
  EXPECT_GE(pids.size(), 4u);
  ::kill(run.pid(), SIGKILL);
  EXPECT_TRUE(all_gone(pids, Seconds(10)));
}

}  // namespace
}  // namespace gradrail::test

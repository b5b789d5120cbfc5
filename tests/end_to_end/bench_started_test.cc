// `gradrail bench` started by others: Open MPI's mpirun, and torchrun's variables. The report is rank 0's alone.
#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;

std::size_t count_of(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++count;
  return count;
}

class BenchByMpirun : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    if (std::string_view(GRADRAIL_MPIRUN).empty())
      GTEST_SKIP() << "mpirun was not found when this build was configured";
    if (GRADRAIL_HAVE_PMIX == 0) GTEST_SKIP() << "this build lacks PMIx";
  }
  static Ended mpirun(int ranks, const Words& arguments) {
    Process process(
        Words{GRADRAIL_MPIRUN, "--oversubscribe", "--allow-run-as-root", "-n", std::to_string(ranks), GRADRAIL_BINARY} +
            arguments,
        {});
    return ended(process, Seconds(80));
  }
};

TEST_F(BenchByMpirun, Sweeps) {
  const auto ran = mpirun(4, words("bench --transport shm,tcp -a ring,tree,auto -b 64 -e 4K -f 64 --iters 2 --json") +
                                 Words{folder_ / "mpi.json"});
  ASSERT_EQ(ran.code, 0) << ran.err;
  EXPECT_EQ(count_of(ran.out, "Out of bounds values : 0 OK"), 1u) << ran.out;
  const auto records = records_of(folder_ / "mpi.json");
  EXPECT_EQ(records.at(0)["job"]["origin"], "pmix");
  EXPECT_THAT(of_kind(records, "point"), SizeIs(3u * 2 * 2));
}

TEST_F(BenchByMpirun, ChecksOptionsForItsOwnNumberOfRanks) {
  const auto fits = mpirun(2, words("bench --topology 2x1 -a ring -b 8 -e 8 --iters 1"));
  EXPECT_EQ(fits.code, 0) << fits.err;
  const auto other = mpirun(3, words("bench --topology 2x2 -a ring -b 8 -e 8 --iters 1"));
  EXPECT_EQ(other.code, 2);
  EXPECT_EQ(count_of(other.err, "gradrail: "), 1u) << other.err;
  EXPECT_THAT(other.err, HasSubstr("topology 2x2 is for 4 ranks, but the job has 3"));
}

TEST_F(BenchByMpirun, SaysAMistakeOnce) {
  const auto ran = mpirun(3, words("bench -a rign"));
  EXPECT_EQ(ran.code, 2);
  EXPECT_EQ(ran.out, "");
  EXPECT_EQ(count_of(ran.err, "gradrail: "), 1u) << ran.err;
  EXPECT_THAT(ran.err, HasSubstr("'rign'"));
}

TEST_F(CommandTest, BenchByTorchrunSweeps) {
  const int port = free_port();
  std::vector<Process> ranks;
  for (int rank = 0; rank < 3; ++rank)
    ranks.push_back(
        start_gradrail(words("bench --transport tcp -a ring -b 64 -e 64 --iters 2"),
                       {{"RANK", std::to_string(rank)},
                        {"LOCAL_RANK", std::to_string(rank)},
                        {"WORLD_SIZE", "3"},
                        {"MASTER_ADDR", "127.0.0.1"},
                        {"MASTER_PORT", std::to_string(port)},
                        {"GRADRAIL_SECRET", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}}));
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto ran = ended(ranks[rank]);
    EXPECT_EQ(ran.code, 0) << ran.err;
    EXPECT_EQ(ran.err, "");
    if (rank == 0)
      EXPECT_THAT(ran.out, AllOf(HasSubstr("3 ranks"), HasSubstr("# Out of bounds values : 0 OK")));
    else
      EXPECT_EQ(ran.out, "");
  }
}

}  // namespace
}  // namespace gradrail::test

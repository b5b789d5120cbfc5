// Where ranks run, in surroundings that do not let them be bound: containers whose seccomp profile refuses it.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>

#include "tests/end_to_end/command.h"

namespace gradrail::test {
namespace {

using ::testing::ExitedWithCode;

// Becomes the command, to which sched_setaffinity() is forbidden.
[[noreturn]] void run_unbindable(const std::string& line) {
  std::array<sock_filter, 4> program{{
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(seccomp_data, nr)},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_sched_setaffinity},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EPERM},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  }};
  const sock_fprog filter{program.size(), program.data()};
  Words arguments = Words{GRADRAIL_BINARY} + words(line);
  std::vector<char*> pointers;
  for (auto& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0)
    ::execv(GRADRAIL_BINARY, pointers.data());
  ::_exit(99);
}

TEST(BenchBinding, RanksThatMayNotBeBoundRunWhereTheyAre) {
  EXPECT_EXIT(run_unbindable("bench -n 2 -b 8 -e 8 -a ring --time-per-point 0.01"), ExitedWithCode(0), "");
}

TEST(BenchBinding, BindingThatWasAskedForAndRefusedIsNamed) {
  EXPECT_EXIT(run_unbindable("bench -n 2 -b 8 -e 8 -a ring --bind core"), ExitedWithCode(1),
              "--bind core: this process cannot be bound to core [0-9]+: Operation not permitted");
}

}  // namespace
}  // namespace gradrail::test

// The description of a machine, read from made-up /proc and /sys trees: a large server, a container with quotas, an
// empty tree, nonsense.
#include "bench/measure/machine.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>

#include "collectives/exec/kernels/reduce.h"

namespace gradrail {
namespace {

class MachineTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "gradrail-machine-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  // Two sockets of two cores, one NUMA node each.
  void write_server() {
    write("proc/sys/kernel/hostname", "node17\n");
    write("proc/sys/kernel/osrelease", "6.1.0-25-amd64\n");
    write("proc/cpuinfo",
          "processor\t: 0\nmodel name\t: Some CPU 9000 @ 2.00GHz\nflags\t\t: fpu sse2 avx2\n\nprocessor\t: 1\n"
          "model name\t: another\n");
    write("proc/meminfo", "MemTotal:       24689764 kB\nMemFree:        1 kB\n");
    write("etc/os-release", "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n");
    const std::string cpus = "sys/devices/system/cpu/";
    for (int cpu = 0; cpu < 4; ++cpu) {
      write(cpus + "cpu" + std::to_string(cpu) + "/topology/physical_package_id", cpu < 2 ? "0\n" : "1\n");
    }
    const char* const k_caches[][3] = {
        {"1", "Data", "48K"}, {"1", "Instruction", "32K"}, {"2", "Unified", "2048K"}, {"3", "Unified", "105M"}};
    for (int index = 0; index < 4; ++index) {
      const std::string cache = cpus + "cpu2/cache/index" + std::to_string(index) + "/";
      write(cache + "level", k_caches[index][0]);
      write(cache + "type", k_caches[index][1]);
      write(cache + "size", k_caches[index][2]);
    }
    write(cpus + "cpu0/cpufreq/scaling_governor", "performance\n");
    write(cpus + "cpufreq/notes", "not a CPU");
    write("sys/devices/system/node/node0/cpulist", "0-1\n");
    write("sys/devices/system/node/node1/cpulist", "2-3\n");
    write("sys/devices/system/node/online", "0-1\n");
    write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n");
  }

  std::filesystem::path root_;
};

TEST_F(MachineTest, ReadsAServer) {
  write_server();
  const Machine machine = describe_machine(root_, {2, 3});
  EXPECT_EQ(machine.hostname, "node17");
  EXPECT_EQ(machine.cpu_model, "Some CPU 9000 @ 2.00GHz");
  EXPECT_EQ(machine.cores, 2);
  EXPECT_EQ(machine.sockets, 2);
  EXPECT_EQ(machine.numa_nodes, 2);
  EXPECT_EQ(machine.l1d_bytes, 48 << 10);
  EXPECT_EQ(machine.l2_bytes, 2 << 20);
  EXPECT_EQ(machine.l3_bytes, 105 << 20);
  EXPECT_EQ(machine.memory_bytes, std::int64_t{24689764} << 10);
  EXPECT_EQ(machine.kernel, "6.1.0-25-amd64");
  EXPECT_EQ(machine.os, "Debian GNU/Linux 12 (bookworm)");
  EXPECT_EQ(machine.virtualisation, "none");
  EXPECT_EQ(machine.governor, "performance");
  EXPECT_EQ(machine.thp, "madvise");
  EXPECT_EQ(machine.simd, simd_target());
}

TEST_F(MachineTest, AnEmptyRootLeavesFieldsEmpty) {
  const Machine machine = describe_machine(root_, {0, 1, 2});
  EXPECT_EQ(machine.cores, 3);
  EXPECT_EQ(machine.simd, simd_target());
  EXPECT_EQ(machine.sockets, 0);
  EXPECT_EQ(machine.numa_nodes, 0);
  EXPECT_EQ(machine.l1d_bytes + machine.l2_bytes + machine.l3_bytes, 0);
  EXPECT_EQ(machine.memory_bytes, 0);
  EXPECT_EQ(machine.hostname + machine.cpu_model + machine.kernel + machine.os + machine.governor + machine.thp, "");
  EXPECT_EQ(machine.virtualisation, "");
}

TEST_F(MachineTest, ARootThatDoesNotExistLeavesFieldsEmpty) {
  EXPECT_EQ(describe_machine(root_ / "nowhere", {0}).memory_bytes, 0);
}

TEST_F(MachineTest, RespectsTheQuotasOfTheGroupAndOfThoseAroundIt) {
  write_server();
  write("proc/self/cgroup", "0::/pod/worker\n");
  write("sys/fs/cgroup/pod/worker/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
  write("sys/fs/cgroup/pod/worker/memory.max", "1073741824\n");
  write("sys/fs/cgroup/pod/memory.max", "max\n");
  const Machine machine = describe_machine(root_, {0, 1, 2, 3});
  EXPECT_EQ(machine.cores, 2);  // one and a half, rounded up
  EXPECT_EQ(machine.memory_bytes, 1 << 30);
}

TEST_F(MachineTest, RespectsTheQuotaOfTheFirstVersionOfControlGroups) {
  write_server();
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
  write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(describe_machine(root_, {0, 1, 2, 3}).cores, 1);
  write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(describe_machine(root_, {0, 1, 2, 3}).cores, 4);
}

TEST_F(MachineTest, NamesTheHypervisorAndTheContainer) {
  write_server();
  write("proc/cpuinfo", "flags : fpu hypervisor avx2\n");
  EXPECT_EQ(describe_machine(root_, {0}).virtualisation, "vm");
  write("sys/class/dmi/id/sys_vendor", "VMware, Inc.\n");
  EXPECT_EQ(describe_machine(root_, {0}).virtualisation, "vmware");
  write(".dockerenv", "");
  EXPECT_EQ(describe_machine(root_, {0}).virtualisation, "vmware+docker");
  write("proc/cpuinfo", "flags : fpu avx2\n");
  EXPECT_EQ(describe_machine(root_, {0}).virtualisation, "docker");
}

TEST_F(MachineTest, SurvivesNonsense) {
  write_server();
  write("proc/meminfo", "MemTotal: lots\n");
  write("sys/kernel/mm/transparent_hugepage/enabled", "] oddly [\n");
  write("sys/devices/system/cpu/cpu2/cache/index2/size", "\n");
  write("sys/devices/system/cpu/cpu99999999999999/topology/physical_package_id", "7\n");
  write("proc/self/cgroup", "nonsense");
  write("sys/fs/cgroup/cpu.max", "0 0");
  const Machine machine = describe_machine(root_, {2, 3});
  EXPECT_EQ(machine.memory_bytes, 0);
  EXPECT_EQ(machine.thp, "");
  EXPECT_EQ(machine.l2_bytes, 0);
  EXPECT_EQ(machine.sockets, 2);
  EXPECT_EQ(machine.cores, 2);
}

TEST(Machine, DescribesThisOne) {
  const Machine machine = describe_machine();
  EXPECT_GE(machine.cores, 1);
  EXPECT_FALSE(machine.hostname.empty());
  EXPECT_FALSE(machine.kernel.empty());
  EXPECT_GT(machine.memory_bytes, 64 << 20);
}

}  // namespace
}  // namespace gradrail

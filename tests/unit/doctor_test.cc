// Doctor on made-up hosts: an InfiniBand host whose second adapter sits badly, a RoCE host with GPUs, a laptop; the
// same with their files broken in every way; and what a record of one says.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>

#include "bench/doctor/gpu_direct.h"
#include "bench/doctor/readers.h"
#include "bench/doctor/report.h"
#include "tests/unit/doctor_hosts.h"

namespace gradrail::doctor {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

Diagnosis of(const std::filesystem::path& root) { return diagnose(read_facts(Files(root))); }

const Finding* find(const Diagnosis& diagnosis, std::string_view name) {
  for (const Finding& finding : diagnosis.findings)
    if (finding.name == name) return &finding;
  return nullptr;
}
// "bad: the value"
std::string said(const Diagnosis& diagnosis, std::string_view name) {
  const Finding* finding = find(diagnosis, name);
  return finding == nullptr ? "nothing" : fmt::format("{}: {}", to_string(finding->verdict), finding->value);
}
std::string advice(const Diagnosis& diagnosis, std::string_view name) {
  const Finding* finding = find(diagnosis, name);
  return finding == nullptr ? "nothing" : finding->advice;
}
double expected_gbs(const Diagnosis& diagnosis, std::string_view path) {
  for (const Expected& one : diagnosis.expected)
    if (one.path == path) return one.gbs;
  return 0;
}

TEST(Doctor, AnInfiniBandHost) {
  const test::PlantedHost host("infiniband");
  const auto d = of(host.root());
  EXPECT_EQ(said(d, "processor"), "ok: Some CPU 9654, 2 sockets, 8 CPUs online");
  EXPECT_EQ(said(d, "frequency governor"), "ok: performance (acpi-cpufreq)");
  EXPECT_EQ(said(d, "NUMA balancing"), "attention: on");
  EXPECT_EQ(said(d, "locked memory"), "bad: 8 MiB");
  EXPECT_THAT(advice(d, "locked memory"), HasSubstr("registration of buffers beyond 8 MiB will fail"));
  EXPECT_EQ(said(d, "mlx5_0"), "ok: MT4123, firmware 20.39.1002, 0000:21:00.0");
  EXPECT_EQ(said(d, "mlx5_0 link"), "ok: PCIe 4.0 x16 (31.5 GB/s)");
  EXPECT_EQ(said(d, "mlx5_0 port 1"), "ok: ACTIVE, InfiniBand, 200 Gb/sec (4X HDR)");
  EXPECT_EQ(said(d, "mlx5_1 link"), "bad: PCIe 4.0 x8 (15.8 GB/s); the device could PCIe 4.0 x16");
  EXPECT_THAT(advice(d, "mlx5_1 link"), HasSubstr("8 of 16 lanes"));
  EXPECT_THAT(said(d, "mlx5_1 port 1"), HasSubstr("attention: INIT"));
  EXPECT_THAT(advice(d, "mlx5_1 port 1"), HasSubstr("subnet manager"));
  EXPECT_EQ(said(d, "firmware of MT_0000000223"), "attention: 20.31.1014 (mlx5_1), 20.39.1002 (mlx5_0)");
  EXPECT_EQ(said(d, "ptrace scope"), "ok: 0");
  EXPECT_EQ(said(d, "devices"), "ok: none") << "no GPUs is no fault";
  EXPECT_NEAR(expected_gbs(d, "mlx5_0 port 1"), 25.0 * 4096 / 4122, 1e-9);
  EXPECT_EQ(expected_gbs(d, "mlx5_1 port 1"), 0) << "a port that is not active has no bandwidth";
}

TEST(Doctor, ARoceHostWithGpus) {
  const test::PlantedHost host("roce_gpus");
  const auto d = of(host.root());
  EXPECT_EQ(said(d, "locked memory"), "ok: unlimited");
  EXPECT_EQ(said(d, "NUMA balancing"), "ok: off");
  EXPECT_EQ(said(d, "ptrace scope"), "attention: 1");
  EXPECT_EQ(said(d, "UCX"), "ok: 1.15.0-1");
  EXPECT_EQ(said(d, "NCCL"), "ok: 2.18.5-1+cuda12.2");
  EXPECT_EQ(said(d, "CUDA"), "ok: 12.2.140");
  EXPECT_EQ(said(d, "NVIDIA driver"), "ok: 535.129.03");
  EXPECT_EQ(said(d, "mlx5_0 port 1 MTU"), "ok: 9000 of the interface, so 4096 for RDMA");
  EXPECT_EQ(said(d, "mlx5_1 port 1 MTU"), "attention: 1500 of the interface, so 1024 for RDMA");
  EXPECT_THAT(said(d, "mlx5_0 port 1 GIDs"), HasSubstr("RoCE v2"));
  EXPECT_THAT(said(d, "mlx5_1 link"), HasSubstr("attention: PCIe 3.0 x16"));
  EXPECT_THAT(advice(d, "mlx5_1 link"), HasSubstr("the slot offers no more"));
  EXPECT_THAT(said(d, "mlx5_1 port 1 against its slot"), HasSubstr("attention"));
  EXPECT_EQ(said(d, "GPU 0000:19:00.0"), "ok: NVIDIA H100 80GB HBM3, driver nvidia");
  EXPECT_EQ(said(d, "GPU 0000:19:00.0 link"), "ok: PCIe 5.0 x16 (63.0 GB/s)");
  EXPECT_THAT(said(d, "GPU 0000:1a:00.0 link"), HasSubstr("attention: PCIe 1.0 x16"));
  EXPECT_THAT(advice(d, "GPU 0000:1a:00.0 link"), HasSubstr("while idle"));
  EXPECT_EQ(said(d, "GPU 0000:19:00.0 to RDMA"), "ok: mlx5_0, over one PCIe switch (PIX)");
  EXPECT_EQ(said(d, "GPU 0000:1a:00.0 to RDMA"), "ok: mlx5_0, over the CPU's host bridge (PHB)");
  EXPECT_THAT(said(d, "GPU 0000:98:00.0 to RDMA"), HasSubstr("attention: mlx5_0, over the link between sockets (SYS)"));
  EXPECT_EQ(
      said(d, "GPU memory by mlx5_0"),
      "bad: staged through pinned host memory (dma-buf: NVIDIA's kernel modules are not the open ones, so they do "
      "not export it; nvidia-peermem: the module is not loaded)");
  EXPECT_THAT(advice(d, "GPU memory by mlx5_1"), HasSubstr("modprobe nvidia_peermem"));
  // 400 Gb/s at MTU 4096; and where the slot is slower than the port, the slot.
  EXPECT_NEAR(expected_gbs(d, "mlx5_0 port 1"), 50.0 * 4096 / (4096 + 82), 1e-9);
  EXPECT_NEAR(expected_gbs(d, "mlx5_1 port 1"), 16 * 128.0 / 130 * 256 / 280, 1e-9);
}

TEST(Doctor, GpuDirectByEitherWay) {
  const test::PlantedHost host("roce_gpus");
  host.write("sys/module/nvidia_peermem/initstate", "live\n");
  EXPECT_THAT(said(of(host.root()), "GPU memory by mlx5_0"), HasSubstr("ok: nvidia-peermem (dma-buf: NVIDIA's kernel"));
  host.write("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.129.03\n");
  EXPECT_EQ(said(of(host.root()), "GPU memory by mlx5_0"), "ok: dma-buf");
  host.write("proc/sys/kernel/osrelease", "5.4.0-100-generic\n");
  EXPECT_THAT(said(of(host.root()), "GPU memory by mlx5_0"),
              HasSubstr("ok: nvidia-peermem (dma-buf: it takes Linux 5.12 or later, and this is 5.4.0-100-generic)"));
}

TEST(DoctorGpuDirect, EveryCombinationHasAWayAndItsReasons) {
  std::array<RdmaDevice, 3> devices;
  devices[0].name = "mlx5_0", devices[0].pci.driver = "mlx5_core";
  devices[1].name = "mlx4_0", devices[1].pci.driver = "mlx4_core";
  devices[2].name = "rxe0", devices[2].software = true;
  for (const bool open : {false, true})
    for (const bool peer_memory : {false, true})
      for (const std::string_view kernel : {"6.1.0", "5.12.1", "5.11.9", "4.18.0-80.el8", ""})
        for (const RdmaDevice& device : devices) {
          Facts facts;
          facts.machine.kernel = kernel;
          facts.gpu.driver_version = "535";
          facts.gpu.open_module = open;
          if (peer_memory) facts.gpu.peer_memory = "nvidia_peermem";
          const auto path = expected_gpu_path(facts, device);
          ASSERT_TRUE(path);
          const bool dma_buf = open && (kernel == "6.1.0" || kernel == "5.12.1") && device.name == "mlx5_0";
          EXPECT_EQ(path->path, dma_buf       ? MemoryPath::dma_buf
                                : peer_memory ? MemoryPath::peer_memory
                                              : MemoryPath::staged)
              << to_text(*path);
          EXPECT_EQ(path->against.size(), dma_buf ? 0U : peer_memory ? 1U : 2U);
        }
  EXPECT_FALSE(expected_gpu_path({}, devices[0])) << "without a driver there is nothing to expect";
}

TEST(Doctor, VersionsThatOnlyHeadersTell) {
  const test::PlantedHost host("laptop");
  host.write("usr/local/cuda/include/cuda_runtime_api.h", "#define CUDART_VERSION  13010\n");
  host.write("usr/local/cuda/include/nccl.h", "#define NCCL_MAJOR 2\n#define NCCL_VERSION_CODE 22809\n");
  const auto d = of(host.root());
  EXPECT_EQ(said(d, "CUDA"), "ok: 13.1");
  EXPECT_EQ(said(d, "NCCL"), "ok: 2.28.9");
  host.write("usr/local/cuda/include/cuda_runtime_api.h", "#define CUDART_VERSION nonsense\n");
  EXPECT_EQ(said(of(host.root()), "CUDA"), "nothing");
}

TEST(Doctor, ALaptop) {
  const test::PlantedHost host("laptop");
  const auto d = of(host.root());
  EXPECT_EQ(said(d, "processor"), "ok: Some CPU i7-1165G7 (two threads a core), 1 socket, 4 CPUs online");
  EXPECT_EQ(said(d, "frequency governor"), "attention: powersave (intel_pstate)");
  EXPECT_EQ(said(d, "locked memory"), "ok: 8 MiB") << "nothing here registers memory";
  EXPECT_EQ(said(d, "GPU 0000:00:02.0"), "ok: Intel 8086:9a49, driver i915");
  EXPECT_EQ(said(d, "wlp1s0"), "unknown: up, rate not told, MTU 1500");
  EXPECT_TRUE(std::none_of(d.findings.begin(), d.findings.end(),
                           [](const Finding& one) { return one.name.starts_with("GPU memory by"); }));
  for (const Finding& finding : d.findings) EXPECT_NE(finding.verdict, Verdict::bad) << finding.name;
}

TEST(Doctor, AContainer) {
  const test::PlantedHost host("infiniband");
  std::filesystem::remove_all(host.root() / "dev");
  host.write("proc/4242/mountinfo", "25 24 0:23 / /dev/shm rw - tmpfs shm rw,size=65536k\n");
  host.write("proc/4242/cgroup", "0::/pod/worker\n");
  host.write("sys/fs/cgroup/pod/cpu.max", "150000 100000\n");
  host.write("sys/fs/cgroup/pod/worker/memory.max", "1073741824\n");
  host.write("proc/4242/status", "CapEff: 0000000000084000\nCpus_allowed_list: 0-1\n");
  const auto d = of(host.root());
  EXPECT_EQ(said(d, "/dev/shm"), "bad: 0.1 GB");
  EXPECT_EQ(said(d, "device files"), "bad: none in /dev/infiniband");
  EXPECT_EQ(said(d, "CPU quota"), "attention: 1.5 of 8 CPUs");
  EXPECT_EQ(said(d, "usable CPUs"), "attention: 2 of 8");
  EXPECT_EQ(said(d, "memory of the control group"), "attention: 1.1 GB");
  EXPECT_EQ(said(d, "locked memory"), "ok: 8 MiB, which CAP_IPC_LOCK overrides");
}

TEST(Doctor, AnEmptyTreeHasNothingBad) {
  const test::PlantedHost host;
  for (const auto& root : {host.root(), host.root() / "nowhere"}) {
    const auto d = of(root);
    EXPECT_THAT(d.expected, IsEmpty());
    for (const Finding& finding : d.findings) EXPECT_NE(finding.verdict, Verdict::bad) << finding.name;
    EXPECT_THAT(to_text(d, false), HasSubstr(" 0 bad, "));
  }
}

TEST(Doctor, AbsurdEntriesAreNotBelieved) {
  const test::PlantedHost host("infiniband");
  const std::string pci = "sys/devices/pci0000:20/0000:20:01.1/0000:21:00.0/";
  const std::string ib = pci + "infiniband/mlx5_0/";
  host.write(pci + "current_link_speed", "Unknown\n");
  host.write(pci + "current_link_width", "255\n");  // fell off the bus
  host.write(pci + "numa_node", "-2147483648\n");
  host.write(ib + "ports/1/rate", "1e999 Gb/sec\n");
  host.write(ib + "fw_ver", std::string(5000, 'A') + "\n");
  host.write(ib + "ports/1/gids/99999999999", "x\n");
  host.write(ib + "ports/x/state", "4: ACTIVE\n");
  host.write("sys/class/infiniband/not_a_device", "a file\n");
  host.write("sys/devices/system/cpu/online", "0-99999999999\n");
  host.write("proc/4242/limits", "Max locked memory  -5 lots\n");
  host.write("proc/4242/mountinfo", " /dev/shm  - tmpfs size=\n");
  const auto d = of(host.root());
  EXPECT_EQ(said(d, "mlx5_0 link"), "unknown: not told");
  EXPECT_EQ(said(d, "locked memory"), "unknown: not known");
  EXPECT_EQ(expected_gbs(d, "mlx5_0 port 1"), 0);
  EXPECT_EQ(said(d, "not_a_device ports"), "unknown: none");
}

// Every file of a host cut, emptied, filled with noise or turned into something else, one at a time: doctor answers.
TEST(Doctor, SurvivesAnyFileBeingBroken) {
  std::mt19937 random(7);
  for (const char* listing : {"infiniband", "roce_gpus"}) {
    const test::PlantedHost host(listing);
    std::vector<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(host.root()))
      if (entry.is_regular_file() && !entry.is_symlink()) paths.push_back(entry.path());
    ASSERT_GT(paths.size(), 50u);
    for (std::size_t i = 0; i < paths.size(); i += listing == std::string("infiniband") ? 1 : 7) {
      const auto& path = paths[i];
      std::ifstream in(path);
      const std::string text(std::istreambuf_iterator<char>(in), {});
      std::string noise(40, ' ');
      for (char& c : noise) c = static_cast<char>(random());
      for (const std::string& broken : {std::string(), std::string("-1\n"), std::string("18446744073709551616\n"),
                                        noise, text.substr(0, text.size() / 2)}) {
        std::ofstream(path, std::ios::trunc) << broken;
        const auto d = of(host.root());
        ASSERT_FALSE(d.findings.empty());
        for (const Expected& one : d.expected) EXPECT_TRUE(std::isfinite(one.gbs) && one.gbs > 0) << path;
        EXPECT_FALSE(nlohmann::json::parse(to_json(d), nullptr, false).is_discarded()) << path;
      }
      std::filesystem::remove(path);
      std::filesystem::create_directory(path);
      ASSERT_FALSE(of(host.root()).findings.empty());
      std::filesystem::remove(path);
      std::ofstream(path) << text;
    }
  }
}

TEST(Doctor, ARecordGivesTheSameAnswer) {
  for (const char* listing : {"infiniband", "roce_gpus", "laptop"}) {
    const test::PlantedHost host(listing);
    const test::PlantedHost copy;
    Files files(host.root());
    ASSERT_TRUE(files.record(copy.root() / "record"));
    const auto original = diagnose(read_facts(files));
    ASSERT_TRUE(files.recorded());
    EXPECT_EQ(to_text(of(copy.root() / "record"), false), to_text(original, false)) << listing;
  }
}

TEST(DoctorExpected, PciExpress) {
  EXPECT_NEAR(pci_raw_gbs(2.5, 1), 0.25, 1e-9);
  EXPECT_NEAR(pci_raw_gbs(8, 16), 15.754, 1e-3);
  EXPECT_NEAR(pci_raw_gbs(32, 16), 63.015, 1e-3);
  EXPECT_NEAR(pci_raw_gbs(64, 16), 121.0, 1e-9);
  EXPECT_EQ(pci_raw_gbs(0, 16), 0);
  EXPECT_EQ(pci_name(16, 8), "PCIe 4.0 x8");
  EXPECT_EQ(pci_name(17, 8), "PCIe ?");
}

TEST(DoctorExpected, RdmaMtu) {
  EXPECT_EQ(rdma_mtu_of(1500), 1024);
  EXPECT_EQ(rdma_mtu_of(4192), 4096);
  EXPECT_EQ(rdma_mtu_of(4191), 2048);
  EXPECT_EQ(rdma_mtu_of(68), 0);
}

TEST(DoctorExpected, OldInfiniBandRatesAreOfTheWire) {
  RdmaPort port;
  port.link_layer = "InfiniBand";
  port.rate = "40 Gb/sec (4X QDR)";
  port.rate_gbits = 40;
  EXPECT_NEAR(port_gbs(port), 4.0 * 4096 / 4122, 1e-9);
  port.rate = "56 Gb/sec (4X FDR)";
  port.rate_gbits = 56;
  EXPECT_NEAR(port_gbs(port), 7.0 * 64 / 66 * 4096 / 4122, 1e-9);
}

TEST(DoctorReport, ControlCharactersReachNoTerminal) {
  Diagnosis d;
  d.findings.push_back({"rdma", "mlx5_0", "\033[2Jcleared", Verdict::ok, {}});
  EXPECT_EQ(to_text(d, false).find('\033'), std::string::npos);
  EXPECT_THAT(to_text(d, true), HasSubstr("\033[32mok"));
}

TEST(DoctorReport, Json) {
  const test::PlantedHost host("roce_gpus");
  const auto json = nlohmann::json::parse(to_json(of(host.root())), nullptr, false);
  ASSERT_FALSE(json.is_discarded());
  EXPECT_EQ(json["kind"], "doctor");
  EXPECT_EQ(json["hostname"], "roce-gpu-3");
  EXPECT_EQ(json["rdma"][0]["ports"][0]["gids"].size(), 4u);
  EXPECT_EQ(json["gpus"][0]["distance"]["mlx5_0"], "PIX");
  EXPECT_EQ(json["gpus"][2]["distance"]["mlx5_1"], "SYS");
  EXPECT_EQ(json["libraries"]["UCX"], "1.15.0-1");
}

}  // namespace
}  // namespace gradrail::doctor

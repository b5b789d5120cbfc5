#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "bench/doctor/readers.h"
#include "bench/measure/machine.h"

namespace gradrail::doctor {

namespace {

struct Known {
  std::string_view name;
  std::string_view package;  // of Debian and its like
  std::string_view library;  // a file that has the version behind this in its name, where one does
};
constexpr std::array k_known = {Known{"rdma-core", "libibverbs1", ""}, Known{"UCX", "libucx0", ""},
                                Known{"PMIx", "libpmix2", ""},         Known{"Open MPI", "libopenmpi3", ""},
                                Known{"Open MPI", "libopenmpi40", ""}, Known{"MPICH", "libmpich12", ""},
                                Known{"Slurm", "slurmd", ""},          Known{"NCCL", "libnccl2", "libnccl.so."},
                                Known{"CUDA", "", "libcudart.so."},    Known{"perftest", "perftest", ""}};
constexpr std::array k_folders = {"usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/local/lib",
                                  "usr/local/cuda/lib64"};
constexpr std::string_view k_packages = "var/lib/dpkg/status";

// A header that says the version in a number: a library's file may have nothing but the major one in its name.
struct Header {
  std::string_view name;
  std::string_view path;
  std::string_view macro;
  std::string (*version)(std::int64_t number);
};
std::string cuda_version(std::int64_t number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }
std::string nccl_version(std::int64_t number) {
  return fmt::format("{}.{}.{}", number / 10000, number % 10000 / 100, number % 100);  // since 2.9
}
constexpr std::array k_headers = {
    Header{"NCCL", "usr/include/nccl.h", "#define NCCL_VERSION_CODE ", nccl_version},
    Header{"NCCL", "usr/local/cuda/include/nccl.h", "#define NCCL_VERSION_CODE ", nccl_version},
    Header{"CUDA", "usr/local/cuda/include/cuda_runtime_api.h", "#define CUDART_VERSION ", cuda_version}};

// "12.2.140" of "libcudart.so.12.2.140"; a bare major number says too little.
std::string version_behind(std::string_view file, std::string_view library) {
  const auto rest = file.substr(library.size());
  const bool version =
      !rest.empty() && rest.find_first_not_of("0123456789.") == rest.npos && rest.find('.') != rest.npos;
  return version ? std::string(rest) : std::string();
}

void read_packages(const Files& files, std::vector<Library>& out) {
  const Known* found = nullptr;
  for (const std::string& line : files.lines(k_packages)) {
    if (line.starts_with("Package:")) {
      const auto package = trimmed(std::string_view(line).substr(8));
      const auto known = std::find_if(k_known.begin(), k_known.end(),
                                      [&](const Known& one) { return !one.package.empty() && one.package == package; });
      found = known == k_known.end() ? nullptr : &*known;
    } else if (found != nullptr && line.starts_with("Version:")) {
      files.keep(k_packages, fmt::format("Package: {}\n{}\n\n", found->package, line));
      out.push_back({std::string(found->name), std::string(trimmed(std::string_view(line).substr(8)))});
      found = nullptr;
    }
  }
}

}  // namespace

SoftwareFacts read_software(const Files& files) {
  SoftwareFacts out;
  read_packages(files, out.libraries);
  const auto have = [&](std::string_view name) {
    return std::any_of(out.libraries.begin(), out.libraries.end(),
                       [&](const Library& one) { return one.name == name; });
  };
  for (const Known& known : k_known) {
    if (known.library.empty() || have(known.name)) continue;
    for (const char* const folder : k_folders) {
      std::string newest;
      for (const std::string& file : files.entries(folder, known.library))
        newest = std::max(newest, version_behind(file, known.library));
      if (newest.empty()) continue;
      out.libraries.push_back({std::string(known.name), newest});
      break;
    }
  }
  for (const Header& header : k_headers) {
    if (have(header.name)) continue;
    for (const std::string& line : files.lines(header.path)) {
      if (!line.starts_with(header.macro)) continue;
      files.keep(header.path, line + '\n');
      if (const auto number = number_in(trimmed(std::string_view(line).substr(header.macro.size()))))
        out.libraries.push_back({std::string(header.name), header.version(*number)});
      break;
    }
  }
  out.verbs_device_files = !files.entries("dev/infiniband", "uverbs").empty();
  return out;
}

Facts read_facts(const Files& files) {
  Facts out;
  out.cpu = read_cpu(files);
  out.machine = describe_machine(files, out.cpu.allowed.empty() ? out.cpu.online : out.cpu.allowed);
  out.memory = read_memory(files);
  out.rdma = read_rdma(files);
  out.network = read_network(files);
  out.gpu = read_gpus(files);
  out.software = read_software(files);
  out.limits = read_limits(files);
  return out;
}

}  // namespace gradrail::doctor

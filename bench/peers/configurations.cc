#include "bench/peers/configurations.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#ifndef GRADRAIL_OPENMPI_LAUNCHER
#define GRADRAIL_OPENMPI_LAUNCHER "mpirun"
#endif
#ifndef GRADRAIL_MPICH_LAUNCHER
#define GRADRAIL_MPICH_LAUNCHER "mpiexec"
#endif

namespace gradrail {

namespace {

// Large operations of MPI libraries are mostly page faults of scratch memory that malloc gives back and fetches again;
// these keep it. They cost small operations nothing, so every peer has them.
constexpr std::string_view k_keep_memory =
    "GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184:"
    "glibc.malloc.hugetlb=1";

#define GRADRAIL_UCX "--mca pml ucx --mca opal_common_ucx_tls any --mca opal_common_ucx_devices any"
#define GRADRAIL_OB1_SHM "--mca pml ob1 --mca btl self,vader"
#define GRADRAIL_OB1_TCP "--mca pml ob1 --mca btl self,tcp --mca btl_tcp_if_include lo"
#define GRADRAIL_ALLREDUCE(number) " --mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_allreduce_algorithm " number
#define GRADRAIL_UCX_SHM "UCX_TLS=posix,cma,self"
#define GRADRAIL_UCX_TCP "UCX_TLS=tcp,self UCX_NET_DEVICES=lo"

#define GRADRAIL_OB1_HOSTS "--mca pml ob1 --mca btl self,vader,tcp"
#define GRADRAIL_UCX_HOSTS "UCX_TLS=posix,cma,tcp,self"

constexpr auto k_core_each = Room::core_each;
constexpr auto k_crowded = Room::crowded;

// Open MPI's tuned allreduce: 3 recursive doubling, 4 ring, 5 segmented ring, 6 reduce-scatter and all-gather.
// clang-format off
constexpr PeerConfiguration k_table[] = {
    {"openmpi", "ob1", "shm", "", GRADRAIL_OB1_SHM, "", Room::any, false, true},
    {"openmpi", "ob1,yield", "shm", "", GRADRAIL_OB1_SHM " --mca mpi_yield_when_idle 1", "", k_core_each},
    {"openmpi", "ob1,spin", "shm", "", GRADRAIL_OB1_SHM " --mca mpi_yield_when_idle 0", "", k_crowded},
    {"openmpi", "ob1,recursive_doubling", "shm", "", GRADRAIL_OB1_SHM GRADRAIL_ALLREDUCE("3"), "", Room::any, true},
    {"openmpi", "ob1,ring", "shm", "", GRADRAIL_OB1_SHM GRADRAIL_ALLREDUCE("4"), "", Room::any, true},
    {"openmpi", "ob1,rabenseifner", "shm", "", GRADRAIL_OB1_SHM GRADRAIL_ALLREDUCE("6"), "", Room::any, true},
    {"openmpi", "sm", "shm", "", GRADRAIL_OB1_SHM " --mca coll_sm_priority 100", "", Room::any},
    {"openmpi", "ucx", "shm", GRADRAIL_UCX_SHM, GRADRAIL_UCX, "", Room::any},
    {"openmpi", "ucx,rabenseifner", "shm", GRADRAIL_UCX_SHM, GRADRAIL_UCX GRADRAIL_ALLREDUCE("6"), "", Room::any, true},
    {"mpich", "default", "shm", "", "", "", Room::any, false, true},
    {"mpich", "release_gather", "shm",
     "MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM=release_gather MPIR_CVAR_BARRIER_POSIX_INTRA_ALGORITHM=release_gather "
     "MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM=release_gather MPIR_CVAR_REDUCE_POSIX_INTRA_ALGORITHM=release_gather",
     "", "", Room::any},
    {"openmpi", "ob1", "tcp", "", GRADRAIL_OB1_TCP, "", Room::any, false, true},
    {"openmpi", "ob1,ring", "tcp", "", GRADRAIL_OB1_TCP GRADRAIL_ALLREDUCE("4"), "", Room::any, true},
    {"openmpi", "ob1,rabenseifner", "tcp", "", GRADRAIL_OB1_TCP GRADRAIL_ALLREDUCE("6"), "", Room::any, true},
    {"openmpi", "ucx", "tcp", GRADRAIL_UCX_TCP, GRADRAIL_UCX, "", Room::any},
    {"mpich", "default", "tcp", GRADRAIL_UCX_TCP, "", "", Room::any, false, true},
    {"gloo", "ring", "tcp", "", "", "ring", Room::any, false, true},
    {"gloo", "bcube", "tcp", "", "", "bcube", Room::any, true},
    {"gloo", "ring_chunked", "tcp", "", "", "ring_chunked", Room::any, true},
    {"gloo", "halving_doubling", "tcp", "", "", "halving_doubling", Room::any, true},
    {"gloo", "ring_chunked,sync", "tcp", "", "", "ring_chunked,sync", k_core_each, true},
    {"gloo", "halving_doubling,sync", "tcp", "", "", "halving_doubling,sync", k_core_each, true},
    {"openmpi", "ob1", "shm+tcp", "", GRADRAIL_OB1_HOSTS, "", Room::any, false, true},
    {"openmpi", "ob1,ring", "shm+tcp", "", GRADRAIL_OB1_HOSTS GRADRAIL_ALLREDUCE("4"), "", Room::any, true},
    {"openmpi", "ob1,rabenseifner", "shm+tcp", "", GRADRAIL_OB1_HOSTS GRADRAIL_ALLREDUCE("6"), "", Room::any, true},
    {"openmpi", "ucx,rabenseifner", "shm+tcp", GRADRAIL_UCX_HOSTS, GRADRAIL_UCX GRADRAIL_ALLREDUCE("6"), "",
     Room::any, true},
    {"mpich", "default", "shm+tcp", GRADRAIL_UCX_HOSTS, "", "", Room::any, false, true},
    {"gloo", "ring", "shm+tcp", "", "", "ring", Room::any, false, true},
    {"gloo", "bcube", "shm+tcp", "", "", "bcube", Room::any, true},
    {"gloo", "ring_chunked", "shm+tcp", "", "", "ring_chunked", Room::any, true},
    {"gloo", "halving_doubling", "shm+tcp", "", "", "halving_doubling", Room::any, true},
    {"ucc", "default", "shm", GRADRAIL_UCX_SHM, "", "", Room::any, false, true},
    {"ucc", "persistent", "shm", GRADRAIL_UCX_SHM, "", "persistent", Room::any},
    {"ucc", "default", "tcp", GRADRAIL_UCX_TCP, "", "", Room::any, false, true},
    {"ucc", "persistent", "tcp", GRADRAIL_UCX_TCP, "", "persistent", Room::any},
    {"ucc", "default", "shm+tcp", GRADRAIL_UCX_HOSTS, "", "", Room::any, false, true},
    {"nccl", "default", "cuda_ipc", "", "", "", Room::any, false, true},
};
// clang-format on

struct Library {
  std::string_view name;
  std::string_view words;  // what a person calls it, and what to install
};
constexpr std::array<Library, 5> k_libraries = {{
    {"openmpi", "Open MPI's headers (Debian: libopenmpi-dev openmpi-bin)"},
    {"mpich", "MPICH's headers (Debian: libmpich-dev mpich)"},
    {"gloo", "Gloo's headers (Debian: libgloo-dev)"},
    {"ucc",
     "UCC's headers and library (in no package of Debian 12: build it, and name its folder in CMAKE_PREFIX_PATH)"},
    {"nccl", "NCCL's headers (nccl.h) and the CUDA toolkit"},
}};

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (std::size_t at = 0; at < text.size();) {
    const auto end = std::min(text.find(' ', at), text.size());
    if (end > at) words.emplace_back(text.substr(at, end - at));
    at = end + 1;
  }
  return words;
}

}  // namespace

std::span<const PeerConfiguration> peer_configurations() { return k_table; }

std::vector<std::string_view> peer_libraries() {
  std::vector<std::string_view> names;
  for (const Library& library : k_libraries) names.push_back(library.name);
  return names;
}

std::string runner_path(std::string_view folder, std::string_view library) {
  return fmt::format("{}/gradrail-peer-{}", folder, library);
}

std::string runner_folder() {
  if (const char* asked = std::getenv("GRADRAIL_PEER_RUNNERS"); asked != nullptr && *asked != '\0') return asked;
  std::array<char, 4096> path{};
  const auto size = ::readlink("/proc/self/exe", path.data(), path.size() - 1);
  if (size <= 0) return ".";
  const std::string_view program(path.data(), static_cast<std::size_t>(size));
  return std::string(program.substr(0, program.rfind('/')));
}

Result<std::vector<std::string>> parse_peers(std::string_view text, std::string_view folder) {
  const auto is_built = [&](std::string_view name) { return ::access(runner_path(folder, name).c_str(), X_OK) == 0; };
  std::vector<std::string> names;
  const auto add = [&](std::string_view name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
  };
  for (std::size_t at = 0; at <= text.size();) {
    const auto end = std::min(text.find(',', at), text.size());
    const std::string_view name = text.substr(at, end - at);
    at = end + 1;
    if (name == "all") {
      for (const Library& library : k_libraries)
        if (is_built(library.name)) add(library.name);
      if (names.empty())
        return fail(Code::bad_usage,
                    "--against all: no other library was found when gradrail was built; see scripts/install-packages");
      continue;
    }
    const auto known = std::find_if(k_libraries.begin(), k_libraries.end(),
                                    [&](const Library& library) { return library.name == name; });
    if (known == k_libraries.end()) {
      std::string all;
      for (const Library& library : k_libraries) all += fmt::format("{}{}", all.empty() ? "" : ", ", library.name);
      return fail(Code::bad_usage, fmt::format("'{}' is no library to compare with; known are {}", name, all));
    }
    if (!is_built(name))
      return fail(Code::bad_usage,
                  fmt::format("--against {} needs the program gradrail-peer-{}, which was not built: it takes {} when "
                              "gradrail is configured, and then a build of everything, not of gradrail alone",
                              name, name, known->words));
    add(name);
  }
  return names;
}

std::vector<const PeerConfiguration*> find_configurations(const PeerQuery& query) {
  const bool allreduce =
      std::find(query.collectives.begin(), query.collectives.end(), Collective::allreduce) != query.collectives.end();
  std::vector<const PeerConfiguration*> found;
  for (const PeerConfiguration& one : k_table) {
    if (one.library != query.library || one.transport != query.transport) continue;
    if (one.only_allreduce && !allreduce) continue;
    if (one.room == Room::core_each && query.ranks > query.cores) continue;
    if (one.room == Room::crowded && query.ranks <= query.cores) continue;
    found.push_back(&one);
  }
  return found;
}

PeerCommand command_of(const PeerConfiguration& configuration, int ranks, bool bind, const std::string& runner,
                       const std::string& control, const std::string& folder) {
  PeerCommand command;
  command.environment = words_of(configuration.environment);
  command.environment.emplace_back(k_keep_memory);
  const auto add = [&](std::initializer_list<std::string_view> more) {
    for (const std::string_view word : more) command.argv.emplace_back(word);
  };
  const std::string count = std::to_string(ranks);
  if (configuration.library == "openmpi") {
    // Containers run as root, where Open MPI wants to be asked twice.
    command.environment.emplace_back("OMPI_ALLOW_RUN_AS_ROOT=1");
    command.environment.emplace_back("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1");
    add({GRADRAIL_OPENMPI_LAUNCHER, "--bind-to", bind ? "core" : "none"});
    if (!bind) add({"--oversubscribe"});  // no more than a permission
    for (const std::string& word : words_of(configuration.arguments)) command.argv.push_back(word);
    add({"-n", count, runner});
  } else if (configuration.library == "mpich") {
    add({GRADRAIL_MPICH_LAUNCHER});
    if (bind) add({"-bind-to", "core"});
    for (const std::string& word : words_of(configuration.arguments)) command.argv.push_back(word);
    add({"-n", count, runner});
  } else {
    command.one_a_rank = true;
    // Who reads sockets busily wants a core; with a thread of its own that reads, a rank is better left to the system.
    command.bind = configuration.variant.ends_with(",sync") || configuration.library != "gloo";
    add({runner, "--folder", folder, "--ranks", count});
  }
  add({"--control", control});
  if (!configuration.variant.empty()) add({"--variant", configuration.variant});
  return command;
}

}  // namespace gradrail

#include "transports/bootstrap/surroundings.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
#include <string_view>

#include "transports/base/fd.h"
#include "transports/bootstrap/launch_variables.h"

namespace gradrail {
namespace {

constexpr int k_most_ranks = 1 << 20;

std::string_view text_of(const Variables& variables, const char* name) {
  const char* value = variables(name);
  return value == nullptr ? std::string_view() : std::string_view(value);
}

bool is_set(const Variables& variables, const char* name) { return !text_of(variables, name).empty(); }

std::optional<int> parse(std::string_view text) {
  int value = 0;
  const auto [end, failed] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failed != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<int> number(const Variables& variables, const char* name, int least, int most) {
  const auto text = text_of(variables, name);
  const auto value = parse(text);
  if (!value || *value < least || *value > most) {
    return fail(Code::bad_usage,
                fmt::format("the variable {} is '{}', and must be a number from {} to {}", name, text, least, most));
  }
  return *value;
}

Result<void> read_rank(const Variables& variables, const char* rank, const char* ranks, Surroundings& around) {
  GRADRAIL_ASSIGN(around.ranks, number(variables, ranks, 1, k_most_ranks));
  GRADRAIL_ASSIGN(around.rank, number(variables, rank, 0, around.ranks - 1));
  return {};
}

Result<Surroundings> from_launcher(const Variables& variables) {
  using namespace launch_variable;
  Surroundings around;
  around.way = Surroundings::Way::launcher;
  GRADRAIL_TRY(read_rank(variables, k_rank, k_ranks, around));
  const auto endpoint = text_of(variables, k_endpoint);
  const auto colon = endpoint.rfind(':');
  const auto port = colon == endpoint.npos ? std::nullopt : parse(endpoint.substr(colon + 1));
  if (!port || *port < 1 || *port > 65535) {
    return fail(Code::bad_usage,
                fmt::format("the variable {} is '{}', and must be an address and a port", k_endpoint, endpoint));
  }
  around.host = endpoint.substr(0, colon);
  around.port = *port;
  constexpr int k_most_fd = 1 << 30;
  GRADRAIL_ASSIGN(around.report_fd, number(variables, k_report_fd, 0, k_most_fd));
  GRADRAIL_ASSIGN(around.secret_fd, number(variables, k_secret_fd, 0, k_most_fd));
  if (around.rank == 0) {
    GRADRAIL_ASSIGN(around.listen_fd, number(variables, k_listen_fd, 0, k_most_fd));
  }
  return around;
}

Result<Surroundings> from_torchrun(const Variables& variables) {
  Surroundings around;
  around.way = Surroundings::Way::torchrun;
  for (const char* name : {"MASTER_ADDR", "MASTER_PORT"}) {
    if (is_set(variables, name)) continue;
    return fail(Code::bad_usage,
                fmt::format("RANK and WORLD_SIZE are set and {} is not: set it to where rank 0 is to be "
                            "met, as torchrun does, or unset RANK and WORLD_SIZE",
                            name));
  }
  GRADRAIL_TRY(read_rank(variables, "RANK", "WORLD_SIZE", around));
  around.host = text_of(variables, "MASTER_ADDR");
  if (is_set(variables, "GRADRAIL_PORT")) {
    GRADRAIL_ASSIGN(around.port, number(variables, "GRADRAIL_PORT", 1, 65535));
  } else {
    const bool agent_holds_it = text_of(variables, "TORCHELASTIC_USE_AGENT_STORE") == "True";
    GRADRAIL_ASSIGN(around.port, number(variables, "MASTER_PORT", 1, agent_holds_it ? 65534 : 65535));
    if (agent_holds_it) ++around.port;
  }
  return around;
}

// A job of many that shows only in what its launcher left behind for others.
Result<void> no_job_of_many(const Variables& variables) {
  struct Trace {
    const char* size;
    const char* only_with;  // a variable that must be there too
    const char* who;
    const char* remedy;
  };
  // A batch script has SLURM_NTASKS too, and is one process all the same: only a step has a step's number.
  static constexpr std::array<Trace, 4> k_traces{{
      {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "Open MPI's mpirun", "use an Open MPI that has PMIx"},
      {"SLURM_STEP_NUM_TASKS", "SLURM_STEP_ID", "srun", "use srun --mpi=pmix"},
      {"SLURM_NTASKS", "SLURM_STEP_ID", "srun", "use srun --mpi=pmix"},
      {"PMI_SIZE", "PMI_RANK", "a launcher that speaks PMI and not PMIx", "use Open MPI's mpirun or srun --mpi=pmix"},
  }};
  for (const auto& trace : k_traces) {
    const auto size = parse(text_of(variables, trace.size));
    if (!size || *size < 2 || !is_set(variables, trace.only_with)) continue;
    return fail(
        Code::bad_usage,
        fmt::format("this process came up alone, though {0} started {1} of them ({2}={1}): that would be {1} jobs "
                    "of one where one job of {1} was meant; {3}, or set torchrun's variables RANK, WORLD_SIZE, "
                    "MASTER_ADDR and MASTER_PORT",
                    trace.who, *size, trace.size, trace.remedy));
  }
  return {};
}

Result<std::string> read_secret_file(const std::string& path) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return fail_errno(fmt::format("reading GRADRAIL_SECRET_FILE {}", path), errno);
  struct stat about {};
  if (::fstat(fd.get(), &about) != 0 || !S_ISREG(about.st_mode)) {
    return fail(Code::bad_usage, fmt::format("GRADRAIL_SECRET_FILE {} is not a file", path));
  }
  if ((about.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return fail(Code::bad_usage,
                fmt::format("GRADRAIL_SECRET_FILE {0} can be read by others than its owner, so it is no "
                            "secret; run chmod 600 {0}",
                            path));
  }
  std::array<char, 4096> text;
  const auto got = ::read(fd.get(), text.data(), text.size());
  if (got < 0) return fail_errno(fmt::format("reading GRADRAIL_SECRET_FILE {}", path), errno);
  std::string_view view(text.data(), static_cast<std::size_t>(got));
  while (!view.empty() && (view.back() == '\n' || view.back() == '\r')) view.remove_suffix(1);
  return std::string(view);
}

}  // namespace

Result<Surroundings> look_around(const Variables& variables) {
  if (is_set(variables, launch_variable::k_rank)) return from_launcher(variables);
  const bool torchrun = is_set(variables, "RANK") && is_set(variables, "WORLD_SIZE");
  // torchrun under srun: the ranks inherit the PMIx variables of the one process that srun started.
  if (torchrun && is_set(variables, "TORCHELASTIC_RUN_ID")) return from_torchrun(variables);
  if (is_set(variables, "PMIX_RANK") && is_set(variables, "PMIX_NAMESPACE")) {
    if (GRADRAIL_HAVE_PMIX == 0) {
      return fail(Code::unavailable,
                  "this process was started through PMIx (by mpirun or srun), and this build of gradrail "
                  "lacks PMIx; install libpmix-dev and build again, or use torchrun's variables");
    }
    Surroundings around;
    around.way = Surroundings::Way::pmix;
    return around;
  }
  if (torchrun) return from_torchrun(variables);
  GRADRAIL_TRY(no_job_of_many(variables));
  return Surroundings{};
}

Result<Secret> read_secret(const Variables& variables) {
  std::string text(text_of(variables, "GRADRAIL_SECRET"));
  std::string from = "GRADRAIL_SECRET";
  if (text.empty() && is_set(variables, "GRADRAIL_SECRET_FILE")) {
    from = fmt::format("GRADRAIL_SECRET_FILE {}", text_of(variables, "GRADRAIL_SECRET_FILE"));
    GRADRAIL_ASSIGN(text, read_secret_file(std::string(text_of(variables, "GRADRAIL_SECRET_FILE"))));
  } else if (text.empty()) {
    return fail(Code::bad_usage,
                "a job with torchrun's variables needs a secret that all its ranks share: set "
                "GRADRAIL_SECRET=$(openssl rand -hex 32) before torchrun, or GRADRAIL_SECRET_FILE to a "
                "file that only you can read");
  }
  auto secret = Secret::from_text(text);
  if (!secret) return tl::unexpected<Error>(std::move(secret).error().in(from));
  return secret;
}

}  // namespace gradrail

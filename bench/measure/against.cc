#include "bench/measure/against.h"

#include <fmt/format.h>

#include <cstdlib>
#include <sstream>

#include "bench/measure/peer_ranks.h"
#include "bench/peers/configurations.h"

namespace gradrail {

namespace {

std::vector<const PeerConfiguration*> wanted(const AgainstOptions& options) {
  std::vector<const PeerConfiguration*> all;
  for (const std::string& library : options.libraries) {
    const PeerQuery query{library, options.transport, options.ranks, static_cast<int>(options.cores.size()),
                          options.collectives};
    const auto found = find_configurations(query);
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

// What a laboratory of several hosts says of itself (scripts/namespace-lab).
PeerRanks::Start::Hosts told_hosts() {
  const auto told = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value != nullptr ? value : "");
  };
  PeerRanks::Start::Hosts hosts;
  std::istringstream names(told("GRADRAIL_PEER_HOSTS"));
  for (std::string name; names >> name;) hosts.names.push_back(name);
  hosts.agent = told("GRADRAIL_PEER_AGENT");
  hosts.interface = told("GRADRAIL_PEER_INTERFACE");
  return hosts;
}

// One that never came up.
class Absent : public Contender {
 public:
  Absent(std::string library, std::string name, Error why)
      : library_(std::move(library)), name_(std::move(name)), why_(std::move(why)) {}
  [[nodiscard]] const std::string& library() const override { return library_; }
  [[nodiscard]] const std::string& name() const override { return name_; }
  Result<Trial> prepare(const Call&, Cache, int, bool, std::uint64_t, Deadline) override {
    return tl::unexpected<Error>(why_);
  }
  Result<std::vector<double>> measure(int, int, Deadline) override { return tl::unexpected<Error>(why_); }
  void release(Deadline) override {}

 private:
  std::string library_;
  std::string name_;
  Error why_;
};

}  // namespace

std::size_t count_rivals(const AgainstOptions& options) { return wanted(options).size(); }

Rivals start_rivals(const AgainstOptions& options) {
  Rivals rivals;
  for (const std::string& library : options.libraries) {
    AgainstOptions alone = options;
    alone.libraries = {library};
    if (count_rivals(alone) > 0) continue;
    PeerRecord record;
    record.library = library;
    record.transport = options.transport;
    record.ranks = options.ranks;
    record.error = fmt::format("it has no way that compares with {}", options.transport);
    rivals.records.push_back(std::move(record));
  }
  for (const PeerConfiguration* configuration : wanted(options)) {
    PeerRanks::Start start;
    start.library = configuration->library;
    start.name = configuration->name;
    start.ranks = options.ranks;
    start.cores = options.cores;
    start.cpus = options.cpus;
    start.hosts = told_hosts();
    start.command = command_of(*configuration, options.ranks, !options.cpus.empty(),
                               runner_path(options.runner_folder, configuration->library),
                               std::string(PeerRanks::k_control), std::string(PeerRanks::k_folder));
    PeerRecord record;
    record.library = start.library;
    record.configuration = start.name;
    record.transport = options.transport;
    record.ranks = options.ranks;
    record.environment = fmt::format("{}", fmt::join(start.command.environment, " "));
    // Paths of this machine say nothing to others.
    std::vector<std::string> names;
    for (const std::string& word : start.command.argv) names.push_back(word.substr(word.find_last_of('/') + 1));
    record.command = fmt::format("{}", fmt::join(names, " "));
    auto started = PeerRanks::start(start, Deadline::after(options.start_wait));
    if (started) {
      record.version = (*started)->version();
      rivals.contenders.push_back(std::move(*started));
    } else {
      record.error = started.error().message;
      rivals.contenders.push_back(std::make_unique<Absent>(start.library, start.name,
                                                           std::move(started).error().in("it could not be started")));
    }
    rivals.records.push_back(std::move(record));
  }
  return rivals;
}

}  // namespace gradrail

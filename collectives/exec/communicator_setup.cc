// How a communicator comes to be: who is on which host, which transport reaches whom, memory. What it does with calls
// is in communicator.cc.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "collectives/exec/bindings.h"
#include "collectives/exec/communicator.h"
#include "transports/base/cores.h"

namespace gradrail {

Communicator::Communicator() : bindings_(std::make_unique<Bindings>()), encodings_(std::make_unique<Encodings>()) {}

Communicator::~Communicator() {
  // Endpoints and regions go before the transports that made them.
  bindings_.reset();
  encodings_.reset();
  channels_.clear();
  places_.clear();
  barrier_memory_ = Memory();
}

Result<std::unique_ptr<Communicator>> Communicator::open(const CommunicatorOptions& options,
                                                         std::span<const Member> members, int rank) {
  const int n = static_cast<int>(members.size());
  std::unique_ptr<Communicator> self(new Communicator);
  self->rank_ = rank;
  self->members_.assign(members.begin(), members.end());
  self->selector_ = options.selector;
  self->in_flight_ = options.in_flight;
  self->cache_bytes_ = last_cache_bytes();
  if (options.in_flight < 1 || options.in_flight > 4)
    return fail(Code::bad_usage, fmt::format("{} calls in flight are not possible; 1 to 4 are", options.in_flight));

  std::vector<std::string> hosts;
  for (const Member& member : members) {
    const auto found = std::find(hosts.begin(), hosts.end(), member.host);
    self->host_of_.push_back(static_cast<int>(found - hosts.begin()));
    if (found == hosts.end()) hosts.push_back(member.host);
  }
  for (int r = 0; r < n; ++r)
    if (self->host_of_[static_cast<std::size_t>(r)] == self->host_of_[static_cast<std::size_t>(rank)])
      self->neighbours_.push_back(r);
  const bool real = options.ranks_per_host == 0;
  if (!real) {
    if (n % options.ranks_per_host != 0)
      return fail(Code::bad_usage,
                  fmt::format("{} ranks cannot be grouped into hosts of {}; choose a topology HxR with "
                              "H times R equal to the number of ranks",
                              n, options.ranks_per_host));
    for (int r = 0; r < n; ++r) self->host_of_[static_cast<std::size_t>(r)] = r / options.ranks_per_host;
  }
  self->hosts_ = *std::max_element(self->host_of_.begin(), self->host_of_.end()) + 1;
  // Plans know hosts only as equal blocks of consecutive ranks; anything else is planned for as if flat.
  const int first_host = static_cast<int>(std::count(self->host_of_.begin(), self->host_of_.end(), 0));
  bool blocks = n % first_host == 0;
  for (int r = 0; r < n && blocks; ++r) blocks = self->host_of_[static_cast<std::size_t>(r)] == r / first_host;
  self->ranks_per_host_ = blocks ? first_host : 1;

  const bool several_hosts = self->host_of_.back() != 0 || hosts.size() > 1;
  Settings settings = options.settings;
  settings.rank = rank;
  settings.ranks = n;
  GRADRAIL_ASSIGN(auto inner, make_transport(options.inner, settings));
  std::string outer_name = options.outer;
  if (outer_name.empty())
    outer_name = inner->traits().same_host_only && hosts.size() > 1 ? std::string("tcp") : options.inner;
  const bool needs_outer = several_hosts && outer_name != options.inner;
  self->transport_name_ = needs_outer ? options.inner + "+" + outer_name : options.inner;
  ByteWriter writer;
  for (const Reach reach : {Reach::inside, Reach::between}) {
    Address address;
    if (reach == Reach::inside || needs_outer) {
      std::unique_ptr<Transport> transport = std::move(inner);
      if (reach == Reach::between) {
        GRADRAIL_ASSIGN(transport, make_transport(outer_name, settings));
      }
      if (options.around) transport = options.around(std::move(transport));
      if (reach == Reach::inside && transport->traits().same_host_only && self->spans_hosts(hosts.size(), needs_outer))
        return fail(Code::bad_usage,
                    fmt::format("transport {} reaches only ranks of one host, and here it would have to reach between "
                                "the job's {} hosts; name another one for between them (--outer tcp), and a topology "
                                "that keeps them apart",
                                options.inner, hosts.size()));
      GRADRAIL_ASSIGN(address, transport->listen());
      self->transports_[static_cast<std::size_t>(reach)] = std::move(transport);
    }
    writer.put_block(address);
  }
  const auto cores = usable_cores();
  writer.put_block(std::as_bytes(std::span(cores)));
  self->address_ = std::move(writer).take();
  self->places_.resize(static_cast<std::size_t>(options.in_flight));
  return self;
}

// Whether the transport inside hosts would be used between ranks that really are on several.
bool Communicator::spans_hosts(std::size_t real_hosts, bool has_outer) const {
  if (real_hosts == 1) return false;
  if (!has_outer) return true;
  for (std::size_t a = 0; a < members_.size(); ++a)
    for (std::size_t b = 0; b < a; ++b)
      if (host_of_[a] == host_of_[b] && members_[a].host != members_[b].host) return true;
  return false;
}

Result<void> Communicator::meet(std::span<const Bytes> addresses) {
  addresses_.clear();
  core_of_.assign(addresses.size(), -1);
  std::set<int> cores;  // that this host's ranks may use
  for (std::size_t r = 0; r < addresses.size(); ++r) {
    ByteReader reader(addresses[r]);
    std::array<Address, k_reaches> both;
    for (Address& address : both) {
      const auto block = reader.get_block();
      address.assign(block.begin(), block.end());
    }
    const auto block = reader.get_block();
    if (!reader.ok()) return fail(Code::malformed, "the address sent by " + who(static_cast<int>(r)) + " is damaged");
    std::vector<int> usable(block.size() / sizeof(int));
    std::memcpy(usable.data(), block.data(), usable.size() * sizeof(int));
    if (std::find(neighbours_.begin(), neighbours_.end(), static_cast<int>(r)) != neighbours_.end()) {
      cores.insert(usable.begin(), usable.end());
      if (usable.size() == 1) core_of_[r] = usable.front();
    }
    addresses_.push_back(std::move(both));
  }
  if (addresses_.size() != members_.size())
    return fail(Code::malformed, fmt::format("{} addresses for {} ranks", addresses_.size(), members_.size()));
  cores_ = static_cast<int>(cores.size());
  crowded_ = neighbours_.size() > cores.size();
  GRADRAIL_ASSIGN(barrier_memory_, allocate(64));
  return {};
}

Result<std::unique_ptr<Communicator>> Communicator::create(Bootstrap& bootstrap, CommunicatorOptions options,
                                                           Deadline deadline) {
  const Member& self = bootstrap.members()[static_cast<std::size_t>(bootstrap.rank())];
  options.settings.secret = bootstrap.secret();
  options.settings.listen_host = self.listen_host;
  auto opened = open(options, bootstrap.members(), bootstrap.rank());
  // A rank that cannot go on still takes part in the exchange, so that all ranks say the same.
  ByteWriter mine;
  mine.put(static_cast<std::uint8_t>(opened.has_value()));
  mine.put(static_cast<std::uint8_t>(opened ? Code::system : opened.error().code));
  mine.put_string(opened ? std::string() : opened.error().message);
  mine.put_block(opened ? std::span<const std::byte>(opened.value()->address()) : std::span<const std::byte>());
  GRADRAIL_ASSIGN(const auto all, bootstrap.all_gather(std::move(mine).take(), deadline));
  if (!opened) return tl::unexpected<Error>(std::move(opened).error());
  std::vector<Bytes> addresses;
  for (std::size_t r = 0; r < all.size(); ++r) {
    ByteReader reader(all[r]);
    const bool up = reader.get<std::uint8_t>() != 0;
    const auto code =
        static_cast<Code>(std::min(reader.get<std::uint8_t>(), static_cast<std::uint8_t>(Code::poisoned)));
    const std::string why = reader.get_string();
    const auto block = reader.get_block();
    const std::string name = (*opened)->who(static_cast<int>(r));
    if (!reader.ok()) return fail(Code::malformed, "the address sent by " + name + " is damaged", static_cast<int>(r));
    if (!up) return fail(code, fmt::format("{} cannot take part: {}", name, why), static_cast<int>(r));
    addresses.emplace_back(block.begin(), block.end());
  }
  GRADRAIL_TRY((*opened)->meet(addresses));
  return opened;
}

std::string Communicator::who(int peer) const {
  if (peer < 0 || peer >= ranks()) return "an unknown rank";
  const Member& member = members_[static_cast<std::size_t>(peer)];
  return fmt::format("rank {} (pid {} on {})", peer, member.pid, member.host);
}

std::vector<std::string> Communicator::describe_transports() const {
  std::vector<std::string> lines;
  for (const auto& transport : transports_) {
    if (transport == nullptr) continue;
    const std::string line = transport->describe();
    if (!line.empty()) lines.push_back(fmt::format("{}: {}", transport->traits().name, line));
  }
  return lines;
}

Reach Communicator::reach_of(int peer) const {
  const bool same = host_of_[static_cast<std::size_t>(peer)] == host_of_[static_cast<std::size_t>(rank_)];
  return same || transports_[static_cast<std::size_t>(Reach::between)] == nullptr ? Reach::inside : Reach::between;
}

Result<Memory> Communicator::allocate(std::size_t bytes) {
  std::array<std::unique_ptr<Region>, k_reaches> regions;
  GRADRAIL_ASSIGN(regions[0], transport_of(Reach::inside).allocate(std::max<std::size_t>(bytes, 1)));
  const Buffer buffer = regions[0]->buffer();
  if (transports_[1] != nullptr) {
    GRADRAIL_ASSIGN(regions[1], transport_of(Reach::between).register_memory(buffer));
  }
  return Memory(buffer, std::move(regions));
}

Result<Memory> Communicator::adopt(std::span<std::byte> bytes) {
  const Buffer buffer{bytes.data(), bytes.size(), Space::host, -1};
  std::array<std::unique_ptr<Region>, k_reaches> regions;
  for (std::size_t i = 0; i < k_reaches; ++i)
    if (transports_[i] != nullptr) {
      GRADRAIL_ASSIGN(regions[i], transports_[i]->register_memory(buffer));
    }
  return Memory(buffer, std::move(regions));
}

}  // namespace gradrail

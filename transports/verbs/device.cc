#include "transports/verbs/device.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

namespace gradrail::verbs {
namespace {

constexpr std::string_view k_no_device =
    "this host has no RDMA device that libibverbs knows; load its driver (rdma link shows devices), or try software "
    "RoCE in a virtual machine with scripts/soft-roce";

bool is_ipv4(const ibv_gid& gid) {
  static constexpr std::array<std::uint8_t, 12> k_mapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return std::memcmp(gid.raw, k_mapped.data(), k_mapped.size()) == 0;
}
bool is_link_local(const ibv_gid& gid) { return gid.raw[0] == 0xfe && (gid.raw[1] & 0xc0) == 0x80; }

bool is_address(const ibv_gid& gid, std::string_view host) {
  const std::string text(host);
  std::array<std::uint8_t, 16> address{};
  if (::inet_pton(AF_INET, text.c_str(), address.data()) == 1)
    return is_ipv4(gid) && std::memcmp(gid.raw + 12, address.data(), 4) == 0;
  return ::inet_pton(AF_INET6, text.c_str(), address.data()) == 1 && std::memcmp(gid.raw, address.data(), 16) == 0;
}

// As in Options.
bool is_of(const ibv_gid_entry& entry, std::string_view kind) {
  if (kind == "v1") return entry.gid_type == IBV_GID_TYPE_ROCE_V1;
  if (entry.gid_type != IBV_GID_TYPE_ROCE_V2) return false;
  return kind == (is_ipv4(entry.gid) ? "ipv4" : is_link_local(entry.gid) ? "link-local" : "ipv6");
}

std::string listed(std::span<const ibv_gid_entry> entries) {
  std::string there;
  for (const auto& entry : entries)
    there += fmt::format("{}{} ({})", there.empty() ? "" : ", ", entry.gid_index, to_text(entry.gid));
  return there.empty() ? "none" : there;
}

std::string_view state_of(const ibv_port_attr& port) {
  switch (port.state) {
    case IBV_PORT_DOWN: return "down";
    case IBV_PORT_INIT: return "initialising: is a subnet manager running?";
    case IBV_PORT_ARMED: return "armed, not yet active";
    case IBV_PORT_ACTIVE: return "active";
    default: return "in an unknown state";
  }
}

std::string listed(std::span<const std::string> names) { return fmt::format("{}", fmt::join(names, ", ")); }

// The first active port, 0 if there is none.
int active_port(Calls& calls, ibv_context* context, const ibv_device_attr& attributes) {
  for (int port = 1; port <= attributes.phys_port_cnt; ++port) {
    ibv_port_attr found{};
    if (calls.query_port(context, port, found) == 0 && found.state == IBV_PORT_ACTIVE) return port;
  }
  return 0;
}

// Why a device can never carry this transport; empty if it may.
std::string_view lack_of(Calls& calls, ibv_context* context) {
  switch (calls.transport_type(context)) {
    case IBV_TRANSPORT_IB: return {};
    case IBV_TRANSPORT_IWARP:
      return "an iWARP device: it has no RDMA write with immediate data, by which a receiver is told what has arrived";
    default: return "neither an InfiniBand nor a RoCE device: it has no reliable queue pairs";
  }
}

tl::unexpected<Error> lacking(std::string_view name, std::string_view lack) {
  return fail(Code::unavailable,
              fmt::format("{} is {}; use --transport tcp there, or an InfiniBand or RoCE device with "
                          "the verbs setting device",
                          name, lack));
}

// All that libibverbs knows, at least one. Errors: unavailable.
Result<std::vector<std::string>> names_of(Calls& calls) {
  std::vector<std::string> names;
  const int error = calls.device_names(names);
  if (error != 0 || names.empty()) return fail(Code::unavailable, std::string(k_no_device), Error::k_no_peer, error);
  return names;
}

// Those of `names` that have an active port and lack nothing. Errors: unavailable, if there is none, with the reason.
Result<std::vector<std::string>> usable_of(Calls& calls, std::span<const std::string> names) {
  std::vector<std::string> usable;
  std::optional<Error> why;
  for (const auto& name : names) {
    ibv_context* const context = calls.open_device(name);
    if (context == nullptr) continue;
    const auto lack = lack_of(calls, context);
    ibv_device_attr attributes{};
    const bool active = calls.query_device(context, attributes) == 0 && active_port(calls, context, attributes) != 0;
    calls.close_device(context);
    if (active && lack.empty()) usable.push_back(name);
    if (active && !lack.empty()) why = lacking(name, lack).value();
  }
  if (!usable.empty()) return usable;
  if (why) return tl::unexpected<Error>(*std::move(why));
  return fail(
      Code::unavailable,
      fmt::format("no port of the RDMA devices here is active ({}); bring a link up, or see dmesg", listed(names)));
}

}  // namespace

std::string to_text(const ibv_gid& gid) {
  char text[INET6_ADDRSTRLEN] = "";
  ::inet_ntop(AF_INET6, gid.raw, text, sizeof text);
  return text;
}

int bytes_of(ibv_mtu mtu) { return 128 << static_cast<int>(mtu); }

Result<GidChoice> choose_gid(std::span<const ibv_gid_entry> entries, int link_layer, int wanted,
                             std::string_view listen_host, std::string_view device, std::string_view kind) {
  const auto chosen = [](const ibv_gid_entry& entry, std::string why) {
    return GidChoice{static_cast<int>(entry.gid_index), entry.gid, true, std::move(why)};
  };
  if (wanted >= 0) {
    const auto found = std::find_if(entries.begin(), entries.end(),
                                    [&](const auto& entry) { return static_cast<int>(entry.gid_index) == wanted; });
    if (found != entries.end()) return chosen(*found, "as asked for");
    return fail(Code::bad_usage,
                fmt::format("{} has no GID with index {}; it has {}", device, wanted, listed(entries)));
  }
  if (!kind.empty()) {
    for (const auto& entry : entries)
      if (is_of(entry, kind)) return chosen(entry, fmt::format("the first of the kind {}, as asked for", kind));
    return fail(Code::bad_usage, fmt::format("{} has no GID of the kind {}; it has {}", device, kind, listed(entries)));
  }
  if (link_layer != IBV_LINK_LAYER_ETHERNET) return GidChoice{0, {}, false, "InfiniBand, addressed by LID"};

  struct Rule {
    bool (*fits)(const ibv_gid_entry&, std::string_view);
    std::string_view why;
  };
  static constexpr auto k_v2 = [](const ibv_gid_entry& entry) { return entry.gid_type == IBV_GID_TYPE_ROCE_V2; };
  static constexpr std::array<Rule, 5> k_rules{{
      {[](const ibv_gid_entry& e, std::string_view host) { return k_v2(e) && is_address(e.gid, host); },
       "RoCE v2, the address this rank listens on"},
      {[](const ibv_gid_entry& e, std::string_view) { return k_v2(e) && is_ipv4(e.gid); },
       "RoCE v2, the first with an IPv4 address"},
      {[](const ibv_gid_entry& e, std::string_view) { return k_v2(e) && !is_link_local(e.gid); },
       "RoCE v2 with a routable IPv6 address; there is none with IPv4"},
      {[](const ibv_gid_entry& e, std::string_view) { return k_v2(e); },
       "RoCE v2, link-local: the only one, and it reaches this link only"},
      {[](const ibv_gid_entry&, std::string_view) { return true; },
       "RoCE v1: there is no RoCE v2 entry; it does not cross routers"},
  }};
  for (const auto& rule : k_rules)
    for (const auto& entry : entries)
      if (rule.fits(entry, listen_host)) return chosen(entry, std::string(rule.why));
  return fail(Code::unavailable,
              fmt::format("{} has no GID; give its network interface an IP address and bring it up", device));
}

Device::~Device() {
  if (channel_ != nullptr) calls_.destroy_channel(channel_);
  if (domain_ != nullptr) calls_.dealloc_pd(domain_);
  if (context_ != nullptr) calls_.close_device(context_);
}

Result<void> Device::any(Calls& calls) {
  GRADRAIL_ASSIGN(const auto names, names_of(calls));
  GRADRAIL_TRY(usable_of(calls, names));
  return {};
}

Result<std::vector<std::unique_ptr<Device>>> Device::open_all(Calls& calls, const Options& options, int rank,
                                                              std::string_view listen_host) {
  GRADRAIL_ASSIGN(const auto names, names_of(calls));
  for (const auto& wish : options.devices)
    if (std::find(names.begin(), names.end(), wish) == names.end())
      return fail(Code::bad_usage, fmt::format("there is no RDMA device '{}'; there is {}", wish, listed(names)));
  auto usable = options.devices;
  if (usable.empty()) {
    GRADRAIL_ASSIGN(usable, usable_of(calls, names));
  }
  const auto rails = static_cast<std::size_t>(options.rails);
  if (rails > usable.size())
    return fail(Code::bad_usage, fmt::format("{} rails need as many RDMA devices; there {} {}", rails,
                                             usable.size() == 1 ? "is only" : "are only", listed(usable)));
  std::vector<std::unique_ptr<Device>> devices;
  for (std::size_t rail = 0; rail < rails; ++rail) {
    const auto& name = usable[(static_cast<std::size_t>(rank) * rails + rail) % usable.size()];
    GRADRAIL_ASSIGN(auto device, open(calls, options, name, listen_host));
    devices.push_back(std::move(device));
  }
  return devices;
}

Result<std::unique_ptr<Device>> Device::open(Calls& calls, const Options& options, const std::string& name,
                                             std::string_view listen_host) {
  std::unique_ptr<Device> device(new Device(calls, options, name));
  device->context_ = calls.open_device(name);
  if (device->context_ == nullptr)
    return fail_errno(fmt::format("opening RDMA device {} (may this user write to /dev/infiniband?)", name), errno);
  if (const auto lack = lack_of(calls, device->context_); !lack.empty()) return lacking(name, lack);
  GRADRAIL_TRY(device->choose(listen_host));
  device->domain_ = calls.alloc_pd(device->context_);
  if (device->domain_ == nullptr) return fail_errno(fmt::format("making a protection domain on {}", name), errno);
  device->channel_ = calls.create_channel(device->context_);
  if (device->channel_ == nullptr) return fail_errno(fmt::format("making a completion channel on {}", name), errno);
  return device;
}

Result<void> Device::choose(std::string_view listen_host) {
  if (const int error = calls_.query_device(context_, attributes_); error != 0)
    return fail_errno(fmt::format("querying RDMA device {}", name_), error);
  port_ = options_.port;
  if (port_ > attributes_.phys_port_cnt)
    return fail(Code::bad_usage,
                fmt::format("{} has no port {}; its last is {}", name_, port_, attributes_.phys_port_cnt));
  if (port_ == 0) port_ = std::max(1, active_port(calls_, context_, attributes_));
  if (const int error = calls_.query_port(context_, port_, port_attributes_); error != 0)
    return fail_errno(fmt::format("querying {}", where()), error);
  if (port_attributes_.state != IBV_PORT_ACTIVE)
    return fail(Code::unavailable, fmt::format("{} is {}; bring its link up, or choose another device", where(),
                                               state_of(port_attributes_)));

  std::vector<ibv_gid_entry> entries;
  if (const int error = calls_.query_gids(context_, entries); error != 0)
    return fail_errno(fmt::format("reading the GIDs of {}", name_), error);
  std::erase_if(entries, [&](const auto& entry) { return static_cast<int>(entry.port_num) != port_; });
  GRADRAIL_ASSIGN(gid_, choose_gid(entries, port_attributes_.link_layer, options_.gid_index, listen_host, where(),
                                   options_.gid_kind));

  mtu_ = port_attributes_.active_mtu;
  if (options_.mtu > bytes_of(mtu_))
    return fail(
        Code::bad_usage,
        fmt::format(
            "a path MTU of {} bytes is more than the {} that {} has; raise its interface's MTU, or ask for less",
            options_.mtu, bytes_of(mtu_), where()));
  while (options_.mtu != 0 && bytes_of(mtu_) > options_.mtu) mtu_ = static_cast<ibv_mtu>(mtu_ - 1);
  return {};
}

std::string Device::where() const { return fmt::format("{} port {}", name_, port_); }

std::string Device::describe() const {
  const auto address = gid_.global ? fmt::format("GID {} {}", gid_.index, to_text(gid_.gid))
                                   : fmt::format("LID {}", port_attributes_.lid);
  return fmt::format("{}, {} ({}), path MTU {}", where(), address, gid_.why, bytes_of(mtu_));
}

Result<ibv_mr*> Device::register_memory(void* address, std::size_t bytes, int access) const {
  ibv_mr* const region = calls_.reg_mr(domain_, address, bytes, access);
  if (region != nullptr) return region;
  const int error = errno;
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  if ((error == ENOMEM || error == EPERM || error == EAGAIN) && limit.rlim_cur != RLIM_INFINITY)
    return fail(
        Code::exhausted,
        fmt::format("{} could not register {} bytes, as locked memory is limited to {} KiB; raise it (ulimit -l "
                    "unlimited, or memlock in /etc/security/limits.conf)",
                    name_, bytes, limit.rlim_cur >> 10),
        Error::k_no_peer, error);
  return fail_errno(fmt::format("registering {} bytes with {}", bytes, name_), error);
}

}  // namespace gradrail::verbs

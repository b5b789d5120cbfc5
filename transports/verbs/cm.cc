#include "transports/verbs/cm.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace gradrail::verbs {
namespace {

// Longer than the kernel asks for an address, whose answer may be lost on a bad wire; so it is asked again.
constexpr int k_resolve_ms = 2000;
constexpr int k_resolve_tries = 4;
constexpr std::string_view k_purpose = "gradrail verbs rdma_cm";

// The numbers of InfiniBand's reasons for a rejection that ranks meet.
constexpr int k_no_listener = 8;
constexpr int k_refused_by_peer = 28;

in6_addr mapped(const in_addr& address) {
  in6_addr out{};
  out.s6_addr[10] = out.s6_addr[11] = 0xff;
  std::memcpy(out.s6_addr + 12, &address, sizeof address);
  return out;
}

// The address by which rdma_cm knows the device, IPv4 as an IPv6-mapped one: on RoCE its GID's, on InfiniBand the one
// that the rank listens on, which then is to be an interface's over it.
std::optional<in6_addr> address_of(const Device& device, const std::string& listen_host) {
  in6_addr address{};
  if (device.gid().global) {
    std::memcpy(&address, device.gid().gid.raw, sizeof address);
    if (!IN6_IS_ADDR_LINKLOCAL(&address)) return address;
  }
  if (device.port_attributes().link_layer == IBV_LINK_LAYER_ETHERNET) return std::nullopt;
  in_addr four{};
  if (::inet_pton(AF_INET, listen_host.c_str(), &four) == 1) return mapped(four);
  if (::inet_pton(AF_INET6, listen_host.c_str(), &address) == 1) return address;
  return std::nullopt;
}

sockaddr_in6 socket_address(const in6_addr& address, std::uint16_t port) {
  sockaddr_in6 out{};
  if (!IN6_IS_ADDR_V4MAPPED(&address)) {
    out.sin6_family = AF_INET6;
    out.sin6_addr = address;
    out.sin6_port = htons(port);
    return out;
  }
  sockaddr_in four{};
  four.sin_family = AF_INET;
  std::memcpy(&four.sin_addr, address.s6_addr + 12, sizeof four.sin_addr);
  four.sin_port = htons(port);
  std::memcpy(&out, &four, sizeof four);
  return out;
}

sockaddr& plain(sockaddr_in6& address) { return reinterpret_cast<sockaddr&>(address); }

std::string to_text(const sockaddr_in6& address) {
  char text[INET6_ADDRSTRLEN] = "";
  const auto& four = reinterpret_cast<const sockaddr_in&>(address);
  if (address.sin6_family == AF_INET)
    ::inet_ntop(AF_INET, &four.sin_addr, text, sizeof text);
  else
    ::inet_ntop(AF_INET6, &address.sin6_addr, text, sizeof text);
  return fmt::format("{} port {}", text, ntohs(address.sin6_port));  // both kinds have it in the same place
}

}  // namespace

std::string meaning_of(CmStep step, int status, std::string_view peer) {
  const int error = status < 0 ? -status : status;
  switch (step) {
    case CmStep::address_error:
      return fmt::format(
          "rdma_cm found no way to {} ({}); is there a route to it from this device's address, and is its "
          "link up?",
          peer, std::strerror(error));
    case CmStep::route_error:
      return fmt::format("rdma_cm found no route to {} ({}); on InfiniBand, is a subnet manager running?", peer,
                         std::strerror(error));
    case CmStep::unreachable:
      return fmt::format("{} did not answer rdma_cm ({}); is its host up, and is UDP port 4791 open between the two?",
                         peer, std::strerror(error));
    case CmStep::connect_error:
      return fmt::format("rdma_cm could not finish the connection to {} ({}); see dmesg on both hosts", peer,
                         std::strerror(error));
    case CmStep::rejected:
      if (status == k_no_listener)
        return fmt::format("nobody listens at {} for rdma_cm; its rank has ended, or another host has that address",
                           peer);
      if (status == k_refused_by_peer)
        return fmt::format("{} refused rdma_cm's request; its rank does not expect this one, or not any more", peer);
      return fmt::format("{} rejected rdma_cm's request (reason {})", peer, status);
    case CmStep::disconnected: return fmt::format("{} hung up on rdma_cm", peer);
    case CmStep::device_removed: return "the device was taken away while rdma_cm connected";
    default: return fmt::format("rdma_cm said of {} what was not to be expected", peer);
  }
}

Result<std::unique_ptr<CmPort>> CmPort::make(CmCalls& calls, const Secret& secret,
                                             std::span<const std::unique_ptr<Device>> devices,
                                             const std::string& listen_host) {
  std::unique_ptr<CmPort> port(new CmPort(calls, secret));
  port->channel_ = calls.create_channel();
  if (port->channel_ == nullptr)
    return fail(Code::unavailable,
                fmt::format("there is no rdma_cm here ({}); load the module rdma_ucm (modprobe rdma_ucm), or leave out "
                            "connect=cm",
                            std::strerror(errno)),
                Error::k_no_peer, errno);
  for (const auto& device : devices) {
    const auto address = verbs::address_of(*device, listen_host);
    if (!address)
      return fail(
          Code::unavailable,
          fmt::format("{} has no IP address, by which rdma_cm would find it; give its network interface one, or "
                      "leave out connect=cm",
                      device->where()));
    auto& listener = port->listeners_.emplace_back();
    listener.address = socket_address(*address, 0);
    listener.id = calls.create_id(port->channel_);
    if (listener.id == nullptr) return fail_errno("making an rdma_cm id", errno);
    if (const int error = calls.listen(listener.id, plain(listener.address)); error != 0)
      return fail_errno(fmt::format("listening for rdma_cm on {} at {}", device->where(), to_text(listener.address)),
                        error);
    listener.port = static_cast<std::uint16_t>(calls.local_port(listener.id));
  }
  return port;
}

CmPort::~CmPort() {
  for (const auto& listener : listeners_)
    if (listener.id != nullptr) calls_.destroy_id(listener.id);
  if (channel_ != nullptr) calls_.destroy_channel(channel_);
}

void CmPort::introduce(std::size_t rail, PairIntroduction& self) const {
  const auto& listener = listeners_[rail];
  in6_addr address = listener.address.sin6_addr;
  if (listener.address.sin6_family == AF_INET)
    address = mapped(reinterpret_cast<const sockaddr_in&>(listener.address).sin_addr);
  std::memcpy(self.cm_address.data(), &address, sizeof address);
  self.cm_port = listener.port;
}

void CmPort::take_events() {
  CmEvent event;
  while (calls_.take_event(channel_, event)) {
    const bool request = event.step == CmStep::request;
    const auto found = std::find_if(links_.begin(), links_.end(), [&](const CmLink* link) {
      return request ? link->is_meant_by(event) : link->id_ == event.id;
    });
    if (found != links_.end()) {
      request ? (*found)->accept(event) : (*found)->on_event(event);
    } else if (request) {
      static_cast<void>(calls_.reject(event.id));
      calls_.destroy_id(event.id);
    }
  }
}

CmLink::CmLink(CmPort& port, QueuePair& pair, const Name& name, const PairIntroduction& peer, const Fresh& own,
               const Fresh& other)
    : port_(port), pair_(pair), name_(name), peer_(peer), own_(own), other_(other) {
  in6_addr address{};
  std::memcpy(&address, peer.cm_address.data(), sizeof address);
  peer_address_ = to_text(socket_address(address, peer.cm_port));
  port_.links_.push_back(this);
  if (lower()) resolve();
}

CmLink::~CmLink() {
  std::erase(port_.links_, this);
  if (id_ != nullptr) port_.calls_.destroy_id(id_);
}

Result<bool> CmLink::reached(Deadline deadline) {
  if (stage_ == Stage::reached) return true;
  if (failure_) return tl::unexpected<Error>(*failure_);
  if (!deadline.passed()) return false;
  switch (stage_) {
    case Stage::resolving_address:
    case Stage::resolving_route:
      return fail(Code::timed_out, fmt::format("rdma_cm had not found the way to {} in time", peer_address_));
    case Stage::connecting:
      return fail(
          Code::timed_out,
          fmt::format("{} had not answered rdma_cm in time; is UDP port 4791 open between the two?", peer_address_));
    default: return fail(Code::timed_out, fmt::format("nothing came by rdma_cm from {} in time", peer_address_));
  }
}

void CmLink::failed(int error, std::string_view what) {
  failure_ = Error{Code::system, fmt::format("{} by rdma_cm, to {}: {}", what, peer_address_, std::strerror(error)),
                   Error::k_no_peer, error};
}

void CmLink::take(Result<void> done) {
  if (!done) failure_ = std::move(done).error();
}

void CmLink::resolve() {
  CmCalls& calls = port_.calls_;
  if (id_ != nullptr) calls.destroy_id(id_);
  stage_ = Stage::resolving_address;
  ++tries_;
  id_ = calls.create_id(port_.channel_);
  if (id_ == nullptr) return failed(errno, "connecting");
  in6_addr address{};
  std::memcpy(&address, peer_.cm_address.data(), sizeof address);
  auto from = port_.listeners_[pair_.rail()].address;
  auto to = socket_address(address, peer_.cm_port);
  if (const int error = calls.resolve_address(id_, plain(from), plain(to), k_resolve_ms); error != 0)
    failed(error, "resolving an address");
}

void CmLink::on_event(const CmEvent& event) {
  if (stage_ == Stage::reached || failure_) return;
  CmCalls& calls = port_.calls_;
  const auto step_on = [&](Stage next, int error, std::string_view what) {
    stage_ = next;
    if (error != 0) failed(error, what);
  };
  if (event.step == CmStep::address_resolved && stage_ == Stage::resolving_address) {
    take(check_device());
    if (!failure_) step_on(Stage::resolving_route, calls.resolve_route(id_, k_resolve_ms), "resolving a route");
  } else if (event.step == CmStep::route_resolved && stage_ == Stage::resolving_route) {
    step_on(Stage::connecting, calls.connect(id_, offer()), "connecting");
  } else if (event.step == CmStep::response && stage_ == Stage::connecting) {
    if (event.queue_pair != peer_.queue_pair || !proven(event.private_data)) {
      failure_ =
          Error{Code::refused, fmt::format("who answered rdma_cm at {} did not prove the job's secret", peer_address_),
                Error::k_no_peer, 0};
      return;
    }
    take(ready_pair());
    if (!failure_) step_on(Stage::reached, calls.establish(id_), "finishing a connection");
  } else if (event.step == CmStep::established && stage_ == Stage::accepted) {
    stage_ = Stage::reached;
  } else if (event.step == CmStep::address_error && event.status == -ETIMEDOUT && tries_ < k_resolve_tries) {
    resolve();
  } else {
    const bool gone = event.step == CmStep::rejected || event.step == CmStep::disconnected;
    failure_ = Error{gone ? Code::peer_gone : Code::unavailable, meaning_of(event.step, event.status, peer_address_),
                     Error::k_no_peer, event.status < 0 ? -event.status : 0};
  }
}

// The higher rank's side.
bool CmLink::is_meant_by(const CmEvent& request) const {
  if (stage_ != Stage::waiting || lower() || failure_ || request.queue_pair != peer_.queue_pair) return false;
  ByteReader in(request.private_data);
  const auto rank = in.get<std::int32_t>();
  const auto lane = in.get<std::uint16_t>();
  const auto index = in.get<std::uint16_t>();
  return in.ok() && rank == name_.peer && lane == name_.lane && index == name_.index && proven(in.get_bytes(in.left()));
}

void CmLink::accept(const CmEvent& request) {
  id_ = request.id;
  take(check_device());
  if (!failure_) take(ready_pair());
  if (!failure_) {
    stage_ = Stage::accepted;
    if (const int error = port_.calls_.accept(id_, offer()); error != 0) failed(error, "accepting a connection");
  }
  if (failure_) static_cast<void>(port_.calls_.reject(id_));
}

Result<void> CmLink::check_device() const {
  const Device& device = pair_.device();
  const auto name = port_.calls_.device_name(id_);
  const int port = port_.calls_.device_port(id_);
  if (name == device.name() && port == device.port()) return {};
  return fail(
      Code::bad_usage,
      fmt::format("rdma_cm takes {} port {} for the way to {}, and not {}; choose the device of that address with "
                  "the verbs settings device and port, or leave out connect=cm",
                  name, port, peer_address_, device.where()));
}

Result<void> CmLink::ready_pair() {
  PairStates states;
  states.ready.qp_state = IBV_QPS_RTR;
  states.sending.qp_state = IBV_QPS_RTS;
  int error = port_.calls_.pair_attributes(id_, states.ready, states.ready_mask);
  if (error == 0) error = port_.calls_.pair_attributes(id_, states.sending, states.sending_mask);
  if (error != 0) return fail_errno(fmt::format("asking rdma_cm how to connect to {}", peer_address_), error);
  return pair_.connect(peer_, states);
}

// Who says it comes first, so that neither side's words serve the other.
Bytes CmLink::signed_by(bool lower_side) const {
  const bool own = lower_side == lower();
  ByteWriter out;
  out.put_string(k_purpose);
  out.put(static_cast<std::int32_t>(own ? name_.rank : name_.peer));
  out.put(static_cast<std::int32_t>(own ? name_.peer : name_.rank));
  out.put(static_cast<std::int32_t>(name_.lane));
  out.put(static_cast<std::uint32_t>(name_.index));
  out.put(own ? pair_.number() : peer_.queue_pair);
  for (const Fresh& fresh : {own ? own_ : other_, own ? other_ : own_})
    for (const auto number : fresh) out.put(number);
  return std::move(out).take();
}

bool CmLink::proven(std::span<const std::byte> proof) const {
  Secret::Digest digest;
  if (proof.size() < digest.size()) return false;
  std::copy_n(proof.begin(), digest.size(), digest.begin());
  return port_.secret_.verify(signed_by(!lower()), digest);
}

CmOffer CmLink::offer() const {
  ByteWriter out;
  if (lower()) {
    out.put(static_cast<std::int32_t>(name_.rank));
    out.put(static_cast<std::uint16_t>(name_.lane));
    out.put(static_cast<std::uint16_t>(name_.index));
  }
  const auto digest = port_.secret_.sign(signed_by(lower()));
  out.put_bytes(digest);
  return {pair_.number(), pair_.shares_receives(), std::move(out).take()};
}

}  // namespace gradrail::verbs

// rdma_cm that exists only in this process, beside the devices of verbs_fake.h: ids, listeners and events by channel,
// in the order in which the kernel would make them. Tests break a step, or what is said at it.
#pragma once

#include <netinet/in.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "transports/base/fd.h"
#include "transports/verbs/cm_calls.h"

namespace gradrail::testing {

class FakeCm final : public verbs::CmCalls {
 public:
  using Step = verbs::CmStep;
  using Event = verbs::CmEvent;

  std::map<std::uint8_t, std::string> devices;             // by the last byte of their IPv4 address
  bool absent = false;                                     // the kernel has no rdma_cm
  int lost_addresses = 0;                                  // so many questions for an address get no answer
  std::optional<Step> breaks;                              // comes instead of what would come then
  int status = 0;                                          // with it
  bool forges_requests = false, forges_responses = false;  // one bit of what is said changes on the way
  std::string other_device;                                // what every id is bound to, if given

  rdma_event_channel* create_channel() override {
    if (absent) return errno = ENODEV, nullptr;
    auto* const channel = new Channel{Fd(::eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE)), {}};
    return reinterpret_cast<rdma_event_channel*>(channel);
  }
  void destroy_channel(rdma_event_channel* channel) override { delete of(channel); }
  int channel_fd(rdma_event_channel* channel) override { return of(channel)->ready.get(); }
  bool take_event(rdma_event_channel* channel, Event& event) override {
    const std::lock_guard lock(mutex_);
    auto& events = of(channel)->events;
    if (events.empty()) return false;
    event = std::move(events.front());
    events.pop_front();
    eventfd_t one = 0;
    return ::eventfd_read(of(channel)->ready.get(), &one) == 0;
  }

  rdma_cm_id* create_id(rdma_event_channel* channel) override {
    const std::lock_guard lock(mutex_);
    return to_id(make(of(channel)));
  }
  void destroy_id(rdma_cm_id* id) override {
    const std::lock_guard lock(mutex_);
    Id* const gone = of(id);
    std::erase_if(gone->channel->events, [id](const Event& event) { return event.id == id; });
    for (Id* const one : ids_)
      if (one->peer == gone) one->peer = nullptr;
    ids_.erase(gone);
    delete gone;
  }
  int listen(rdma_cm_id* id, sockaddr& at) override {
    const std::lock_guard lock(mutex_);
    bind(*of(id), at);
    of(id)->port = next_port_++;
    return 0;
  }
  int local_port(rdma_cm_id* id) override { return of(id)->port; }
  std::string device_name(rdma_cm_id* id) override { return other_device.empty() ? of(id)->device : other_device; }
  int device_port(rdma_cm_id*) override { return 1; }

  int resolve_address(rdma_cm_id* id, sockaddr& from, sockaddr& to, int) override {
    const std::lock_guard lock(mutex_);
    bind(*of(id), from);
    of(id)->to_port = ntohs(reinterpret_cast<const sockaddr_in&>(to).sin_port);
    if (lost_addresses > 0 && lost_addresses-- > 0) return tell(*of(id), Step::address_error, -ETIMEDOUT);
    return tell(*of(id), Step::address_resolved);
  }
  int resolve_route(rdma_cm_id* id, int) override {
    const std::lock_guard lock(mutex_);
    return tell(*of(id), Step::route_resolved);
  }
  int connect(rdma_cm_id* id, const verbs::CmOffer& offer) override {
    const std::lock_guard lock(mutex_);
    Id& self = *of(id);
    const auto at = std::find_if(ids_.begin(), ids_.end(), [&](const Id* one) { return one->port == self.to_port; });
    if (at == ids_.end()) return tell(self, Step::rejected, 8);
    if (breaks && *breaks != Step::established) return tell(self, Step::response);
    Id* const child = make((*at)->channel);
    child->device = (*at)->device;
    child->peer = &self, self.peer = child;
    child->peer_pair = offer.queue_pair;
    return tell(*child, Step::request, 0, forged(offer.private_data, forges_requests), offer.queue_pair);
  }
  int accept(rdma_cm_id* id, const verbs::CmOffer& offer) override {
    const std::lock_guard lock(mutex_);
    Id* const other = of(id)->peer;
    if (other == nullptr) return 0;
    other->peer_pair = offer.queue_pair;
    return tell(*other, Step::response, 0, forged(offer.private_data, forges_responses), offer.queue_pair);
  }
  int reject(rdma_cm_id* id) override {
    const std::lock_guard lock(mutex_);
    return of(id)->peer != nullptr ? tell(*of(id)->peer, Step::rejected, 28) : 0;
  }
  int establish(rdma_cm_id* id) override {
    const std::lock_guard lock(mutex_);
    return of(id)->peer != nullptr ? tell(*of(id)->peer, Step::established) : 0;
  }
  int pair_attributes(rdma_cm_id* id, ibv_qp_attr& attributes, int& mask) override {
    const std::lock_guard lock(mutex_);
    attributes.dest_qp_num = of(id)->peer_pair;
    attributes.path_mtu = IBV_MTU_4096;
    mask = IBV_QP_STATE | (attributes.qp_state == IBV_QPS_RTR ? IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN
                                                              : IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT);
    return 0;
  }

  // All ids have been given back.
  [[nodiscard]] bool empty() const { return ids_.empty(); }

 private:
  struct Channel {
    Fd ready;
    std::deque<Event> events;
  };
  struct Id {
    Channel* channel = nullptr;
    std::string device;
    int port = 0, to_port = -1;
    Id* peer = nullptr;
    std::uint32_t peer_pair = 0;
  };
  static Channel* of(rdma_event_channel* channel) { return reinterpret_cast<Channel*>(channel); }
  static Id* of(rdma_cm_id* id) { return reinterpret_cast<Id*>(id); }
  static rdma_cm_id* to_id(Id* id) { return reinterpret_cast<rdma_cm_id*>(id); }

  Id* make(Channel* channel) {
    auto* const id = new Id;
    id->channel = channel;
    return *ids_.insert(id).first;
  }
  void bind(Id& id, const sockaddr& at) {
    const auto address = ntohl(reinterpret_cast<const sockaddr_in&>(at).sin_addr.s_addr);
    id.device = devices[static_cast<std::uint8_t>(address)];
  }
  int tell(Id& id, Step step, int with_status = 0, Bytes said = {}, std::uint32_t pair = 0) {
    // What breaks a step comes in its place: an address_error for address_resolved, and so on.
    static const std::map<Step, Step> places{{Step::address_error, Step::address_resolved},
                                             {Step::route_error, Step::route_resolved},
                                             {Step::connect_error, Step::response},
                                             {Step::unreachable, Step::response},
                                             {Step::rejected, Step::response},
                                             {Step::disconnected, Step::response},
                                             {Step::device_removed, Step::response}};
    if (breaks && places.contains(*breaks) && places.at(*breaks) == step) step = *breaks, with_status = status;
    id.channel->events.push_back({step, with_status, to_id(&id), std::move(said), pair});
    return ::eventfd_write(id.channel->ready.get(), 1) == 0 ? 0 : errno;
  }
  static Bytes forged(Bytes said, bool really) {
    if (really) said.back() ^= std::byte{1};
    return said;
  }

  std::mutex mutex_;
  std::set<Id*> ids_;
  int next_port_ = 40000;
};

}  // namespace gradrail::testing

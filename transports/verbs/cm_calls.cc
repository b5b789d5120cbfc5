#include "transports/verbs/cm_calls.h"

#if GRADRAIL_HAVE_RDMACM

#include <fcntl.h>
#include <netinet/in.h>
#include <rdma/rdma_cma.h>

#include <cerrno>

namespace gradrail::verbs {
namespace {

constexpr int k_backlog = 1024;
constexpr std::uint8_t k_reads = 1;
constexpr std::uint8_t k_retries = 7;

CmStep step_of(rdma_cm_event_type type) {
  switch (type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED: return CmStep::address_resolved;
    case RDMA_CM_EVENT_ADDR_ERROR: return CmStep::address_error;
    case RDMA_CM_EVENT_ROUTE_RESOLVED: return CmStep::route_resolved;
    case RDMA_CM_EVENT_ROUTE_ERROR: return CmStep::route_error;
    case RDMA_CM_EVENT_CONNECT_REQUEST: return CmStep::request;
    case RDMA_CM_EVENT_CONNECT_RESPONSE: return CmStep::response;
    case RDMA_CM_EVENT_CONNECT_ERROR: return CmStep::connect_error;
    case RDMA_CM_EVENT_UNREACHABLE: return CmStep::unreachable;
    case RDMA_CM_EVENT_REJECTED: return CmStep::rejected;
    case RDMA_CM_EVENT_ESTABLISHED: return CmStep::established;
    case RDMA_CM_EVENT_DISCONNECTED: return CmStep::disconnected;
    case RDMA_CM_EVENT_DEVICE_REMOVAL: return CmStep::device_removed;
    default: return CmStep::other;
  }
}

// librdmacm answers 0, or -1 with errno.
int error_of(int answer) { return answer == 0 ? 0 : errno; }

rdma_conn_param parameters_of(const CmOffer& offer) {
  rdma_conn_param parameters{};
  parameters.private_data = offer.private_data.data();
  parameters.private_data_len = static_cast<std::uint8_t>(offer.private_data.size());
  parameters.responder_resources = k_reads;
  parameters.initiator_depth = k_reads;
  parameters.retry_count = k_retries;
  parameters.rnr_retry_count = k_retries;
  parameters.srq = offer.shared_receives ? 1 : 0;
  parameters.qp_num = offer.queue_pair;
  return parameters;
}

class LibraryCmCalls final : public CmCalls {
 public:
  rdma_event_channel* create_channel() override {
    rdma_event_channel* const channel = rdma_create_event_channel();
    if (channel == nullptr) return nullptr;
    if (const int flags = ::fcntl(channel->fd, F_GETFL); flags >= 0) ::fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK);
    return channel;
  }
  void destroy_channel(rdma_event_channel* channel) override { rdma_destroy_event_channel(channel); }
  int channel_fd(rdma_event_channel* channel) override { return channel->fd; }
  bool take_event(rdma_event_channel* channel, CmEvent& event) override {
    rdma_cm_event* taken = nullptr;
    if (rdma_get_cm_event(channel, &taken) != 0) return false;
    event = {step_of(taken->event), taken->status, taken->id, {}, 0};
    if (event.step == CmStep::request || event.step == CmStep::response || event.step == CmStep::rejected) {
      const auto& said = taken->param.conn;
      const auto* const bytes = static_cast<const std::byte*>(said.private_data);
      if (bytes != nullptr) event.private_data.assign(bytes, bytes + said.private_data_len);
      event.queue_pair = said.qp_num;
    }
    rdma_ack_cm_event(taken);
    return true;
  }

  rdma_cm_id* create_id(rdma_event_channel* channel) override {
    rdma_cm_id* id = nullptr;
    return rdma_create_id(channel, &id, nullptr, RDMA_PS_TCP) == 0 ? id : nullptr;
  }
  void destroy_id(rdma_cm_id* id) override { rdma_destroy_id(id); }
  int listen(rdma_cm_id* id, sockaddr& at) override {
    const int error = error_of(rdma_bind_addr(id, &at));
    return error != 0 ? error : error_of(rdma_listen(id, k_backlog));
  }
  int local_port(rdma_cm_id* id) override { return ntohs(rdma_get_src_port(id)); }
  std::string device_name(rdma_cm_id* id) override {
    return id->verbs != nullptr ? ibv_get_device_name(id->verbs->device) : "";
  }
  int device_port(rdma_cm_id* id) override { return id->port_num; }

  int resolve_address(rdma_cm_id* id, sockaddr& from, sockaddr& to, int timeout_ms) override {
    return error_of(rdma_resolve_addr(id, &from, &to, timeout_ms));
  }
  int resolve_route(rdma_cm_id* id, int timeout_ms) override { return error_of(rdma_resolve_route(id, timeout_ms)); }
  int connect(rdma_cm_id* id, const CmOffer& offer) override {
    auto parameters = parameters_of(offer);
    return error_of(rdma_connect(id, &parameters));
  }
  int accept(rdma_cm_id* id, const CmOffer& offer) override {
    auto parameters = parameters_of(offer);
    return error_of(rdma_accept(id, &parameters));
  }
  int reject(rdma_cm_id* id) override { return error_of(rdma_reject(id, nullptr, 0)); }
  int establish(rdma_cm_id* id) override { return error_of(rdma_establish(id)); }
  int pair_attributes(rdma_cm_id* id, ibv_qp_attr& attributes, int& mask) override {
    return error_of(rdma_init_qp_attr(id, &attributes, &mask));
  }
};

}  // namespace

CmCalls* library_cm_calls() {
  static LibraryCmCalls calls;
  return &calls;
}

}  // namespace gradrail::verbs

#else

namespace gradrail::verbs {
CmCalls* library_cm_calls() { return nullptr; }
}  // namespace gradrail::verbs

#endif

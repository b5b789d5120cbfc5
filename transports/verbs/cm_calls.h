// The calls of librdmacm that this transport makes, one virtual function each, as calls.h has those of libibverbs;
// tests put a fake in their place, and a build without librdmacm has none. No state, no decisions. An int is 0 or an
// errno, and a null pointer leaves its reason in errno. Nothing blocks, but for destroy_id() while an event of it is
// not yet taken by another thread.
#pragma once

#include <infiniband/verbs.h>
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "transports/base/bytes.h"

struct rdma_cm_id;  // librdmacm's; only their addresses are used here
struct rdma_event_channel;

namespace gradrail::verbs {

enum class CmStep : std::uint8_t {
  address_resolved,
  address_error,
  route_resolved,
  route_error,
  request,  // of a peer, with an id of its own
  response,
  connect_error,
  unreachable,
  rejected,
  established,
  disconnected,
  device_removed,
  other,
};

struct CmEvent {
  CmStep step = CmStep::other;
  int status = 0;  // a negative errno, or with `rejected` the reason's number
  rdma_cm_id* id = nullptr;
  Bytes private_data;            // of a request, a response, a rejection; zeros may follow what was sent
  std::uint32_t queue_pair = 0;  // the peer's, of a request or response
};

// What one side tells the other about its queue pair.
struct CmOffer {
  std::uint32_t queue_pair = 0;
  bool shared_receives = false;
  Bytes private_data;
};

class CmCalls {
 public:
  virtual ~CmCalls() = default;

  // The events of all ids made on a channel come out of it; its descriptor is readable while there are any.
  virtual rdma_event_channel* create_channel() = 0;
  virtual void destroy_channel(rdma_event_channel* channel) = 0;
  virtual int channel_fd(rdma_event_channel* channel) = 0;
  // Takes one event and acknowledges it; false if there is none.
  virtual bool take_event(rdma_event_channel* channel, CmEvent& event) = 0;

  virtual rdma_cm_id* create_id(rdma_event_channel* channel) = 0;
  virtual void destroy_id(rdma_cm_id* id) = 0;
  // At that address, and a port that is free: local_port().
  virtual int listen(rdma_cm_id* id, sockaddr& at) = 0;
  virtual int local_port(rdma_cm_id* id) = 0;
  // Which device and port an id is bound to, once it is.
  virtual std::string device_name(rdma_cm_id* id) = 0;
  virtual int device_port(rdma_cm_id* id) = 0;

  virtual int resolve_address(rdma_cm_id* id, sockaddr& from, sockaddr& to, int timeout_ms) = 0;
  virtual int resolve_route(rdma_cm_id* id, int timeout_ms) = 0;
  virtual int connect(rdma_cm_id* id, const CmOffer& offer) = 0;
  virtual int accept(rdma_cm_id* id, const CmOffer& offer) = 0;
  virtual int reject(rdma_cm_id* id) = 0;
  // The last word of who connected, once its queue pair is ready.
  virtual int establish(rdma_cm_id* id) = 0;
  // What the queue pair needs for attributes.qp_state.
  virtual int pair_attributes(rdma_cm_id* id, ibv_qp_attr& attributes, int& mask) = 0;
};

// Those of the library itself; null in a build without it.
[[nodiscard]] CmCalls* library_cm_calls();

}  // namespace gradrail::verbs

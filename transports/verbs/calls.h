// The calls of libibverbs that this transport makes, one virtual function each, so that what it decides can be tested
// without a device: tests put a fake in their place. No state, no decisions; any thread that libibverbs allows. As
// there, an int is 0 or an errno, and a null pointer leaves its reason in errno.
#pragma once

#include <infiniband/verbs.h>

#include <span>
#include <string>
#include <vector>

namespace gradrail::verbs {

class Calls {
 public:
  virtual ~Calls() = default;

  // Names of all devices; then the opened one of that name.
  virtual int device_names(std::vector<std::string>& names) = 0;
  virtual ibv_context* open_device(const std::string& name) = 0;
  virtual void close_device(ibv_context* context) = 0;
  virtual int query_device(ibv_context* context, ibv_device_attr& attributes) = 0;
  virtual ibv_transport_type transport_type(ibv_context* context) = 0;
  virtual int query_port(ibv_context* context, int port, ibv_port_attr& attributes) = 0;
  // Entries in use, of all ports.
  virtual int query_gids(ibv_context* context, std::vector<ibv_gid_entry>& entries) = 0;

  virtual ibv_pd* alloc_pd(ibv_context* context) = 0;
  virtual void dealloc_pd(ibv_pd* domain) = 0;
  virtual ibv_mr* reg_mr(ibv_pd* domain, void* address, std::size_t bytes, int access) = 0;
  // `offset`: of the first byte, in the dma-buf; the device then knows it by `address`.
  virtual ibv_mr* reg_dmabuf_mr(ibv_pd* domain, std::uint64_t offset, std::size_t bytes, std::uint64_t address, int fd,
                                int access) = 0;
  virtual void dereg_mr(ibv_mr* region) = 0;
  virtual ibv_cq* create_cq(ibv_context* context, int entries, ibv_comp_channel* channel) = 0;
  virtual void destroy_cq(ibv_cq* queue) = 0;
  virtual ibv_qp* create_qp(ibv_pd* domain, ibv_qp_init_attr& attributes) = 0;
  virtual ibv_srq* create_srq(ibv_pd* domain, ibv_srq_init_attr& attributes) = 0;
  virtual void destroy_srq(ibv_srq* queue) = 0;
  virtual int post_srq_recv(ibv_srq* queue, ibv_recv_wr& request) = 0;
  virtual int modify_qp(ibv_qp* pair, ibv_qp_attr& attributes, int mask) = 0;
  virtual void destroy_qp(ibv_qp* pair) = 0;

  virtual int post_send(ibv_qp* pair, ibv_send_wr& request) = 0;
  virtual int post_recv(ibv_qp* pair, ibv_recv_wr& request) = 0;
  // Completions found, or below 0.
  virtual int poll_cq(ibv_cq* queue, std::span<ibv_wc> completions) = 0;

  // Who sleeps is woken by a channel: its descriptor is readable once a queue has a completion after notification was
  // asked for. take_notifications() empties it.
  virtual ibv_comp_channel* create_channel(ibv_context* context) = 0;
  virtual void destroy_channel(ibv_comp_channel* channel) = 0;
  virtual int channel_fd(ibv_comp_channel* channel) = 0;
  virtual int ask_notification(ibv_cq* queue) = 0;
  virtual void take_notifications(ibv_comp_channel* channel) = 0;

  // A descriptor that is readable while there are events; none is taken where it would have to be waited for.
  virtual int event_fd(ibv_context* context) = 0;
  // Takes one event and acknowledges it; false if there is none. Of its element only the address may be looked at.
  virtual bool take_event(ibv_context* context, ibv_async_event& event) = 0;
};

// Those of the library itself.
[[nodiscard]] Calls& library_calls();

}  // namespace gradrail::verbs

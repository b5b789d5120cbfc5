#include "transports/verbs/calls.h"

#include <fcntl.h>

#include <cerrno>

namespace gradrail::verbs {
namespace {

void never_block(int fd) {
  if (const int flags = ::fcntl(fd, F_GETFL); flags >= 0) ::fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

class LibraryCalls final : public Calls {
 public:
  int device_names(std::vector<std::string>& names) override {
    names.clear();
    ibv_device** const list = ibv_get_device_list(nullptr);
    if (list == nullptr) return errno;
    for (ibv_device** one = list; *one != nullptr; ++one) names.emplace_back(ibv_get_device_name(*one));
    ibv_free_device_list(list);
    return 0;
  }
  ibv_context* open_device(const std::string& name) override {
    ibv_device** const list = ibv_get_device_list(nullptr);
    if (list == nullptr) return nullptr;
    ibv_context* context = nullptr;
    int error = ENODEV;
    for (ibv_device** one = list; *one != nullptr && context == nullptr; ++one) {
      if (name != ibv_get_device_name(*one)) continue;
      context = ibv_open_device(*one);
      error = errno;
    }
    ibv_free_device_list(list);
    if (context == nullptr) {
      errno = error;
    } else {
      never_block(context->async_fd);
    }
    return context;
  }
  void close_device(ibv_context* context) override { ibv_close_device(context); }
  int query_device(ibv_context* context, ibv_device_attr& attributes) override {
    return ibv_query_device(context, &attributes);
  }
  ibv_transport_type transport_type(ibv_context* context) override { return context->device->transport_type; }
  int query_port(ibv_context* context, int port, ibv_port_attr& attributes) override {
    return ibv_query_port(context, static_cast<std::uint8_t>(port), &attributes);
  }
  int query_gids(ibv_context* context, std::vector<ibv_gid_entry>& entries) override {
    entries.resize(1024);
    const auto count = ibv_query_gid_table(context, entries.data(), entries.size(), 0);
    entries.resize(count < 0 ? 0 : static_cast<std::size_t>(count));
    return count < 0 ? static_cast<int>(-count) : 0;
  }

  ibv_pd* alloc_pd(ibv_context* context) override { return ibv_alloc_pd(context); }
  void dealloc_pd(ibv_pd* domain) override { ibv_dealloc_pd(domain); }
  ibv_mr* reg_mr(ibv_pd* domain, void* address, std::size_t bytes, int access) override {
    return ibv_reg_mr(domain, address, bytes, access);
  }
  ibv_mr* reg_dmabuf_mr(ibv_pd* domain, std::uint64_t offset, std::size_t bytes, std::uint64_t address, int fd,
                        int access) override {
    return ibv_reg_dmabuf_mr(domain, offset, bytes, address, fd, access);
  }
  void dereg_mr(ibv_mr* region) override { ibv_dereg_mr(region); }
  ibv_cq* create_cq(ibv_context* context, int entries, ibv_comp_channel* channel) override {
    return ibv_create_cq(context, entries, nullptr, channel, 0);
  }
  void destroy_cq(ibv_cq* queue) override { ibv_destroy_cq(queue); }
  ibv_qp* create_qp(ibv_pd* domain, ibv_qp_init_attr& attributes) override {
    return ibv_create_qp(domain, &attributes);
  }
  ibv_srq* create_srq(ibv_pd* domain, ibv_srq_init_attr& attributes) override {
    return ibv_create_srq(domain, &attributes);
  }
  void destroy_srq(ibv_srq* queue) override { ibv_destroy_srq(queue); }
  int post_srq_recv(ibv_srq* queue, ibv_recv_wr& request) override {
    ibv_recv_wr* bad = nullptr;
    return ibv_post_srq_recv(queue, &request, &bad);
  }
  int modify_qp(ibv_qp* pair, ibv_qp_attr& attributes, int mask) override {
    return ibv_modify_qp(pair, &attributes, mask);
  }
  void destroy_qp(ibv_qp* pair) override { ibv_destroy_qp(pair); }

  int post_send(ibv_qp* pair, ibv_send_wr& request) override {
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(pair, &request, &bad);
  }
  int post_recv(ibv_qp* pair, ibv_recv_wr& request) override {
    ibv_recv_wr* bad = nullptr;
    return ibv_post_recv(pair, &request, &bad);
  }
  int poll_cq(ibv_cq* queue, std::span<ibv_wc> completions) override {
    return ibv_poll_cq(queue, static_cast<int>(completions.size()), completions.data());
  }

  ibv_comp_channel* create_channel(ibv_context* context) override {
    ibv_comp_channel* const channel = ibv_create_comp_channel(context);
    if (channel != nullptr) never_block(channel->fd);
    return channel;
  }
  void destroy_channel(ibv_comp_channel* channel) override { ibv_destroy_comp_channel(channel); }
  int channel_fd(ibv_comp_channel* channel) override { return channel->fd; }
  int ask_notification(ibv_cq* queue) override { return ibv_req_notify_cq(queue, 0); }
  void take_notifications(ibv_comp_channel* channel) override {
    ibv_cq* queue = nullptr;
    void* context = nullptr;
    while (ibv_get_cq_event(channel, &queue, &context) == 0) ibv_ack_cq_events(queue, 1);
  }

  int event_fd(ibv_context* context) override { return context->async_fd; }
  bool take_event(ibv_context* context, ibv_async_event& event) override {
    if (ibv_get_async_event(context, &event) != 0) return false;
    ibv_ack_async_event(&event);
    return true;
  }
};

}  // namespace

Calls& library_calls() {
  static LibraryCalls calls;
  return calls;
}

}  // namespace gradrail::verbs

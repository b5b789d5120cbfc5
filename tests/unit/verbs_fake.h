// RDMA devices that exist only in this process: what transports/verbs asks of libibverbs, answered by a wire that
// copies memory. Strict where a real device would be: writes are checked against registrations and keys, a receive
// queue that runs empty is an error, and so is a send queue or completion queue that overflows. Tests set limits and
// break things. One thread at a time (a lock makes it so).
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/verbs/calls.h"

namespace gradrail::testing {

class FakeVerbs final : public verbs::Calls {
 public:
  struct Port {
    ibv_port_state state = IBV_PORT_ACTIVE;
    ibv_mtu mtu = IBV_MTU_4096;
    std::uint8_t link_layer = IBV_LINK_LAYER_ETHERNET;
    std::uint32_t largest_message = 1 << 20;
  };
  struct Machine {
    std::vector<std::string> names{"fake0", "fake1"};
    std::vector<Port> ports{Port{}};
    std::vector<ibv_gid_entry> gids;
    std::uint32_t inline_bytes = 64;  // more is refused
    std::size_t memory = SIZE_MAX;    // bytes that may be registered at once
    int dma_buf_error = EOPNOTSUPP;   // of registering one; 0: they are taken
    // Memory of GPUs: which that is, whether a module tells the device where it lies, and where its bytes are.
    std::function<bool(const void*)> is_gpu = [](const void*) { return false; };
    bool peer_memory = false;
    std::function<std::byte*(std::byte*)> bus = [](std::byte* address) { return address; };
    std::size_t most_pairs = 100;
    int shared_queues = 0;                                       // that may be made
    std::map<std::string, ibv_mtu> mtus;                         // of devices whose ports have another
    std::map<std::string, std::uint8_t> own_links;               // link layers, the same
    std::vector<std::string> iwarp;                              // devices that are of that kind
    std::map<std::string, std::vector<ibv_gid_entry>> own_gids;  // of devices that have others
  };

  FakeVerbs() {
    int ends[2];
    if (::pipe(ends) == 0) event_read_ = Fd(ends[0]), event_write_ = Fd(ends[1]);
  }

  Machine machine;
  // The next so many writes succeed, then one fails with that status, and its queue pair is dead.
  int writes_until_failure = -1;
  ibv_wc_status failure = IBV_WC_RETRY_EXC_ERR;
  std::string failing_device;  // if given, only its writes count and fail
  // Completions of writes are held back until this is false again.
  bool silent = false;
  std::string slow_device;  // nothing is polled there
  int lost_addresses = 0;   // so many times the kernel gets no answer when it asks for a peer's hardware address
  // What went over the wire.
  std::size_t registrations = 0;
  std::size_t writes = 0, in_line = 0, largest_write = 0, asked = 0;
  std::map<std::string, int> pairs_made;            // by device
  std::map<std::string, std::size_t> bytes_sent;    // by device
  std::vector<std::pair<ibv_qp_attr, int>> states;  // all that modify_qp() was given, with the mask
  std::string broken_rule;                          // the first one

  void happen(ibv_event_type type, int port) {
    ibv_async_event event{};
    event.event_type = type;
    event.element.port_num = port;
    events_.push_back(event);
    const char byte = 1;
    if (::write(event_write_.get(), &byte, 1) != 1) broken("the event's pipe");
  }

  int device_names(std::vector<std::string>& names) override {
    names = machine.names;
    return 0;
  }
  ibv_context* open_device(const std::string& name) override {
    for (const auto& one : machine.names) {
      if (one != name) continue;
      const std::lock_guard lock(mutex_);
      auto* const context = new ibv_context{};
      opened_[context].name = name;
      opened_[context].events = Fd(::dup(event_read_.get()));
      return context;
    }
    errno = ENODEV;
    return nullptr;
  }
  void close_device(ibv_context* context) override {
    const std::lock_guard lock(mutex_);
    opened_.erase(context);
    delete context;
  }
  int query_device(ibv_context*, ibv_device_attr& attributes) override {
    attributes.phys_port_cnt = static_cast<std::uint8_t>(machine.ports.size());
    attributes.max_qp = static_cast<int>(machine.most_pairs);
    attributes.max_srq = machine.shared_queues;
    attributes.max_srq_wr = 1000;
    return 0;
  }
  ibv_transport_type transport_type(ibv_context* context) override {
    const std::lock_guard lock(mutex_);
    const auto& iwarp = machine.iwarp;
    const bool is = std::find(iwarp.begin(), iwarp.end(), opened_[context].name) != iwarp.end();
    return is ? IBV_TRANSPORT_IWARP : IBV_TRANSPORT_IB;
  }
  int query_port(ibv_context* context, int port, ibv_port_attr& attributes) override {
    const std::lock_guard lock(mutex_);
    const auto& one = machine.ports[static_cast<std::size_t>(port - 1)];
    attributes.state = one.state;
    const auto mtu = machine.mtus.find(opened_[context].name);
    attributes.active_mtu = mtu == machine.mtus.end() ? one.mtu : mtu->second;
    const auto link = machine.own_links.find(opened_[context].name);
    attributes.link_layer = link == machine.own_links.end() ? one.link_layer : link->second;
    attributes.max_msg_sz = one.largest_message;
    attributes.lid = 7;
    return 0;
  }
  int query_gids(ibv_context* context, std::vector<ibv_gid_entry>& entries) override {
    const std::lock_guard lock(mutex_);
    const auto own = machine.own_gids.find(opened_[context].name);
    entries = own == machine.own_gids.end() ? machine.gids : own->second;
    return 0;
  }

  ibv_pd* alloc_pd(ibv_context* context) override { return new ibv_pd{context, 0}; }
  void dealloc_pd(ibv_pd* domain) override { delete domain; }
  ibv_mr* reg_mr(ibv_pd* domain, void* address, std::size_t bytes, int) override {
    if (machine.is_gpu(address) && !machine.peer_memory) {
      errno = EFAULT;
      return nullptr;
    }
    return registered(domain, address, bytes);
  }
  ibv_mr* reg_dmabuf_mr(ibv_pd* domain, std::uint64_t, std::size_t bytes, std::uint64_t address, int, int) override {
    if (machine.dma_buf_error != 0) {
      errno = machine.dma_buf_error;
      return nullptr;
    }
    return registered(domain, reinterpret_cast<void*>(address), bytes);
  }
  ibv_mr* registered(ibv_pd* domain, void* address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > machine.memory - registered_) {
      errno = ENOMEM;
      return nullptr;
    }
    registered_ += bytes;
    ++registrations;
    auto* const region = new ibv_mr{domain->context, domain, address, bytes, 0, next_, next_ + 1};
    next_ += 2;
    regions_[region->lkey] = regions_[region->rkey] = region;
    return region;
  }
  void dereg_mr(ibv_mr* region) override {
    const std::lock_guard lock(mutex_);
    registered_ -= region->length;
    regions_.erase(region->lkey), regions_.erase(region->rkey);
    delete region;
  }
  ibv_cq* create_cq(ibv_context* context, int entries, ibv_comp_channel*) override {
    auto* const queue = new Queue;
    queue->cq.context = context;
    queue->cq.cqe = entries;
    return &queue->cq;
  }
  void destroy_cq(ibv_cq* queue) override { delete reinterpret_cast<Queue*>(queue); }
  ibv_qp* create_qp(ibv_pd* domain, ibv_qp_init_attr& attributes) override {
    const std::lock_guard lock(mutex_);
    if (attributes.cap.max_inline_data > machine.inline_bytes) {
      errno = EINVAL;
      return nullptr;
    }
    if (pairs_.size() >= machine.most_pairs) {
      errno = ENOMEM;
      return nullptr;
    }
    auto* const pair = new Pair;
    pair->device = opened_[domain->context].name;
    ++pairs_made[pair->device];
    pair->shared = reinterpret_cast<SharedQueue*>(attributes.srq);
    pair->qp.pd = domain;
    pair->qp.qp_num = next_++;
    pair->qp.state = IBV_QPS_RESET;
    pair->queue = reinterpret_cast<Queue*>(attributes.send_cq);
    pair->cap = attributes.cap;
    pairs_[pair->qp.qp_num] = pair;
    return &pair->qp;
  }
  ibv_srq* create_srq(ibv_pd* domain, ibv_srq_init_attr& attributes) override {
    const std::lock_guard lock(mutex_);
    if (--machine.shared_queues < 0) {
      errno = ENOMEM;
      return nullptr;
    }
    auto* const queue = new SharedQueue;
    queue->srq.pd = domain;
    queue->capacity = attributes.attr.max_wr;
    ++shared_queues_;
    return &queue->srq;
  }
  void destroy_srq(ibv_srq* queue) override {
    const std::lock_guard lock(mutex_);
    --shared_queues_;
    delete reinterpret_cast<SharedQueue*>(queue);
  }
  int post_srq_recv(ibv_srq* srq, ibv_recv_wr& request) override {
    const std::lock_guard lock(mutex_);
    auto& queue = *reinterpret_cast<SharedQueue*>(srq);
    for (const auto* one = &request; one != nullptr; one = one->next) ++queue.receives;
    if (queue.receives > queue.capacity) broken("the shared receive queue overflows");
    return 0;
  }
  int modify_qp(ibv_qp* qp, ibv_qp_attr& attributes, int mask) override {
    const std::lock_guard lock(mutex_);
    states.emplace_back(attributes, mask);
    auto* const pair = reinterpret_cast<Pair*>(qp);
    if (attributes.qp_state == IBV_QPS_RTR && lost_addresses > 0) return --lost_addresses, ETIMEDOUT;
    qp->state = attributes.qp_state;
    if (attributes.qp_state == IBV_QPS_RTR) pair->peer = attributes.dest_qp_num;
    return 0;
  }
  void destroy_qp(ibv_qp* qp) override {
    const std::lock_guard lock(mutex_);
    pairs_.erase(qp->qp_num);
    delete reinterpret_cast<Pair*>(qp);
  }

  int post_send(ibv_qp* qp, ibv_send_wr& request) override {
    const std::lock_guard lock(mutex_);
    auto* const pair = reinterpret_cast<Pair*>(qp);
    const bool signaled = (request.send_flags & IBV_SEND_SIGNALED) != 0;
    if (qp->state != IBV_QPS_RTS) return broken("a write before the pair is connected"), EINVAL;
    // Entries are free again only when a completion that came after them was polled.
    if (++pair->unpolled > pair->cap.max_send_wr) broken("the send queue overflows");
    pair->sent.push_back(request.wr_id);
    const std::size_t bytes = request.num_sge > 0 ? request.sg_list->length : 0;
    ++writes;
    bytes_sent[pair->device] += bytes;
    asked += signaled ? 1 : 0;
    largest_write = std::max(largest_write, bytes);
    const bool in_line_now = (request.send_flags & IBV_SEND_INLINE) != 0;  // the CPU reads it
    if (in_line_now) {
      ++in_line;
      if (bytes > machine.inline_bytes) broken("more in line than the device takes");
    } else if (bytes > 0 && !covers(qp->pd, request.sg_list->lkey, request.sg_list->addr, bytes)) {
      return complete(*pair, request.wr_id, IBV_WC_LOC_PROT_ERR), 0;
    }
    if (failing_device.empty() || failing_device == pair->device) {
      if (writes_until_failure == 0) return complete(*pair, request.wr_id, failure), 0;
      if (writes_until_failure > 0) --writes_until_failure;
    }
    const auto peer = pairs_.find(pair->peer);
    if (peer == pairs_.end()) return complete(*pair, request.wr_id, IBV_WC_RETRY_EXC_ERR), 0;
    if (bytes > machine.ports.front().largest_message) return complete(*pair, request.wr_id, IBV_WC_LOC_LEN_ERR), 0;
    if (request.opcode == IBV_WR_SEND) return send(*pair, *peer->second, request, bytes, signaled), 0;
    if (!covers(peer->second->qp.pd, request.wr.rdma.rkey, request.wr.rdma.remote_addr, bytes))
      return complete(*pair, request.wr_id, IBV_WC_REM_ACCESS_ERR), 0;
    if (request.opcode == IBV_WR_RDMA_READ) {
      std::memcpy(reinterpret_cast<void*>(request.sg_list->addr),
                  reinterpret_cast<const void*>(request.wr.rdma.remote_addr), bytes);
    } else if (bytes > 0)
      std::memcpy(machine.bus(reinterpret_cast<std::byte*>(request.wr.rdma.remote_addr)),
                  in_line_now ? reinterpret_cast<const std::byte*>(request.sg_list->addr)
                              : machine.bus(reinterpret_cast<std::byte*>(request.sg_list->addr)),
                  bytes);
    if (request.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
      auto& other = *peer->second;
      auto& receives = other.shared != nullptr ? other.shared->receives : other.receives;
      if (receives == 0) {
        broken("the receive queue ran empty");
        return complete(*pair, request.wr_id, IBV_WC_RNR_RETRY_EXC_ERR), 0;
      }
      --receives;
      ibv_wc arrived{};
      arrived.opcode = IBV_WC_RECV_RDMA_WITH_IMM;
      arrived.imm_data = request.imm_data;
      push(*other.queue, arrived, nullptr);
    }
    if (signaled) complete(*pair, request.wr_id, IBV_WC_SUCCESS);
    return 0;
  }
  int post_recv(ibv_qp* qp, ibv_recv_wr& request) override {
    const std::lock_guard lock(mutex_);
    auto* const pair = reinterpret_cast<Pair*>(qp);
    for (const auto* one = &request; one != nullptr; one = one->next) {
      ++pair->receives;
      if (one->num_sge > 0) pair->landings.push_back({one->wr_id, *one->sg_list});
    }
    if (pair->receives > pair->cap.max_recv_wr) broken("the receive queue overflows");
    return 0;
  }
  int poll_cq(ibv_cq* cq, std::span<ibv_wc> completions) override {
    const std::lock_guard lock(mutex_);
    auto& entries = reinterpret_cast<Queue*>(cq)->entries;
    if (!slow_device.empty() && opened_[cq->context].name == slow_device) return 0;
    std::size_t count = 0;
    for (auto one = entries.begin(); one != entries.end() && count < completions.size();) {
      if (silent && one->pair != nullptr) {
        ++one;
        continue;
      }
      completions[count++] = one->completion;
      if (one->pair != nullptr) {
        auto& sent = one->pair->sent;
        while (!sent.empty() && sent.front() <= one->completion.wr_id) sent.pop_front(), --one->pair->unpolled;
      }
      one = entries.erase(one);
    }
    return static_cast<int>(count);
  }

  ibv_comp_channel* create_channel(ibv_context* context) override {
    int ends[2] = {-1, -1};
    if (::pipe(ends) != 0) return nullptr;
    channel_ends_[ends[0]] = Fd(ends[1]);
    return new ibv_comp_channel{context, ends[0], 0};
  }
  void destroy_channel(ibv_comp_channel* channel) override {
    const Fd end(channel->fd);
    channel_ends_.erase(channel->fd);
    delete channel;
  }
  int channel_fd(ibv_comp_channel* channel) override { return channel->fd; }
  int ask_notification(ibv_cq*) override { return 0; }  // nobody sleeps here
  void take_notifications(ibv_comp_channel*) override {}

  int event_fd(ibv_context* context) override { return opened_[context].events.get(); }
  bool take_event(ibv_context*, ibv_async_event& event) override {
    const std::lock_guard lock(mutex_);
    if (events_.empty()) return false;
    event = events_.front();
    events_.pop_front();
    return true;
  }

  // Bytes that are registered now.
  [[nodiscard]] std::size_t registered_bytes() const { return registered_; }
  // Everything that was made has been given back.
  [[nodiscard]] bool empty() const { return regions_.empty() && pairs_.empty() && shared_queues_ == 0; }

 private:
  struct Pair;
  struct Entry {
    ibv_wc completion;
    Pair* pair;  // of a write; null for a receive
  };
  struct Queue {
    ibv_cq cq{};
    std::deque<Entry> entries;
  };
  struct SharedQueue {
    ibv_srq srq{};
    std::size_t capacity = 0;
    std::size_t receives = 0;
  };
  struct Pair {
    ibv_qp qp{};
    std::string device;
    SharedQueue* shared = nullptr;
    Queue* queue = nullptr;
    ibv_qp_cap cap{};
    std::uint32_t peer = 0;
    std::size_t receives = 0;
    std::deque<std::pair<std::uint64_t, ibv_sge>> landings;  // of receives that have a place
    std::size_t unpolled = 0;
    std::deque<std::uint64_t> sent;
  };

  void broken(const char* rule) {
    if (broken_rule.empty()) broken_rule = rule;
  }
  [[nodiscard]] bool covers(const ibv_pd* domain, std::uint32_t key, std::uint64_t address, std::size_t bytes) const {
    if (bytes == 0) return true;
    const auto found = regions_.find(key);
    if (found == regions_.end() || found->second->pd != domain) return false;
    const auto begin = reinterpret_cast<std::uint64_t>(found->second->addr);
    return address >= begin && bytes <= found->second->length && address - begin <= found->second->length - bytes;
  }
  void push(Queue& queue, const ibv_wc& completion, Pair* pair) {
    queue.entries.push_back({completion, pair});
    if (queue.entries.size() > static_cast<std::size_t>(queue.cq.cqe)) broken("the completion queue overflows");
  }
  // Into the place of a receive that the other side posted.
  void send(Pair& pair, Pair& other, const ibv_send_wr& request, std::size_t bytes, bool signaled) {
    if (other.landings.empty()) {
      broken("the receive queue ran empty");
      return complete(pair, request.wr_id, IBV_WC_RNR_RETRY_EXC_ERR);
    }
    const auto [id, place] = other.landings.front();
    other.landings.pop_front();
    --other.receives;
    if (bytes > place.length || !covers(other.qp.pd, place.lkey, place.addr, bytes))
      return complete(pair, request.wr_id, IBV_WC_REM_OP_ERR);
    std::memcpy(reinterpret_cast<void*>(place.addr), reinterpret_cast<const void*>(request.sg_list->addr), bytes);
    ibv_wc arrived{};
    arrived.wr_id = id;
    arrived.opcode = IBV_WC_RECV;
    push(*other.queue, arrived, nullptr);
    if (signaled) complete(pair, request.wr_id, IBV_WC_SUCCESS);
  }
  void complete(Pair& pair, std::uint64_t id, ibv_wc_status status) {
    ibv_wc completion{};
    completion.wr_id = id;
    completion.status = status;
    completion.opcode = IBV_WC_RDMA_WRITE;
    push(*pair.queue, completion, &pair);
  }

  std::mutex mutex_;
  Fd event_read_, event_write_;
  std::uint32_t next_ = 16;
  std::size_t registered_ = 0;
  int shared_queues_ = 0;
  struct Opened {
    std::string name;
    Fd events;
  };
  std::map<ibv_context*, Opened> opened_;
  std::map<std::uint32_t, ibv_mr*> regions_;
  std::map<std::uint32_t, Pair*> pairs_;
  std::map<int, Fd> channel_ends_;
  std::deque<ibv_async_event> events_;
};

// An entry of a GID table: IPv4-mapped from its last four bytes, or as given.
inline ibv_gid_entry gid_entry(std::uint32_t index, ibv_gid_type type, std::initializer_list<std::uint8_t> address) {
  ibv_gid_entry entry{};
  entry.gid_index = index;
  entry.port_num = 1;
  entry.gid_type = type;
  if (address.size() == 4) entry.gid.raw[10] = entry.gid.raw[11] = 0xff;
  std::copy(address.begin(), address.end(), entry.gid.raw + (address.size() == 4 ? 12 : 0));
  return entry;
}

}  // namespace gradrail::testing

#include "transports/verbs/queue_pair.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transports/base/check.h"
#include "transports/secret.h"

namespace gradrail::verbs {
namespace {

constexpr int k_rnr_retry = 6;       // credits keep the receive queue from running empty, so this is for bugs only
constexpr int k_min_rnr_timer = 12;  // 0.64 ms
constexpr std::uint8_t k_hop_limit = 64;
// For RoCE the kernel asks for the peer's hardware address when a queue pair connects, for about a second. The question
// or its answer may be lost on a bad wire.
constexpr int k_address_tries = 4;

ibv_gid gid_of(const Introduction& peer) {
  ibv_gid gid;
  gid.global.subnet_prefix = peer.gid_high;
  gid.global.interface_id = peer.gid_low;
  return gid;
}

}  // namespace

Result<std::unique_ptr<QueuePair>> QueuePair::make(Device& device, std::size_t ring_bytes) {
  std::unique_ptr<QueuePair> self(new QueuePair(device, ring_bytes));
  GRADRAIL_TRY(self->create());
  return self;
}

Result<void> QueuePair::create() {
  void* memory = ::mmap(nullptr, layout_.total_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return fail_errno("allocating a landing area", errno);
  landing_ = static_cast<std::byte*>(memory);
  GRADRAIL_ASSIGN(region_, device_.register_memory(landing_, layout_.total_bytes()));
  completions_ = calls_.create_cq(device_.context(), static_cast<int>(k_sends + k_receives), device_.channel());
  if (completions_ == nullptr)
    return fail_errno(fmt::format("making a completion queue on {}", device_.where()), errno);
  GRADRAIL_TRY(create_pair());
  largest_write_ = std::clamp<std::size_t>(device_.port_attributes().max_msg_sz, 4096, 1 << 30);

  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = static_cast<std::uint8_t>(device_.port());
  attributes.qp_access_flags = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;
  const int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  if (const int error = calls_.modify_qp(pair_, attributes, mask); error != 0)
    return fail_errno(fmt::format("preparing a queue pair on {}", device_.where()), error);

  for (std::size_t i = 0; i + 1 < receives_.size(); ++i) receives_[i].next = &receives_[i + 1];
  for (std::size_t posted = 0; posted < k_receives; posted += k_repost_batch)
    if (const int error = repost(); error != 0)
      return fail_errno(fmt::format("posting receives on {}", device_.where()), error);

  GRADRAIL_ASSIGN(const auto nonce, Secret::nonce());
  std::memcpy(&packet_number_, nonce.data(), sizeof packet_number_);
  packet_number_ &= 0xff'ffff;
  return {};
}

Result<void> QueuePair::create_pair() {
  ibv_qp_init_attr attributes{};
  attributes.send_cq = completions_;
  attributes.recv_cq = completions_;
  attributes.qp_type = IBV_QPT_RC;
  // Devices do not say how much they take in line; they refuse what is too much.
  auto in_line = static_cast<std::uint32_t>(device_.options().inline_bytes);
  for (;;) {
    attributes.cap = {k_sends, k_receives, 1, 1, in_line};
    pair_ = calls_.create_qp(device_.domain(), attributes);
    if (pair_ != nullptr) break;
    const int error = errno;
    if (in_line == 0) {
      const auto most = device_.attributes().max_qp;
      return fail(
          error == ENOMEM ? Code::exhausted : Code::system,
          fmt::format("{} gave no queue pair ({}); it has {} in all, and each pipe takes one with {} sends and {} "
                      "receives: use fewer lanes, fewer ranks a device, or more devices",
                      device_.where(), std::strerror(error), most, k_sends, k_receives),
          Error::k_no_peer, error);
    }
    in_line = in_line > 32 ? in_line / 2 : 0;
  }
  inline_bytes_ = std::min<std::size_t>(attributes.cap.max_inline_data, in_line);
  return {};
}

QueuePair::~QueuePair() {
  if (pair_ != nullptr) calls_.destroy_qp(pair_);
  if (completions_ != nullptr) calls_.destroy_cq(completions_);
  if (region_ != nullptr) calls_.dereg_mr(region_);
  if (landing_ != nullptr) ::munmap(landing_, layout_.total_bytes());
}

void QueuePair::introduce(Introduction& self) const {
  const auto& port = device_.port_attributes();
  self.ethernet = port.link_layer == IBV_LINK_LAYER_ETHERNET ? 1 : 0;
  self.global = device_.gid().global ? 1 : 0;
  self.mtu = static_cast<std::uint8_t>(device_.mtu());
  self.lid = port.lid;
  self.queue_pair = pair_->qp_num;
  self.packet_number = packet_number_;
  self.gid_high = device_.gid().gid.global.subnet_prefix;
  self.gid_low = device_.gid().gid.global.interface_id;
  self.landing = reinterpret_cast<std::uintptr_t>(landing_);
  self.landing_key = region_->rkey;
  self.ring_bytes = layout_.ring_bytes;
}

Result<void> QueuePair::connect(const Introduction& peer) {
  Introduction self;
  introduce(self);
  if (self.ethernet != peer.ethernet || self.global != peer.global)
    return fail(Code::bad_usage,
                fmt::format("{} is {}, the peer's device is not; choose devices of one network with the verbs setting "
                            "device, and GIDs on all ranks or on none",
                            device_.where(),
                            self.ethernet != 0 ? "RoCE"
                            : self.global != 0 ? "InfiniBand with a GID"
                                               : "InfiniBand by LID"));
  if (peer.mtu < IBV_MTU_256 || peer.mtu > IBV_MTU_4096)
    return fail(Code::malformed, "the peer names a path MTU that does not exist");
  const auto& options = device_.options();

  ibv_qp_attr ready{};
  ready.qp_state = IBV_QPS_RTR;
  ready.path_mtu = std::min(device_.mtu(), static_cast<ibv_mtu>(peer.mtu));
  ready.dest_qp_num = peer.queue_pair;
  ready.rq_psn = peer.packet_number;
  ready.max_dest_rd_atomic = 1;
  ready.min_rnr_timer = k_min_rnr_timer;
  ready.ah_attr.dlid = peer.lid;
  ready.ah_attr.sl = static_cast<std::uint8_t>(options.service_level);
  ready.ah_attr.port_num = static_cast<std::uint8_t>(device_.port());
  if (peer.global != 0) {
    ready.ah_attr.is_global = 1;
    ready.ah_attr.grh.dgid = gid_of(peer);
    ready.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(device_.gid().index);
    ready.ah_attr.grh.hop_limit = k_hop_limit;
    ready.ah_attr.grh.traffic_class = static_cast<std::uint8_t>(options.traffic_class);
  }
  int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
             IBV_QP_MIN_RNR_TIMER;
  int error = 0;
  for (int tries = 0; tries < k_address_tries; ++tries)
    if (error = calls_.modify_qp(pair_, ready, mask); error != ETIMEDOUT) break;
  if (error != 0)
    return fail_errno(
        fmt::format("connecting a queue pair of {} to {}; is there a route between the two?", device_.describe(),
                    peer.global != 0 ? to_text(gid_of(peer)) : fmt::format("LID {}", peer.lid)),
        error);

  ibv_qp_attr sending{};
  sending.qp_state = IBV_QPS_RTS;
  sending.timeout = static_cast<std::uint8_t>(options.timeout);
  sending.retry_cnt = static_cast<std::uint8_t>(options.retry);
  sending.rnr_retry = k_rnr_retry;
  sending.sq_psn = packet_number_;
  sending.max_rd_atomic = 1;
  mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
  if (error = calls_.modify_qp(pair_, sending, mask); error != 0)
    return fail_errno(fmt::format("starting a queue pair on {}", device_.where()), error);
  return {};
}

void QueuePair::stop() {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  static_cast<void>(calls_.modify_qp(pair_, attributes, IBV_QP_STATE));
}

int QueuePair::write(const Write& write) {
  GRADRAIL_CHECK(room() > 0);
  const std::uint64_t number = posted_ + 1;
  ibv_sge piece{reinterpret_cast<std::uintptr_t>(write.from), static_cast<std::uint32_t>(write.bytes), write.local_key};
  ibv_send_wr request{};
  request.wr_id = number;
  request.sg_list = &piece;
  request.num_sge = write.bytes > 0 ? 1 : 0;
  request.opcode = write.immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
  if (write.immediate) request.imm_data = *write.immediate;
  if (write.complete || number - asked_ >= k_sends / 4) request.send_flags |= IBV_SEND_SIGNALED;
  if (write.bytes > 0 && write.bytes <= inline_bytes_) request.send_flags |= IBV_SEND_INLINE;
  request.wr.rdma.remote_addr = write.to;
  request.wr.rdma.rkey = write.remote_key;
  if (const int error = calls_.post_send(pair_, request); error != 0) return error;
  posted_ = number;
  if ((request.send_flags & IBV_SEND_SIGNALED) != 0) asked_ = number;
  return 0;
}

int QueuePair::repost() {
  to_repost_ = 0;
  return calls_.post_recv(pair_, receives_.front());
}

const ibv_wc& QueuePair::broken() {
  results_[0] = {};
  results_[0].status = IBV_WC_GENERAL_ERR;
  return results_[0];
}

}  // namespace gradrail::verbs

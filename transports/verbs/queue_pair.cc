#include "transports/verbs/queue_pair.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "transports/base/check.h"

namespace gradrail::verbs {

Result<std::unique_ptr<QueuePair>> QueuePair::make(Device& device, std::size_t rail, std::size_t receives,
                                                   SharedReceives* shared) {
  GRADRAIL_CHECK(receives % k_repost_batch == 0);
  std::unique_ptr<QueuePair> self(new QueuePair(device, rail));
  GRADRAIL_TRY(self->create(receives, shared));
  return self;
}

Result<void> QueuePair::create(std::size_t receives, SharedReceives* shared) {
  if (shared != nullptr) {
    GRADRAIL_ASSIGN(share_, shared->take(receives));
  }
  completions_ = calls_.create_cq(device_.context(), static_cast<int>(k_sends + receives), device_.channel());
  if (completions_ == nullptr)
    return fail_errno(fmt::format("making a completion queue on {}", device_.where()), errno);
  GRADRAIL_TRY(create_pair(receives));
  largest_write_ = std::clamp<std::size_t>(device_.port_attributes().max_msg_sz, 4096, 1 << 30);

  GRADRAIL_TRY(prepare_pair(device_, pair_, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE));
  for (std::size_t i = 0; i + 1 < receives_.size(); ++i) receives_[i].next = &receives_[i + 1];
  for (std::size_t posted = 0; !share_ && posted < receives; posted += k_repost_batch)
    if (const int error = repost(); error != 0)
      return fail_errno(fmt::format("posting receives on {}", device_.where()), error);

  GRADRAIL_ASSIGN(packet_number_, new_packet_number());
  return {};
}

Result<void> QueuePair::create_pair(std::size_t receives) {
  ibv_qp_init_attr attributes{};
  attributes.send_cq = completions_;
  attributes.recv_cq = completions_;
  attributes.srq = share_.queue();
  attributes.qp_type = IBV_QPT_RC;
  attributes.cap = {k_sends, static_cast<std::uint32_t>(share_ ? 0 : receives), 1, 1, 0};
  GRADRAIL_ASSIGN(pair_, make_pair(device_, attributes));
  inline_bytes_ = attributes.cap.max_inline_data;
  return {};
}

QueuePair::~QueuePair() {
  if (pair_ != nullptr && share_) return_receives();
  if (pair_ != nullptr) calls_.destroy_qp(pair_);
  if (completions_ != nullptr) calls_.destroy_cq(completions_);
}

// What this queue pair used up of the shared receives is posted again, for others.
void QueuePair::return_receives() {
  stop();
  for (int count = 1; count > 0;) {
    count = calls_.poll_cq(completions_, results_);
    for (int i = 0; i < count; ++i) to_repost_ += results_[static_cast<std::size_t>(i)].wr_id == 0 ? 1 : 0;
  }
  for (; to_repost_ > 0; --to_repost_)
    if (share_.post(receives_.back()) != 0) return;
}

PairIntroduction QueuePair::introduce() const {
  auto self = introduce_device(device_);
  self.rail = static_cast<std::uint8_t>(rail_);
  self.queue_pair = pair_->qp_num;
  self.packet_number = packet_number_;
  return self;
}

Result<void> QueuePair::connect(const PairIntroduction& peer) {
  return connect_pair(device_, pair_, {.packet_number = packet_number_}, peer);
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
  if (write.bytes > 0 && write.bytes <= inline_bytes_ && !write.out_of_line) request.send_flags |= IBV_SEND_INLINE;
  request.wr.rdma.remote_addr = write.to;
  request.wr.rdma.rkey = write.remote_key;
  if (const int error = calls_.post_send(pair_, request); error != 0) return error;
  posted_ = number;
  if ((request.send_flags & IBV_SEND_SIGNALED) != 0) asked_ = number;
  return 0;
}

int QueuePair::repost() {
  to_repost_ = 0;
  return share_ ? share_.post(receives_.front()) : calls_.post_recv(pair_, receives_.front());
}

const ibv_wc& QueuePair::broken() {
  results_[0] = {};
  results_[0].status = IBV_WC_GENERAL_ERR;
  return results_[0];
}

}  // namespace gradrail::verbs

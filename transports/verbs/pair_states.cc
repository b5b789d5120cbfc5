#include "transports/verbs/pair_states.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "transports/secret.h"

namespace gradrail::verbs {
namespace {

constexpr int k_min_rnr_timer = 12;  // 0.64 ms
constexpr std::uint8_t k_hop_limit = 64;
// For RoCE the kernel asks for the peer's hardware address when a queue pair connects, for about a second. The question
// or its answer may be lost on a bad wire.
constexpr int k_address_tries = 4;

ibv_gid gid_of(const PairIntroduction& peer) {
  ibv_gid gid;
  gid.global.subnet_prefix = peer.gid_high;
  gid.global.interface_id = peer.gid_low;
  return gid;
}

}  // namespace

Result<std::uint32_t> new_packet_number() {
  GRADRAIL_ASSIGN(const auto nonce, Secret::nonce());
  std::uint32_t number = 0;
  std::memcpy(&number, nonce.data(), sizeof number);
  return number & 0xff'ffff;
}

Result<ibv_qp*> make_pair(const Device& device, ibv_qp_init_attr& wish) {
  const ibv_qp_cap cap = wish.cap;
  // Devices do not say how much they take in line; they refuse what is too much.
  auto in_line = static_cast<std::uint32_t>(device.options().inline_bytes);
  for (;;) {
    wish.cap = cap;
    wish.cap.max_inline_data = in_line;
    if (ibv_qp* const pair = device.calls().create_qp(device.domain(), wish)) {
      wish.cap.max_inline_data = std::min(wish.cap.max_inline_data, in_line);
      return pair;
    }
    const int error = errno;
    if (in_line == 0)
      return fail(
          error == ENOMEM ? Code::exhausted : Code::system,
          fmt::format("{} gave no queue pair ({}); it has {} in all, and each pipe takes one, or as many as the verbs "
                      "setting pairs says, with {} sends and {} receives: use fewer lanes or pairs, fewer ranks a "
                      "device, or more devices",
                      device.where(), std::strerror(error), device.attributes().max_qp, cap.max_send_wr,
                      cap.max_recv_wr),
          Error::k_no_peer, error);
    in_line = in_line > 32 ? in_line / 2 : 0;
  }
}

Result<void> prepare_pair(const Device& device, ibv_qp* pair, int access) {
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_INIT;
  attributes.port_num = static_cast<std::uint8_t>(device.port());
  attributes.qp_access_flags = static_cast<unsigned>(access);
  const int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  if (const int error = device.calls().modify_qp(pair, attributes, mask); error != 0)
    return fail_errno(fmt::format("preparing a queue pair on {}", device.where()), error);
  return {};
}

PairIntroduction introduce_device(const Device& device) {
  PairIntroduction self;
  const auto& port = device.port_attributes();
  self.ethernet = port.link_layer == IBV_LINK_LAYER_ETHERNET ? 1 : 0;
  self.global = device.gid().global ? 1 : 0;
  self.mtu = static_cast<std::uint8_t>(device.mtu());
  self.lid = port.lid;
  self.gid_high = device.gid().gid.global.subnet_prefix;
  self.gid_low = device.gid().gid.global.interface_id;
  return self;
}

namespace {

Result<void> fits(const Device& device, const PairIntroduction& peer) {
  const auto self = introduce_device(device);
  if (self.ethernet != peer.ethernet || self.global != peer.global)
    return fail(Code::bad_usage,
                fmt::format("{} is {}, the peer's device is not; choose devices of one network with the verbs setting "
                            "device, and GIDs on all ranks or on none",
                            device.where(),
                            self.ethernet != 0 ? "RoCE"
                            : self.global != 0 ? "InfiniBand with a GID"
                                               : "InfiniBand by LID"));
  if (peer.mtu < IBV_MTU_256 || peer.mtu > IBV_MTU_4096)
    return fail(Code::malformed, "the peer names a path MTU that does not exist");
  const int mtu = bytes_of(static_cast<ibv_mtu>(peer.mtu));
  if (device.options().mtu > mtu)
    return fail(
        Code::bad_usage,
        fmt::format("a path MTU of {} bytes was asked for {}, and the peer's device takes {}; give both the same "
                    "MTU, or leave out the verbs setting mtu: then the smaller one is used",
                    device.options().mtu, device.where(), mtu));
  return {};
}

Result<void> walk(const Device& device, ibv_qp* pair, PairStates& states, const PairIntroduction& peer) {
  int error = 0;
  for (int tries = 0; tries < k_address_tries; ++tries)
    if (error = device.calls().modify_qp(pair, states.ready, states.ready_mask); error != ETIMEDOUT) break;
  if (error != 0)
    return fail_errno(
        fmt::format("connecting a queue pair of {} to {}; is there a route between the two?", device.describe(),
                    peer.global != 0 ? to_text(gid_of(peer)) : fmt::format("LID {}", peer.lid)),
        error);
  if (error = device.calls().modify_qp(pair, states.sending, states.sending_mask); error != 0)
    return fail_errno(fmt::format("starting a queue pair on {}", device.where()), error);
  return {};
}

}  // namespace

Result<void> connect_pair(const Device& device, ibv_qp* pair, const PairStart& start, const PairIntroduction& peer) {
  GRADRAIL_TRY(fits(device, peer));
  const auto& options = device.options();
  PairStates states;
  auto& ready = states.ready;
  ready.qp_state = IBV_QPS_RTR;
  ready.path_mtu = std::min(device.mtu(), static_cast<ibv_mtu>(peer.mtu));
  ready.dest_qp_num = peer.queue_pair;
  ready.rq_psn = peer.packet_number;
  ready.max_dest_rd_atomic = static_cast<std::uint8_t>(start.reads);
  ready.min_rnr_timer = k_min_rnr_timer;
  ready.ah_attr.dlid = peer.lid;
  ready.ah_attr.sl = static_cast<std::uint8_t>(options.service_level);
  ready.ah_attr.port_num = static_cast<std::uint8_t>(device.port());
  if (peer.global != 0) {
    ready.ah_attr.is_global = 1;
    ready.ah_attr.grh.dgid = gid_of(peer);
    ready.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(device.gid().index);
    ready.ah_attr.grh.hop_limit = k_hop_limit;
    ready.ah_attr.grh.traffic_class = static_cast<std::uint8_t>(options.traffic_class);
  }
  states.ready_mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;

  auto& sending = states.sending;
  sending.qp_state = IBV_QPS_RTS;
  sending.timeout = static_cast<std::uint8_t>(options.timeout);
  sending.retry_cnt = static_cast<std::uint8_t>(options.retry);
  sending.rnr_retry = static_cast<std::uint8_t>(start.rnr_retry);
  sending.sq_psn = start.packet_number;
  sending.max_rd_atomic = static_cast<std::uint8_t>(start.reads);
  states.sending_mask =
      IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;
  return walk(device, pair, states, peer);
}

Result<void> connect_pair(const Device& device, ibv_qp* pair, const PairStates& states, const PairIntroduction& peer) {
  GRADRAIL_TRY(fits(device, peer));
  const auto& options = device.options();
  PairStates own = states;
  own.ready.path_mtu = std::min({own.ready.path_mtu, device.mtu(), static_cast<ibv_mtu>(peer.mtu)});
  own.ready.min_rnr_timer = k_min_rnr_timer;
  // rdma_cm knows the fabric's own choice of these.
  if (options.service_level != 0) own.ready.ah_attr.sl = static_cast<std::uint8_t>(options.service_level);
  if (options.traffic_class != 0)
    own.ready.ah_attr.grh.traffic_class = static_cast<std::uint8_t>(options.traffic_class);
  own.sending.timeout = static_cast<std::uint8_t>(options.timeout);
  own.sending.retry_cnt = static_cast<std::uint8_t>(options.retry);
  own.sending.rnr_retry = static_cast<std::uint8_t>(PairStart{}.rnr_retry);
  return walk(device, pair, own, peer);
}

}  // namespace gradrail::verbs

#include "transports/verbs/bare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>

#include "transports/base/check.h"
#include "transports/meet.h"
#include "transports/verbs/cause.h"
#include "transports/verbs/pair_states.h"
#include "transports/verbs/transport.h"

namespace gradrail::verbs {
namespace {

constexpr std::size_t k_buffer_grain = 4096;
constexpr std::size_t k_batch = 16;  // receives posted again at once
constexpr int k_for_ever = 7;        // as PairStart::rnr_retry
constexpr std::size_t k_terms_bytes = sizeof(std::uint8_t) + sizeof(std::uint64_t) + sizeof(std::uint8_t);

constexpr ibv_wr_opcode opcode_of(Operation operation) {
  switch (operation) {
    case Operation::write: return IBV_WR_RDMA_WRITE;
    case Operation::send: return IBV_WR_SEND;
    case Operation::read: break;
  }
  return IBV_WR_RDMA_READ;
}

struct OneOpening final : Conversation {
  OneOpening(VerbsBare& of, std::size_t queue_pair, int self) : bare(of), pair(queue_pair), rank(self) {}
  Result<Bytes> introduce() override { return bare.introduce(pair, rank); }
  Result<void> agree(std::span<const std::byte> introduction) override { return bare.connect(pair, introduction); }

  VerbsBare& bare;
  std::size_t pair;
  int rank;
};

std::size_t rounded(std::size_t bytes) {
  return std::max<std::size_t>(1, (bytes + k_buffer_grain - 1) / k_buffer_grain) * k_buffer_grain;
}

}  // namespace

VerbsBare::VerbsBare(Device& device, const Peer& peer, const BareOptions& options)
    : Bare(peer),
      device_(device),
      calls_(device.calls()),
      options_(options),
      ones_(static_cast<std::size_t>(options.queue_pairs)) {
  depth_ = static_cast<std::size_t>(options.depth);
  counts_.resize(ones_.size());
}

Result<std::unique_ptr<VerbsBare>> VerbsBare::make(Device& device, const Peer& peer, const BareOptions& options) {
  const auto most = static_cast<std::size_t>(device.port_attributes().max_msg_sz);
  if (options.bytes > most)
    return fail(Code::bad_usage, fmt::format("one operation of {} moves at most {} bytes, and {} are asked for; pipes "
                                             "(--operation pipe) split longer messages",
                                             device.where(), most, options.bytes));
  if (const int entries = device.attributes().max_qp_wr; entries > 0 && options.depth > entries)
    return fail(Code::bad_usage, fmt::format("a queue pair of {} holds {} operations at most; --queue-depth {} is more",
                                             device.where(), entries, options.depth));
  std::unique_ptr<VerbsBare> self(new VerbsBare(device, peer, options));
  GRADRAIL_TRY(self->create());
  return self;
}

Result<void> VerbsBare::create() {
  const std::size_t half = rounded(options_.bytes);
  GRADRAIL_ASSIGN(pages_, Pages::map(2 * half));
  outgoing_ = {pages_.data(), options_.bytes};
  incoming_ = {pages_.data() + half, options_.bytes};
  const int access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
  GRADRAIL_ASSIGN(ibv_mr* const memory, device_.register_memory(pages_.data(), 2 * half, access));
  memory_ = Registered(memory, Deregister{&calls_});
  if (options_.operation == Operation::send) {
    const auto entries = static_cast<std::size_t>(std::max(device_.attributes().max_qp_wr, 0));
    receives_ = std::max(static_cast<std::size_t>(std::max(options_.receives, 0)), 2 * depth_);
    if (entries > 0) receives_ = std::min(receives_, entries);
    receives_ = std::max(k_batch, receives_ / k_batch * k_batch);
  }
  const std::size_t entries = ones_.size() * (depth_ + receives_);
  if (const int most = device_.attributes().max_cqe; most > 0 && entries > static_cast<std::size_t>(most))
    return fail(Code::bad_usage, fmt::format("a completion queue of {} holds {} entries at most, and {} are needed; "
                                             "lower --queue-depth or --queue-pairs",
                                             device_.where(), most, entries));
  completions_ = calls_.create_cq(device_.context(), static_cast<int>(entries), nullptr);
  if (completions_ == nullptr)
    return fail_errno(fmt::format("making a completion queue of {} entries on {}", entries, device_.where()), errno);
  for (std::size_t pair = 0; pair < ones_.size(); ++pair) GRADRAIL_TRY(create_pair(pair));
  return {};
}

Result<void> VerbsBare::create_pair(std::size_t pair) {
  One& one = ones_[pair];
  ibv_qp_init_attr wish{};
  wish.send_cq = completions_;
  wish.recv_cq = completions_;
  wish.qp_type = IBV_QPT_RC;
  wish.cap = {static_cast<std::uint32_t>(depth_), static_cast<std::uint32_t>(std::max(receives_, k_batch)), 1, 1, 0};
  GRADRAIL_ASSIGN(one.pair, make_pair(device_, wish));
  inline_bytes_ = pair == 0 ? wish.cap.max_inline_data : std::min<std::size_t>(inline_bytes_, wish.cap.max_inline_data);
  if (options_.operation == Operation::read) inline_bytes_ = 0;
  GRADRAIL_TRY(
      prepare_pair(device_, one.pair, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ));
  GRADRAIL_ASSIGN(one.packet_number, new_packet_number());

  const bool reads = options_.operation == Operation::read;
  one.piece = {reinterpret_cast<std::uintptr_t>(reads ? incoming_.data() : outgoing_.data()), 0, memory_->lkey};
  one.request.sg_list = &one.piece;
  one.request.opcode = opcode_of(options_.operation);

  one.landing = {reinterpret_cast<std::uintptr_t>(incoming_.data()), static_cast<std::uint32_t>(options_.bytes),
                 memory_->lkey};
  one.receives.resize(k_batch);
  for (std::size_t i = 0; i < k_batch; ++i) {
    one.receives[i].wr_id = k_receive_bit | pair << k_number_bits;
    one.receives[i].sg_list = &one.landing;
    one.receives[i].num_sge = options_.bytes > 0 ? 1 : 0;
    one.receives[i].next = i + 1 < k_batch ? &one.receives[i + 1] : nullptr;
  }
  for (std::size_t posted = 0; posted < receives_; posted += k_batch) GRADRAIL_TRY(repost(one));
  return {};
}

VerbsBare::~VerbsBare() {
  for (const One& one : ones_)
    if (one.pair != nullptr) calls_.destroy_qp(one.pair);
  if (completions_ != nullptr) calls_.destroy_cq(completions_);
}

Result<void> VerbsBare::repost(One& one) {
  one.to_repost = 0;
  if (const int error = calls_.post_recv(one.pair, one.receives.front()); error != 0)
    return fail_errno(fmt::format("posting receives on {}", device_.where()), error);
  return {};
}

int VerbsBare::reads_answered() const { return std::clamp(device_.attributes().max_qp_rd_atom, 1, 255); }

Bytes VerbsBare::introduce(std::size_t pair, int rank) const {
  Introduction self;
  self.rank = rank;
  self.lane = static_cast<std::int32_t>(pair);
  auto& one = self.pairs.emplace_back(introduce_device(device_));
  one.queue_pair = ones_[pair].pair->qp_num;
  one.packet_number = ones_[pair].packet_number;
  const auto reached = options_.operation == Operation::read ? outgoing_ : incoming_;
  self.landing = reinterpret_cast<std::uintptr_t>(reached.data());
  self.landing_key = memory_->rkey;
  ByteWriter out;
  out.put(static_cast<std::uint8_t>(options_.operation));
  out.put(static_cast<std::uint64_t>(options_.bytes));
  out.put(static_cast<std::uint8_t>(reads_answered()));
  out.put_bytes(self.pack());
  return std::move(out).take();
}

Result<void> VerbsBare::connect(std::size_t pair, std::span<const std::byte> introduction) {
  ByteReader in(introduction);
  const auto operation = in.get<std::uint8_t>();
  const auto bytes = in.get<std::uint64_t>();
  const int reads = in.get<std::uint8_t>();
  const auto peer = in.ok() ? Introduction::parse(introduction.subspan(k_terms_bytes)) : std::nullopt;
  if (!peer || peer->version != Introduction::k_version || reads == 0)
    return fail(Code::refused, "it is another build of gradrail, or was not asked for operations");
  if (operation != static_cast<std::uint8_t>(options_.operation) || bytes != options_.bytes)
    return fail(Code::bad_usage, "it was asked for another operation or other sizes; give all ranks the same");
  PairStart start;
  start.packet_number = ones_[pair].packet_number;
  start.rnr_retry = k_for_ever;
  if (options_.operation == Operation::read)
    start.reads = std::clamp(std::min(device_.attributes().max_qp_init_rd_atom, reads), 1, 255);
  GRADRAIL_TRY(connect_pair(device_, ones_[pair].pair, start, peer->pairs.front()));
  ones_[pair].request.wr.rdma.remote_addr = peer->landing;
  ones_[pair].request.wr.rdma.rkey = peer->landing_key;
  return {};
}

Result<void> VerbsBare::post(std::size_t pair, std::size_t bytes, bool last) {
  One& one = ones_[pair];
  Counts& counts = counts_[pair];
  GRADRAIL_CHECK(room(pair) > 0);
  if (bytes > options_.bytes) [[unlikely]]
    return fail(Code::bad_usage, "an operation is longer than the buffers", peer_);
  const std::uint64_t number = counts.posted + 1;
  ibv_send_wr& request = one.request;
  one.piece.length = static_cast<std::uint32_t>(bytes);
  request.num_sge = bytes > 0 ? 1 : 0;
  request.wr_id = pair << k_number_bits | number;
  request.send_flags = bytes > 0 && bytes <= inline_bytes_ ? IBV_SEND_INLINE : 0;
  const bool asks = last || 4 * (number - one.asked) >= depth_;
  if (asks) request.send_flags |= IBV_SEND_SIGNALED;
  if (const int error = calls_.post_send(one.pair, request); error != 0) [[unlikely]]
    return fail_errno(fmt::format("posting a {} on {}", to_string(options_.operation), device_.where()), error, peer_);
  counts.posted = number;
  if (asks) one.asked = number;
  return {};
}

Result<void> VerbsBare::poll() {
  for (;;) {
    const int count = calls_.poll_cq(completions_, results_);
    if (count < 0) [[unlikely]]
      return fail(Code::system, fmt::format("the completion queue of {} is broken", device_.where()), peer_);
    for (int i = 0; i < count; ++i) {
      const ibv_wc& result = results_[static_cast<std::size_t>(i)];
      if (result.status != IBV_WC_SUCCESS) [[unlikely]]
        return broke(result);
      const std::size_t pair = (result.wr_id & ~k_receive_bit) >> k_number_bits;
      if ((result.wr_id & k_receive_bit) != 0) {
        ++received_;
        if (++ones_[pair].to_repost == k_batch) GRADRAIL_TRY(repost(ones_[pair]));
      } else {
        counts_[pair].done = result.wr_id & ((std::uint64_t(1) << k_number_bits) - 1);
      }
    }
    if (static_cast<std::size_t>(count) < results_.size()) return {};
  }
}

tl::unexpected<Error> VerbsBare::broke(const ibv_wc& completion) {
  if (auto life = check_life(); !life) return tl::unexpected<Error>(std::move(life).error());
  const auto& options = device_.options();
  auto cause = cause_of(completion.status, completion.vendor_err,
                        {who_, device_.where(), options.timeout, options.retry, device_.port_note()});
  return fail(cause.code, std::move(cause.message), peer_);
}

Result<std::unique_ptr<Bare>> VerbsTransport::open_bare(const Peer& peer, const BareOptions& options,
                                                        Deadline deadline) {
  if (options_.by_cm)
    return fail(Code::bad_usage,
                "a device's operations connect by what ranks tell each other; rdma_cm (--connect cm, or the verbs "
                "setting connect) is for pipes");
  if (options.queue_pairs < 1 || options.queue_pairs > k_max_lanes || options.depth < 1)
    return fail(Code::bad_usage,
                fmt::format("{} queue pairs of {} operations are not possible; 1 to {} of at least 1 are",
                            options.queue_pairs, options.depth, k_max_lanes));
  GRADRAIL_ASSIGN(auto bare, VerbsBare::make(*devices_.front(), peer, options));
  std::vector<Peer> peers;
  std::deque<OneOpening> openings;
  std::vector<Conversation*> conversations;
  for (int pair = 0; pair < options.queue_pairs; ++pair) {
    peers.push_back(peer);
    peers.back().lane = pair;
    conversations.push_back(&openings.emplace_back(*bare, static_cast<std::size_t>(pair), settings_.rank));
  }
  GRADRAIL_ASSIGN(auto channels, introductions_.meet(settings_, peers, conversations, deadline));
  bare->take_channels(std::move(channels));
  return bare;
}

}  // namespace gradrail::verbs

#include "transports/ucx/bare.h"

#include <fmt/format.h>
#include <poll.h>
#include <sched.h>

#include <algorithm>

#include "transports/base/check.h"
#include "transports/ucx/transport.h"

namespace gradrail::ucx {
namespace {

constexpr ucp_tag_t k_tag = 1;
constexpr ucp_tag_t k_whole = ~ucp_tag_t(0);
constexpr Seconds k_cancel{1};
constexpr int k_polls_a_look = 64;  // at the side channel, which costs more than a poll

struct OneOpening final : Conversation {
  explicit OneOpening(UcxBare& of) : bare(of) {}
  Result<Bytes> introduce() override { return bare.introduce(); }
  Result<void> agree(std::span<const std::byte> introduction) override { return bare.connect(introduction); }
  Result<bool> reached() override { return bare.reached(); }

  UcxBare& bare;
};

}  // namespace

UcxBare::UcxBare(const Peer& peer, const BareOptions& options, std::unique_ptr<Worker> worker)
    : Bare(peer), options_(options), worker_(std::move(worker)) {
  depth_ = static_cast<std::size_t>(options.depth);
  counts_.resize(1);
  path_ = Path::library;
  lands_by_polling_ = true;
}

Result<std::unique_ptr<UcxBare>> UcxBare::make(const Peer& peer, const BareOptions& options) {
  const bool sends = options.operation == Operation::send;
  GRADRAIL_ASSIGN(auto worker, Worker::make(sends ? Purpose::bare_messages : Purpose::bare_memory));
  std::unique_ptr<UcxBare> self(new UcxBare(peer, options, std::move(worker)));
  GRADRAIL_TRY(self->create());
  return self;
}

Result<void> UcxBare::create() {
  GRADRAIL_ASSIGN(out_, worker_->allocate(options_.bytes));
  GRADRAIL_ASSIGN(in_, worker_->allocate(options_.bytes));
  std::byte* const out = Worker::address_of(out_);
  std::byte* const in = Worker::address_of(in_);
  if (out == nullptr || in == nullptr) return fail(Code::system, "UCX does not tell where the memory is that it made");
  outgoing_ = {out, options_.bytes};
  incoming_ = {in, options_.bytes};
  std::fill(out, out + options_.bytes, std::byte{0});
  std::fill(in, in + options_.bytes, std::byte{0});
  sending_.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  sending_.cb.send = &ended;
  sending_.user_data = this;
  receiving_.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  receiving_.cb.recv = &took;
  if (options_.depth > 1) {
    sending_.op_attr_mask |= UCP_OP_ATTR_FLAG_MULTI_SEND;
    receiving_.op_attr_mask |= UCP_OP_ATTR_FLAG_MULTI_SEND;
  }
  if (options_.operation == Operation::send) {
    receives_.resize(depth_);
    for (Receive& one : receives_) one.of = this, idle_.push_back(&one);
  }
  return {};
}

UcxBare::~UcxBare() {
  cancel_receives();
  drop();
  for (ucp_mem_h const memory : {out_, in_})
    if (memory != nullptr) worker_->unmap(memory);
}

void UcxBare::drop() {
  const bool quiet = flush_ == nullptr && failure_ == UCS_OK && counts_[0].done == counts_[0].posted;
  if (flush_ != nullptr) ucp_request_free(flush_);
  flush_ = nullptr;
  if (key_ != nullptr) ucp_rkey_destroy(key_);
  key_ = nullptr;
  if (link_ != nullptr && (!quiet || !check_life())) link_->give_up();
  link_.reset();
}

void UcxBare::cancel_receives() {
  for (const Receive& one : receives_)
    if (one.request != nullptr) ucp_request_cancel(worker_->id(), one.request);
  const auto until = Deadline::after(k_cancel);
  while (idle_.size() < receives_.size() && !until.passed()) worker_->progress();
}

Result<Bytes> UcxBare::introduce() {
  drop();
  own_.shares_memory = worker_->shares_memory();
  own_.host = host_identity();
  own_.resources = worker_->resources();
  own_.library = version();
  own_.address = worker_->address();
  const bool reads = options_.operation == Operation::read;
  ByteWriter out;
  out.put(static_cast<std::uint8_t>(options_.operation));
  out.put(static_cast<std::uint64_t>(options_.bytes));
  out.put(static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(reads ? outgoing_.data() : incoming_.data())));
  out.put_block(own_.pack());
  if (options_.operation == Operation::send) return std::move(out).take();
  void* key = nullptr;
  std::size_t size = 0;
  if (const auto status = ucp_rkey_pack(worker_->context(), reads ? out_ : in_, &key, &size); status != UCS_OK)
    return fail(Code::system, fmt::format("UCX makes no key to its memory: {}", text_of(status)));
  out.put_bytes({static_cast<const std::byte*>(key), size});
  ucp_rkey_buffer_release(key);
  return std::move(out).take();
}

Result<void> UcxBare::connect(std::span<const std::byte> introduction) {
  ByteReader in(introduction);
  const auto operation = in.get<std::uint8_t>();
  const auto bytes = in.get<std::uint64_t>();
  there_ = in.get<std::uint64_t>();
  const auto peer = Introduction::parse(in.get_block());
  if (!in.ok() || !peer) return fail(Code::refused, "it is another build of gradrail, or was not asked for operations");
  if (operation != static_cast<std::uint8_t>(options_.operation) || bytes != options_.bytes)
    return fail(Code::bad_usage, "it was asked for another operation or other sizes; give all ranks the same");
  if (peer->library != own_.library)
    return fail(Code::refused, fmt::format("its UCX is {}, this rank's {}", peer->library, own_.library));
  GRADRAIL_ASSIGN(link_, Link::open(*worker_, own_, *peer, true));
  if (options_.operation == Operation::send) return {};
  const auto key = introduction.last(in.left());
  if (key.empty()) return fail(Code::refused, "it gave no key to its memory");
  if (const auto status = ucp_ep_rkey_unpack(link_->id(), key.data(), &key_); status != UCS_OK)
    return fail(Code::system, fmt::format("UCX does not take the key to its memory: {}", text_of(status)));
  return {};
}

Result<bool> UcxBare::reached() {
  worker_->progress();
  if (settled()) return true;
  if (failure_ == UCS_OK) return false;
  return fail(Code::unavailable,
              fmt::format("UCX did not get through: {}{}{}; look at UCX_TLS and UCX_NET_DEVICES on both sides",
                          text_of(failure_), complaint().empty() ? "" : ": ", complaint()));
}

void UcxBare::ended(void* request, ucs_status_t status, void* self) {
  auto& bare = *static_cast<UcxBare*>(self);
  ++bare.counts_[0].done;
  if (status != UCS_OK) [[unlikely]]
    bare.failure_ = status;
  ucp_request_free(request);
}

void UcxBare::took(void* request, ucs_status_t status, const ucp_tag_recv_info_t*, void* receive) {
  auto& one = *static_cast<Receive*>(receive);
  UcxBare& bare = *one.of;
  one.request = nullptr;
  bare.idle_.push_back(&one);
  if (status == UCS_OK) {
    ++bare.received_;
  } else if (status != UCS_ERR_CANCELED) {
    bare.failure_ = status;
  }
  ucp_request_free(request);
}

Result<void> UcxBare::post_receives() {
  while (!idle_.empty()) {
    Receive& one = *idle_.back();
    idle_.pop_back();
    const auto idle = idle_.size();
    receiving_.user_data = &one;
    const auto request =
        ucp_tag_recv_nbx(worker_->id(), incoming_.data(), incoming_.size(), k_tag, k_whole, &receiving_);
    if (UCS_PTR_IS_ERR(request)) [[unlikely]]
      return broke(UCS_PTR_STATUS(request));
    if (request == nullptr) {
      ++received_;  // it had come before
      idle_.push_back(&one);
    } else if (idle_.size() == idle) {  // not over by now
      one.request = request;
    }
  }
  return {};
}

Result<void> UcxBare::post(std::size_t pair, std::size_t bytes, bool) {
  GRADRAIL_CHECK(room(pair) > 0);
  if (bytes > options_.bytes) [[unlikely]]
    return fail(Code::bad_usage, "an operation is longer than the buffers", peer_);
  ++counts_[0].posted;
  void* request = nullptr;
  switch (options_.operation) {
    case Operation::send: request = ucp_tag_send_nbx(link_->id(), outgoing_.data(), bytes, k_tag, &sending_); break;
    case Operation::write: request = ucp_put_nbx(link_->id(), outgoing_.data(), bytes, there_, key_, &sending_); break;
    case Operation::read: request = ucp_get_nbx(link_->id(), incoming_.data(), bytes, there_, key_, &sending_); break;
  }
  if (UCS_PTR_IS_ERR(request)) [[unlikely]]
    return broke(UCS_PTR_STATUS(request));
  if (request == nullptr) ++counts_[0].done;
  return {};
}

Result<void> UcxBare::poll() {
  if (!idle_.empty()) GRADRAIL_TRY(post_receives());
  worker_->progress();
  if (failure_ != UCS_OK) [[unlikely]]
    return broke(failure_);
  return {};
}

// Nothing but UCX's progress while nothing lands, as in ucx_perftest.
Result<void> UcxBare::poll_until(std::uint64_t received, unsigned looks) {
  while (looks > 0 && received_ < received) {
    if (!idle_.empty()) GRADRAIL_TRY(post_receives());
    for (; looks > 0 && received_ < received && idle_.empty(); --looks) worker_->progress();
    if (failure_ != UCS_OK) [[unlikely]]
      return broke(failure_);
  }
  return {};
}

// What failed is for poll() to say.
Result<void> UcxBare::poll_until_written(std::size_t bytes, std::byte value, unsigned looks) {
  for (; looks > 0 && landed(bytes) != value; --looks) worker_->progress();
  return {};
}

bool UcxBare::settled() {
  if (flush_ == nullptr) {
    const ucp_request_param_t plain{};
    const auto request = ucp_ep_flush_nbx(link_->id(), &plain);
    if (request == nullptr) return true;
    if (UCS_PTR_IS_ERR(request)) {
      failure_ = UCS_PTR_STATUS(request);
      return false;
    }
    flush_ = request;
  }
  const auto status = ucp_request_check_status(flush_);
  if (status == UCS_INPROGRESS) return false;
  ucp_request_free(flush_);
  flush_ = nullptr;
  if (status != UCS_OK) failure_ = status;
  return status == UCS_OK;
}

Result<Bytes> UcxBare::hear(Deadline deadline) {
  pollfd channel{channels_.front().get(), POLLIN, 0};
  while (::poll(&channel, 1, 0) == 0 && !deadline.passed()) {
    for (int i = 0; i < k_polls_a_look; ++i) GRADRAIL_TRY(poll());
    ::sched_yield();
  }
  return Bare::hear(deadline);
}

// The peer's death is the better reason, and may be heard of a moment later.
tl::unexpected<Error> UcxBare::broke(ucs_status_t status) {
  failure_ = status;
  for (const auto until = Deadline::after(k_better_reason); !until.passed(); ::sched_yield())
    if (auto life = check_life(); !life) return tl::unexpected<Error>(std::move(life).error());
  const auto lanes = link_->lanes();
  return fail(Code::system,
              fmt::format("{}: UCX could not {}, over {}: {}{}{}", who_, to_string(options_.operation),
                          lanes.empty() ? worker_->resources() : lanes, text_of(status),
                          complaint().empty() ? "" : ": ", complaint()),
              peer_);
}

Result<std::unique_ptr<Bare>> UcxTransport::open_bare(const Peer& peer, const BareOptions& options, Deadline deadline) {
  if (options.queue_pairs != 1)
    return fail(Code::bad_usage, fmt::format("UCX's operations go over one endpoint; --queue-pairs {} is for pipes, "
                                             "and operations of verbs",
                                             options.queue_pairs));
  if (options.depth < 1)
    return fail(Code::bad_usage, fmt::format("{} operations outstanding are too few; at least 1 is", options.depth));
  GRADRAIL_ASSIGN(auto bare, UcxBare::make(peer, options));
  OneOpening opening(*bare);
  Conversation* const conversations[] = {&opening};
  Peer first = peer;
  first.lane = 0;
  GRADRAIL_ASSIGN(auto channels, introductions_.meet(settings_, {&first, 1}, conversations, deadline));
  bare->take_channels(std::move(channels));
  return bare;
}

}  // namespace gradrail::ucx

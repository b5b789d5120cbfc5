#include "transports/staged/staged.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "transports/base/check.h"
#include "transports/memory_path.h"

namespace gradrail {
namespace {

constexpr std::size_t k_slots = 4;  // messages of a GPU's memory under way, each way
static_assert(k_slots <= CopyQueue::k_most);

// Of an inner region, or of a GPU's memory that the inner transport does not know.
class StagedRegion final : public ChosenRegion {
 public:
  StagedRegion(const Transport& owner, std::unique_ptr<Region> inner)
      : ChosenRegion(owner, inner->buffer(), inner->direct()), inner_(std::move(inner)) {}
  StagedRegion(const Transport& owner, Buffer buffer, std::string how)
      : ChosenRegion(owner, buffer, false), how_(std::move(how)) {}

  [[nodiscard]] std::string how() const override { return how_; }
  [[nodiscard]] const Region* inner() const { return inner_.get(); }

 private:
  std::unique_ptr<Region> inner_;
  std::string how_;
};

class StagedTransport;

// Memory of the host that messages of one direction are copied through, in turn, and the copies of one GPU.
class Slots {
 public:
  Slots(Transport& inner, CudaDriver& driver) : inner_(inner), driver_(driver) {}
  Slots(const Slots&) = delete;
  Slots& operator=(const Slots&) = delete;
  ~Slots() {
    queues_.clear();  // waits for copies
    for (Slot& slot : slots_) drop(slot);
  }

  [[nodiscard]] bool room() const { return taken_ - freed_ < k_slots; }
  // The next slot, with room for so many bytes. Errors: exhausted, unavailable.
  [[nodiscard]] Result<Slice> take(int gpu, std::size_t bytes) {
    Slot& slot = slots_[taken_ % k_slots];
    if (slot.region == nullptr || slot.region->buffer().size < bytes || slot.gpu != gpu) {
      drop(slot);
      GRADRAIL_ASSIGN(slot.region, inner_.allocate(std::max<std::size_t>(bytes, 1)));
      slot.gpu = gpu;
      const Buffer& buffer = slot.region->buffer();
      slot.pinned = driver_.pin(gpu, buffer.data, buffer.size) == 0;
    }
    if (queues_[gpu].copies == nullptr) {
      GRADRAIL_ASSIGN(queues_[gpu].copies, make_copy_queue(driver_, gpu));
    }
    ++taken_;
    return Slice{slot.region.get(), 0, bytes};
  }
  void free_oldest() { ++freed_; }

  // Starts a copy from or to a GPU; its number, for ended(). Errors: system.
  [[nodiscard]] Result<std::uint64_t> copy(int gpu, void* to, const void* from, std::size_t bytes) {
    Queue& queue = queues_[gpu];
    if (bytes == 0) return queue.started;
    if (const int error = queue.copies->start(to, from, bytes); error != 0) return copy_failed(driver_, gpu, error);
    return ++queue.started;
  }
  [[nodiscard]] Result<bool> ended(int gpu, std::uint64_t number) {
    Queue& queue = queues_[gpu];
    if (queue.ended < number)
      if (const int error = queue.copies->poll(queue.ended); error != 0) return copy_failed(driver_, gpu, error);
    return queue.ended >= number;
  }

 private:
  struct Slot {
    std::unique_ptr<Region> region;
    int gpu = -1;
    bool pinned = false;
  };
  struct Queue {
    std::unique_ptr<CopyQueue> copies;
    std::uint64_t started = 0;
    std::uint64_t ended = 0;
  };
  void drop(Slot& slot) {
    if (slot.pinned) driver_.unpin(slot.gpu, slot.region->buffer().data);
    slot = {};
  }

  Transport& inner_;
  CudaDriver& driver_;
  std::array<Slot, k_slots> slots_;
  std::map<int, Queue> queues_;  // by GPU
  std::uint64_t taken_ = 0;
  std::uint64_t freed_ = 0;
};

class StagedEndpoint final : public Endpoint {
 public:
  StagedEndpoint(StagedTransport& owner, std::unique_ptr<Endpoint> inner);
  ~StagedEndpoint() override;

  Result<void> send(Slice source) override { return post(sends_, {source, source.size}); }
  Result<void> recv(Slice destination) override { return post(recvs_, {destination, destination.size}); }
  Result<void> recv_in_place(std::size_t bytes) override { return post(recvs_, {{}, bytes}); }
  std::span<const std::byte> readable() override {
    // Not before what came earlier has been copied.
    if (failure_ || recvs_done_ != inner_->recvs_done()) return {};
    return inner_->readable();
  }
  void consume(std::size_t bytes) override {
    inner_->consume(bytes);
    follow();
  }
  void withdraw() override {
    if (inner_ != nullptr) inner_->withdraw();
  }

  // Moves copies and what waits for them on; true if anything changed.
  bool follow();
  [[nodiscard]] bool copying() const {
    return !failure_ && (sends_.given < sends_.copied || recvs_done_ < recvs_.copied);
  }

 private:
  // A message: of the host, of a GPU, or to be read in place (no region).
  struct Message {
    Message() = default;
    Message(Slice where, std::size_t size) : slice(where), bytes(size) {}
    Slice slice;
    std::size_t bytes = 0;
    Slice staged;            // of a GPU: where it is in the host's memory
    std::uint64_t copy = 0;  // of a GPU: its number
    [[nodiscard]] int gpu() const { return slice.region->buffer().device; }
  };
  // Messages of one direction, counted since the beginning.
  struct Messages {
    std::vector<Message> ring;
    std::uint64_t posted = 0;
    std::uint64_t copied = 0;  // sends: a copy was started, if one is needed. receives: the same, after the arrival
    std::uint64_t given = 0;   // to the inner endpoint
    [[nodiscard]] Message& at(std::uint64_t number) { return ring[number % ring.size()]; }
  };

  [[nodiscard]] Result<void> post(Messages& messages, Message message);
  [[nodiscard]] Result<bool> move_sends();
  [[nodiscard]] Result<bool> move_recvs();
  [[nodiscard]] static bool is_of_gpu(const Message& message) {
    return message.slice.region != nullptr &&
           static_cast<const StagedRegion*>(message.slice.region)->inner() == nullptr;
  }
  [[nodiscard]] static Slice inner_of(const Slice& slice) {
    return {static_cast<const StagedRegion*>(slice.region)->inner(), slice.offset, slice.size};
  }
  void end(Error error);

  StagedTransport& owner_;
  Slots out_, in_;  // go after the endpoint that uses their memory
  std::unique_ptr<Endpoint> inner_;
  Messages sends_, recvs_;
};

class StagedTransport final : public Transport {
 public:
  StagedTransport(std::unique_ptr<Transport> inner, CudaDriver& driver, std::string why)
      : inner_(std::move(inner)), driver_(driver), why_(std::move(why)), traits_(inner_->traits()) {
    traits_.writes_in_place = false;
    traits_.copies_out = false;
    traits_.board_members = 0;
  }
  ~StagedTransport() override { GRADRAIL_CHECK(endpoints_.empty()); }

  const Traits& traits() const override { return traits_; }
  std::string describe() const override { return inner_->describe(); }
  Result<Address> listen() override { return inner_->listen(); }
  Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers, Deadline deadline) override {
    GRADRAIL_ASSIGN(auto endpoints, inner_->connect(peers, deadline));
    for (auto& endpoint : endpoints) endpoint = std::make_unique<StagedEndpoint>(*this, std::move(endpoint));
    return endpoints;
  }
  Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override;
  Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override {
    GRADRAIL_ASSIGN(auto region, inner_->allocate(bytes));
    return std::make_unique<StagedRegion>(*this, std::move(region));
  }
  bool progress() override {
    bool moved = inner_->progress();
    for (auto* endpoint : endpoints_) moved |= endpoint->follow();
    return moved;
  }
  void wait(Seconds at_most) override {
    // Nobody is woken by the end of a copy.
    const bool copying = std::any_of(endpoints_.begin(), endpoints_.end(), [](auto* one) { return one->copying(); });
    inner_->wait(copying ? Seconds(0) : at_most);
  }

  [[nodiscard]] Transport& inner() { return *inner_; }
  [[nodiscard]] CudaDriver& driver() { return driver_; }
  std::vector<StagedEndpoint*> endpoints_;

 private:
  std::unique_ptr<Transport> inner_;
  CudaDriver& driver_;
  std::string why_;
  Traits traits_;
};

Result<std::unique_ptr<Region>> StagedTransport::register_memory(Buffer buffer) {
  if (buffer.space == Space::host) {
    GRADRAIL_ASSIGN(auto region, inner_->register_memory(buffer));
    return std::make_unique<StagedRegion>(*this, std::move(region));
  }
  GRADRAIL_TRY(find_gpu(driver_, buffer.device));
  // Whether memory can be pinned is told with the region, before a pipe depends on it.
  GRADRAIL_ASSIGN(const auto trial, inner_->allocate(4096));
  const int error = driver_.pin(buffer.device, trial->buffer().data, 4096);
  if (error == 0) driver_.unpin(buffer.device, trial->buffer().data);
  std::string how = fmt::format("{} ({}", to_string(error == 0 ? MemoryPath::staged : MemoryPath::staged_slow), why_);
  if (error != 0) how += fmt::format("; pinned: {}; look at memlock (ulimit -l)", driver_.words(error));
  return std::make_unique<StagedRegion>(*this, buffer, how + ")");
}

StagedEndpoint::StagedEndpoint(StagedTransport& owner, std::unique_ptr<Endpoint> inner)
    : Endpoint(inner->peer(), inner->lane()),
      owner_(owner),
      out_(owner.inner(), owner.driver()),
      in_(owner.inner(), owner.driver()),
      inner_(std::move(inner)) {
  attached_from_ = inner_->attached_from();
  sends_.ring.resize(owner.traits().depth);
  recvs_.ring.resize(owner.traits().depth);
  owner_.endpoints_.push_back(this);
}

StagedEndpoint::~StagedEndpoint() { std::erase(owner_.endpoints_, this); }

Result<void> StagedEndpoint::post(Messages& messages, Message message) {
  if (failure_) return tl::unexpected(*failure_);
  if (message.slice.region != nullptr && !message.slice.within(owner_))
    return fail(Code::bad_usage, "the slice is not within a region registered with this transport", peer());
  const std::uint64_t done = &messages == &sends_ ? sends_done_ : recvs_done_;
  if (messages.posted - done == messages.ring.size())
    return fail(Code::exhausted,
                fmt::format("{} operations with rank {} are outstanding", messages.ring.size(), peer()), peer());
  messages.at(messages.posted++) = message;
  follow();
  if (failure_) return tl::unexpected(*failure_);
  return {};
}

Result<bool> StagedEndpoint::move_sends() {
  bool moved = false;
  for (; sends_.copied < sends_.posted; ++sends_.copied, moved = true) {
    Message& message = sends_.at(sends_.copied);
    if (!is_of_gpu(message)) continue;
    if (!out_.room()) break;
    GRADRAIL_ASSIGN(message.staged, out_.take(message.gpu(), message.bytes));
    GRADRAIL_ASSIGN(message.copy, out_.copy(message.gpu(), message.staged.data(), message.slice.data(), message.bytes));
  }
  for (; sends_.given < sends_.copied; ++sends_.given, moved = true) {
    const Message& message = sends_.at(sends_.given);
    if (is_of_gpu(message)) {
      GRADRAIL_ASSIGN(const bool ended, out_.ended(message.gpu(), message.copy));
      if (!ended) break;
    }
    GRADRAIL_TRY(inner_->send(is_of_gpu(message) ? message.staged : inner_of(message.slice)));
  }
  for (; sends_done_ < inner_->sends_done(); ++sends_done_, moved = true)
    if (is_of_gpu(sends_.at(sends_done_))) out_.free_oldest();
  return moved;
}

Result<bool> StagedEndpoint::move_recvs() {
  bool moved = false;
  for (; recvs_.given < recvs_.posted; ++recvs_.given, moved = true) {
    Message& message = recvs_.at(recvs_.given);
    if (message.slice.region == nullptr) {
      GRADRAIL_TRY(inner_->recv_in_place(message.bytes));
    } else if (!is_of_gpu(message)) {
      GRADRAIL_TRY(inner_->recv(inner_of(message.slice)));
    } else {
      if (!in_.room()) break;
      GRADRAIL_ASSIGN(message.staged, in_.take(message.gpu(), message.bytes));
      GRADRAIL_TRY(inner_->recv(message.staged));
    }
  }
  for (; recvs_.copied < inner_->recvs_done(); ++recvs_.copied, moved = true) {
    Message& message = recvs_.at(recvs_.copied);
    if (!is_of_gpu(message)) continue;
    GRADRAIL_ASSIGN(message.copy, in_.copy(message.gpu(), message.slice.data(), message.staged.data(), message.bytes));
  }
  for (; recvs_done_ < recvs_.copied; ++recvs_done_, moved = true) {
    const Message& message = recvs_.at(recvs_done_);
    if (!is_of_gpu(message)) continue;
    GRADRAIL_ASSIGN(const bool ended, in_.ended(message.gpu(), message.copy));
    if (!ended) break;
    in_.free_oldest();
  }
  return moved;
}

void StagedEndpoint::end(Error error) {
  error.peer = peer();
  failure_ = std::move(error);
  inner_.reset();  // so that the peer hears of it
}

bool StagedEndpoint::follow() {
  if (failure_) return false;
  if (const Error* failure = inner_->failure()) {
    failure_ = *failure;
    return true;
  }
  bool moved = false;
  for (const auto& step : {&StagedEndpoint::move_sends, &StagedEndpoint::move_recvs}) {
    auto done = (this->*step)();
    if (!done) {
      end(std::move(done).error());
      return true;
    }
    moved |= *done;
  }
  traffic_ = inner_->traffic();
  return moved;
}

}  // namespace

std::unique_ptr<Transport> make_staged(std::unique_ptr<Transport> inner, CudaDriver& driver, std::string why) {
  return std::make_unique<StagedTransport>(std::move(inner), driver, std::move(why));
}

}  // namespace gradrail

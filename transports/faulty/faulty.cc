#include "transports/faulty/faulty.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <optional>

#include "transports/base/check.h"

namespace gradrail {
namespace {

class FaultyTransport;

// Owned by the decorator, so that slices of it pass `within(decorator)`; the inner region does the work.
class FaultyRegion final : public Region {
 public:
  FaultyRegion(const Transport& owner, std::unique_ptr<Region> inner)
      : Region(owner, inner->buffer(), inner->direct()), inner_(std::move(inner)) {}
  [[nodiscard]] const Region& inner() const { return *inner_; }

 private:
  std::unique_ptr<Region> inner_;
};

class FaultyEndpoint final : public Endpoint {
 public:
  FaultyEndpoint(FaultyTransport& owner, std::unique_ptr<Endpoint> inner, FaultScript script);
  ~FaultyEndpoint() override;

  Result<void> send(Slice source) override { return post({Operation::Kind::send, source, source.size}); }
  Result<void> send_copied(Slice source) override { return post({Operation::Kind::send_copied, source, source.size}); }
  Result<void> recv(Slice destination) override { return post({Operation::Kind::recv, destination, destination.size}); }
  Result<void> recv_in_place(std::size_t bytes) override { return post({Operation::Kind::recv_in_place, {}, bytes}); }
  Result<void> send_in_place(std::size_t bytes) override { return post({Operation::Kind::send_in_place, {}, bytes}); }

  std::span<const std::byte> readable() override {
    return failure_ ? std::span<const std::byte>{} : inner_->readable();
  }
  void consume(std::size_t bytes) override {
    inner_->consume(bytes);
    follow();
  }
  std::span<std::byte> writable() override { return failure_ ? std::span<std::byte>{} : inner_->writable(); }
  std::size_t offer(std::span<const std::byte> bytes) override {
    const std::size_t sent = failure_ ? 0 : inner_->offer(bytes);
    if (sent > 0) follow();
    return sent;
  }
  void withdraw() override {
    if (inner_ != nullptr) inner_->withdraw();
  }
  void commit(std::size_t bytes) override {
    inner_->commit(bytes);
    follow();
  }

  std::size_t departed(std::uint64_t send, std::size_t bytes) const override {
    return failure_ ? 0 : inner_->departed(send, bytes);
  }

  // Posts what was held back for long enough, and takes over the inner endpoint's state; true if anything changed.
  bool follow();

 private:
  struct Operation {
    enum class Kind : std::uint8_t { send, send_copied, recv, recv_in_place, send_in_place } kind;
    Slice slice;
    std::size_t bytes;
    [[nodiscard]] bool sends() const {
      return kind == Kind::send || kind == Kind::send_copied || kind == Kind::send_in_place;
    }
    [[nodiscard]] bool has_slice() const { return kind != Kind::recv_in_place && kind != Kind::send_in_place; }
  };

  [[nodiscard]] Result<void> post(Operation operation);
  [[nodiscard]] Result<void> pass_on(const Operation& operation);
  [[nodiscard]] std::size_t held(bool sends) const;

  FaultyTransport& owner_;
  std::unique_ptr<Endpoint> inner_;
  FaultScript script_;
  std::uint64_t operations_ = 0;
  std::deque<Operation> held_;
  Clock::time_point hold_until_{};
  std::uint64_t posted_sends_ = 0;
  std::uint64_t posted_recvs_ = 0;
};

class FaultyTransport final : public Transport {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, FaultScript script)
      : inner_(std::move(inner)), script_(std::move(script)), traits_(inner_->traits()) {
    traits_.board_members = 0;  // nothing is posted there that could be counted
  }
  ~FaultyTransport() override { GRADRAIL_CHECK(alive.empty()); }

  const Traits& traits() const override { return traits_; }
  std::string describe() const override { return inner_->describe(); }
  Result<Address> listen() override { return inner_->listen(); }

  Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers, Deadline deadline) override {
    GRADRAIL_ASSIGN(auto endpoints, inner_->connect(peers, deadline));
    for (auto& endpoint : endpoints) {
      FaultScript script;
      std::copy_if(script_.begin(), script_.end(), std::back_inserter(script), [&](const Fault& fault) {
        return fault.peer == endpoint->peer() && fault.lane == endpoint->lane();
      });
      endpoint = std::make_unique<FaultyEndpoint>(*this, std::move(endpoint), std::move(script));
    }
    return endpoints;
  }

  Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override {
    GRADRAIL_ASSIGN(auto region, inner_->register_memory(buffer));
    return std::make_unique<FaultyRegion>(*this, std::move(region));
  }
  Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override {
    GRADRAIL_ASSIGN(auto region, inner_->allocate(bytes));
    return std::make_unique<FaultyRegion>(*this, std::move(region));
  }

  bool progress() override {
    bool moved = inner_->progress();
    for (auto* endpoint : alive) moved |= endpoint->follow();
    return moved;
  }
  void wait(Seconds at_most) override { inner_->wait(at_most); }

  std::vector<FaultyEndpoint*> alive;  // each enters and leaves by itself

 private:
  std::unique_ptr<Transport> inner_;
  FaultScript script_;
  Traits traits_;
};

FaultyEndpoint::FaultyEndpoint(FaultyTransport& owner, std::unique_ptr<Endpoint> inner, FaultScript script)
    : Endpoint(inner->peer(), inner->lane()), owner_(owner), inner_(std::move(inner)), script_(std::move(script)) {
  attached_from_ = inner_->attached_from();
  owner_.alive.push_back(this);
}

FaultyEndpoint::~FaultyEndpoint() { std::erase(owner_.alive, this); }

std::size_t FaultyEndpoint::held(bool sends) const {
  return static_cast<std::size_t>(
      std::count_if(held_.begin(), held_.end(), [&](const Operation& one) { return sends == one.sends(); }));
}

Result<void> FaultyEndpoint::post(Operation operation) {
  if (failure_) return tl::unexpected(*failure_);
  if (operation.has_slice()) {
    if (!operation.slice.within(owner_))
      return fail(Code::bad_usage, "the slice is not within a region registered with this transport", peer());
    operation.slice.region = &static_cast<const FaultyRegion*>(operation.slice.region)->inner();
  }
  ++operations_;
  for (const auto& fault : script_) {
    if (fault.operation != operations_) continue;
    switch (fault.kind) {
      case Fault::Kind::cut:
        inner_.reset();
        failure_ = Error{Code::peer_gone,
                         fmt::format("the connection to rank {} was cut at its operation {}, as a test demands", peer(),
                                     operations_),
                         peer()};
        return tl::unexpected(*failure_);
      case Fault::Kind::delay:
        hold_until_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(fault.delay);
        break;
      case Fault::Kind::damage:
        if (operation.kind == Operation::Kind::send && operation.bytes > 0) *operation.slice.data() ^= std::byte{0xFF};
        break;
      case Fault::Kind::truncate:
        operation.bytes -= std::min(operation.bytes, fault.bytes);
        operation.slice.size = operation.bytes;
        break;
    }
  }
  if (!held_.empty() || Clock::now() < hold_until_) {
    const bool sends = operation.sends();
    const std::uint64_t posted = sends ? posted_sends_ - sends_done_ : posted_recvs_ - recvs_done_;
    if (posted + held(sends) >= owner_.traits().depth)
      return fail(Code::exhausted,
                  fmt::format("{} operations with rank {} are outstanding", posted + held(sends), peer()), peer());
    held_.push_back(operation);
    return {};
  }
  return pass_on(operation);
}

Result<void> FaultyEndpoint::pass_on(const Operation& operation) {
  switch (operation.kind) {
    case Operation::Kind::send: GRADRAIL_TRY(inner_->send(operation.slice)); break;
    case Operation::Kind::send_copied: GRADRAIL_TRY(inner_->send_copied(operation.slice)); break;
    case Operation::Kind::recv: GRADRAIL_TRY(inner_->recv(operation.slice)); break;
    case Operation::Kind::recv_in_place: GRADRAIL_TRY(inner_->recv_in_place(operation.bytes)); break;
    case Operation::Kind::send_in_place: GRADRAIL_TRY(inner_->send_in_place(operation.bytes)); break;
  }
  ++(operation.sends() ? posted_sends_ : posted_recvs_);
  return {};
}

bool FaultyEndpoint::follow() {
  if (failure_) return false;
  bool changed = false;
  while (!held_.empty() && Clock::now() >= hold_until_) {
    if (auto posted = pass_on(held_.front()); !posted) {
      failure_ = posted.error();
      return true;
    }
    held_.pop_front();
    changed = true;
  }
  changed |= sends_done_ != inner_->sends_done() || recvs_done_ != inner_->recvs_done();
  sends_done_ = inner_->sends_done();
  recvs_done_ = inner_->recvs_done();
  traffic_ = inner_->traffic();
  if (const Error* failure = inner_->failure()) {
    failure_ = *failure;
    return true;
  }
  return changed;
}

}  // namespace

std::unique_ptr<Transport> make_faulty(std::unique_ptr<Transport> inner, FaultScript script) {
  return std::make_unique<FaultyTransport>(std::move(inner), std::move(script));
}

}  // namespace gradrail

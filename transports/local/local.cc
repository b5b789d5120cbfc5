#include <fmt/format.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "transports/base/check.h"
#include "transports/local/hub.h"
#include "transports/settings.h"

namespace gradrail {

std::shared_ptr<LocalPipe> LocalHub::attach(int rank, int peer, int lane) {
  const std::scoped_lock lock(mutex);
  const std::size_t side = rank < peer ? 0 : 1;
  const std::tuple key(std::min(rank, peer), std::max(rank, peer), lane);
  auto& waiting = half_open_[key];
  // A side that attaches twice has given its first pipe up: a new pipe takes the place of the old one.
  if (!waiting || waiting->attached[side]) waiting = std::make_shared<LocalPipe>();
  waiting->attached[side] = true;
  auto pipe = waiting;
  if (pipe->attached[0] && pipe->attached[1]) half_open_.erase(key);
  return pipe;
}

namespace {

class LocalTransport;

class LocalEndpoint final : public Endpoint {
 public:
  LocalEndpoint(LocalTransport& owner, std::shared_ptr<LocalHub> hub, int rank, int peer_rank, int lane_number);
  ~LocalEndpoint() override;

  Result<void> send(Slice source) override;
  Result<void> recv(Slice destination) override;
  Result<void> recv_in_place(std::size_t bytes) override;
  std::span<const std::byte> readable() override;
  void consume(std::size_t bytes) override;
  Result<void> send_in_place(std::size_t bytes) override;
  std::span<std::byte> writable() override;
  void commit(std::size_t bytes) override;

  bool progress();

 private:
  using Direction = LocalDirection;

  [[nodiscard]] Result<void> check_slice(const Slice& slice) const;
  [[nodiscard]] Result<void> post_send(Direction::Send send);
  [[nodiscard]] Result<void> post_recv(Direction::Recv recv);
  // All of these with the hub's mutex held:
  [[nodiscard]] bool receive_some();
  static void complete(Direction& direction);
  void fail_pipe(Error error);

  LocalTransport& owner_;
  std::shared_ptr<LocalHub> hub_;
  std::size_t side_;
  std::shared_ptr<LocalPipe> pipe_;
  Direction& out_;
  Direction& in_;
  std::span<std::byte> given_;  // by writable(), until commit()
  bool given_staged_ = false;
};

class LocalRegion final : public Region {
 public:
  LocalRegion(const Transport& owner, Buffer buffer, std::size_t mapped)
      : Region(owner, buffer, mapped > 0), mapped_(mapped) {}
  ~LocalRegion() override {
    if (mapped_ > 0) ::munmap(buffer().data, mapped_);
  }

 private:
  std::size_t mapped_;  // bytes to unmap; 0 for memory of the caller
};

class LocalTransport final : public Transport {
 public:
  explicit LocalTransport(const Settings& settings) : rank_(settings.rank), hub_(settings.hub) {}
  ~LocalTransport() override { GRADRAIL_CHECK(endpoints_.empty()); }

  const Traits& traits() const override {
    static constexpr Traits traits{.name = "local",
                                   .same_host_only = true,
                                   .writes_in_place = true,
                                   .allocates_direct = true,
                                   .depth = LocalDirection::k_depth};
    return traits;
  }

  Result<Address> listen() override {
    ByteWriter writer;
    writer.put_string("local");
    writer.put(static_cast<std::int32_t>(rank_));
    return std::move(writer).take();
  }

  Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers, Deadline) override {
    std::vector<std::unique_ptr<Endpoint>> made;
    for (const auto& peer : peers) {
      ByteReader reader(peer.address);
      const auto name = reader.get_string();
      const auto rank = reader.get<std::int32_t>();
      if (!reader.ok() || name != "local" || rank != peer.rank || peer.rank == rank_) {
        return fail(Code::bad_usage, fmt::format("the address of rank {} is not one of the local transport", peer.rank),
                    peer.rank);
      }
      made.push_back(std::make_unique<LocalEndpoint>(*this, hub_, rank_, peer.rank, peer.lane));
    }
    return made;
  }

  Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override {
    if (buffer.space != Space::host) {
      return fail(Code::unsupported,
                  "the local transport moves host memory only; copy device memory to the host first");
    }
    return std::make_unique<LocalRegion>(*this, buffer, 0);
  }

  Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override {
    const std::size_t mapped = std::max<std::size_t>(bytes, 1);
    void* data = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return fail(Code::exhausted, fmt::format("cannot allocate {} bytes", bytes));
    return std::make_unique<LocalRegion>(*this, Buffer{static_cast<std::byte*>(data), bytes}, mapped);
  }

  bool progress() override {
    bool moved = false;
    for (auto* endpoint : endpoints_) moved |= endpoint->progress();
    return moved;
  }

  void wait(Seconds at_most) override {
    if (at_most.count() <= 0) {
      ::sched_yield();
    } else {
      std::this_thread::sleep_for(std::min(at_most, Seconds(20e-6)));
    }
  }

  void add(LocalEndpoint* endpoint) { endpoints_.push_back(endpoint); }
  void remove(LocalEndpoint* endpoint) { std::erase(endpoints_, endpoint); }

 private:
  int rank_;
  std::shared_ptr<LocalHub> hub_;
  std::vector<LocalEndpoint*> endpoints_;
};

LocalEndpoint::LocalEndpoint(LocalTransport& owner, std::shared_ptr<LocalHub> hub, int rank, int peer_rank,
                             int lane_number)
    : Endpoint(peer_rank, lane_number),
      owner_(owner),
      hub_(std::move(hub)),
      side_(rank < peer_rank ? 0 : 1),
      pipe_(hub_->attach(rank, peer_rank, lane_number)),
      out_(pipe_->from[side_]),
      in_(pipe_->from[1 - side_]) {
  owner_.add(this);
}

LocalEndpoint::~LocalEndpoint() {
  owner_.remove(this);
  const std::scoped_lock lock(hub_->mutex);
  pipe_->closed[side_] = true;
}

Result<void> LocalEndpoint::check_slice(const Slice& slice) const {
  if (slice.within(owner_)) return {};
  return fail(Code::bad_usage, "the slice is not within a region registered with this transport", peer());
}

Result<void> LocalEndpoint::post_send(Direction::Send send) {
  if (failure_) return tl::unexpected(*failure_);
  const std::scoped_lock lock(hub_->mutex);
  // Against sends_done_, not out_.done: what the caller can see decides.
  if (out_.sends_posted - sends_done_ >= Direction::k_depth) {
    return fail(Code::exhausted, fmt::format("{} sends to rank {} are outstanding", Direction::k_depth, peer()),
                peer());
  }
  out_.sends[out_.sends_posted++ % Direction::k_depth] = send;
  return {};
}

Result<void> LocalEndpoint::post_recv(Direction::Recv recv) {
  if (failure_) return tl::unexpected(*failure_);
  const std::scoped_lock lock(hub_->mutex);
  if (in_.recvs_posted - recvs_done_ >= Direction::k_depth) {
    return fail(Code::exhausted, fmt::format("{} receives from rank {} are outstanding", Direction::k_depth, peer()),
                peer());
  }
  in_.recvs[in_.recvs_posted++ % Direction::k_depth] = recv;
  return {};
}

Result<void> LocalEndpoint::send(Slice source) {
  GRADRAIL_TRY(check_slice(source));
  return post_send({source.data(), source.size, false});
}

Result<void> LocalEndpoint::recv(Slice destination) {
  GRADRAIL_TRY(check_slice(destination));
  return post_recv({destination.data(), destination.size, false});
}

Result<void> LocalEndpoint::send_in_place(std::size_t bytes) { return post_send({nullptr, bytes, true}); }

Result<void> LocalEndpoint::recv_in_place(std::size_t bytes) { return post_recv({nullptr, bytes, true}); }

void LocalEndpoint::complete(Direction& direction) {
  ++direction.done;
  direction.committed = direction.received = direction.staged_begin = direction.staged_end = 0;
}

void LocalEndpoint::fail_pipe(Error error) {
  failure_ = std::move(error);
  pipe_->closed[side_] = true;
}

std::span<const std::byte> LocalEndpoint::readable() {
  const std::scoped_lock lock(hub_->mutex);
  if (failure_ || pipe_->closed[1 - side_] || in_.recvs_posted == in_.done || in_.sends_posted <= in_.done) return {};
  const auto& recv = in_.recvs[in_.done % Direction::k_depth];
  const auto& send = in_.sends[in_.done % Direction::k_depth];
  if (!recv.in_place || recv.size != send.size) return {};  // progress() reports the difference
  if (send.in_place) return std::span(in_.staging).subspan(in_.staged_begin, in_.staged_end - in_.staged_begin);
  return {send.data + in_.received, send.size - in_.received};
}

void LocalEndpoint::consume(std::size_t bytes) {
  const std::scoped_lock lock(hub_->mutex);
  GRADRAIL_CHECK(in_.recvs_posted > in_.done && in_.sends_posted > in_.done);
  const auto& recv = in_.recvs[in_.done % Direction::k_depth];
  const auto& send = in_.sends[in_.done % Direction::k_depth];
  const std::size_t there = send.in_place ? in_.staged_end - in_.staged_begin : send.size - in_.received;
  GRADRAIL_CHECK(recv.in_place && (bytes == there || (bytes < there && bytes % 64 == 0)));
  in_.received += bytes;
  if (send.in_place) {
    in_.staged_begin += bytes;
  } else {
    in_.traffic[static_cast<std::size_t>(Path::zero_copy)] += bytes;
  }
  if (in_.received == send.size) complete(in_);
  recvs_done_ = in_.done;
}

std::span<std::byte> LocalEndpoint::writable() {
  if (failure_) return {};
  if (!given_.empty()) return given_;
  const std::scoped_lock lock(hub_->mutex);
  if (pipe_->closed[1 - side_] || out_.sends_posted == out_.done) return {};
  const auto& send = out_.sends[out_.done % Direction::k_depth];
  const std::size_t left = send.size - out_.committed;
  if (!send.in_place || left == 0) return {};
  if (out_.recvs_posted > out_.done) {
    const auto& recv = out_.recvs[out_.done % Direction::k_depth];
    if (recv.size != send.size) return {};
    if (!recv.in_place) {
      // Straight into the destination, once the receiver has fetched what was staged before it posted.
      if (out_.received != out_.committed) return {};
      given_ = {recv.data + out_.committed, left};
      given_staged_ = false;
      return given_;
    }
  }
  if (out_.staging.empty()) out_.staging.resize(Direction::k_staging_bytes);
  if (out_.staged_begin == out_.staged_end) out_.staged_begin = out_.staged_end = 0;
  given_ = std::span(out_.staging).subspan(out_.staged_end);
  given_ = given_.first(std::min(given_.size(), left));
  given_staged_ = true;
  return given_;
}

void LocalEndpoint::commit(std::size_t bytes) {
  const std::scoped_lock lock(hub_->mutex);
  const auto& send = out_.sends[out_.done % Direction::k_depth];
  GRADRAIL_CHECK(bytes <= given_.size() && (bytes % 64 == 0 || out_.committed + bytes == send.size));
  given_ = {};
  out_.committed += bytes;
  out_.traffic[static_cast<std::size_t>(given_staged_ ? Path::one_copy : Path::zero_copy)] += bytes;
  if (given_staged_) {
    out_.staged_end += bytes;
  } else {
    out_.received += bytes;
    if (out_.received == send.size) complete(out_);
  }
  sends_done_ = out_.done;
}

bool LocalEndpoint::receive_some() {
  if (in_.recvs_posted <= in_.done || in_.sends_posted <= in_.done) return false;
  const auto& recv = in_.recvs[in_.done % Direction::k_depth];
  const auto& send = in_.sends[in_.done % Direction::k_depth];
  if (recv.size != send.size) {
    fail_pipe({Code::malformed,
               fmt::format("rank {} sent a message of {} bytes where {} were expected", peer(), send.size, recv.size),
               peer()});
    return false;
  }
  if (recv.in_place && recv.size > 0) return false;  // the caller reads it
  if (!send.in_place) {
    if (recv.size > 0) std::memcpy(recv.data, send.data, recv.size);
    in_.traffic[static_cast<std::size_t>(Path::zero_copy)] += recv.size;
    in_.received = recv.size;
  } else if (const std::size_t staged = in_.staged_end - in_.staged_begin; staged > 0) {
    std::memcpy(recv.data + in_.received, in_.staging.data() + in_.staged_begin, staged);
    in_.staged_begin = in_.staged_end;
    in_.received += staged;
  } else if (recv.size > 0) {
    return false;
  }
  if (in_.received == recv.size) complete(in_);
  return true;
}

bool LocalEndpoint::progress() {
  if (failure_) return false;
  const std::scoped_lock lock(hub_->mutex);
  const bool gone = pipe_->closed[1 - side_];
  bool moved = false;
  // The memory of a peer that is gone may be gone too: nothing more is read from it.
  while (!gone && receive_some()) moved = true;
  moved |= recvs_done_ != in_.done || sends_done_ != out_.done;
  recvs_done_ = in_.done;
  sends_done_ = out_.done;
  traffic_ = out_.traffic;
  if (gone && !failure_) {
    fail_pipe({Code::peer_gone, fmt::format("rank {} has closed its end of the connection", peer()), peer()});
  }
  return moved;
}

Result<std::unique_ptr<Transport>> make_local(const Settings& settings) {
  if (!settings.hub) {
    return fail(Code::bad_usage, "the local transport joins ranks that live in one process; choose shm or tcp");
  }
  return std::make_unique<LocalTransport>(settings);
}

}  // namespace

extern const TransportKind k_local_transport;
const TransportKind k_local_transport{"local", "between ranks of one process, for tests", [] { return Result<void>{}; },
                                      &make_local};

}  // namespace gradrail

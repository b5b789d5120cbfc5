// Pipes over UCX (its UCP layer, tag matching): over whatever it finds between two ranks, shared memory, sockets or
// RDMA, as the user's UCX_* variables allow. Owned by its rank, on the rank's one thread.
//
// Two ranks exchange the addresses of their workers over a socket that stays open as the pipe's side channel
// (transports/introductions.h), and try the way by a hello in each direction before a pipe is open. UCX's own
// connections prove nothing to each other: as with RDMA, that is left to the network.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/base/pages.h"
#include "transports/introductions.h"
#include "transports/settings.h"
#include "transports/ucx/endpoint.h"

namespace gradrail::ucx {

class UcxTransport;

class UcxRegion final : public Region {
 public:
  // `pages`: the memory, if it is the region's own. `handle` may be null for no bytes. What peers reach of it is UCX's
  // own affair, hence not direct.
  UcxRegion(const Transport& owner, const Worker& worker, Buffer buffer, ucp_mem_h handle, Pages pages = {})
      : Region(owner, buffer, false), worker_(worker), pages_(std::move(pages)), handle_(handle) {}
  ~UcxRegion() override {
    if (handle_ != nullptr) worker_.unmap(handle_);
  }
  [[nodiscard]] ucp_mem_h handle() const { return handle_; }

 private:
  const Worker& worker_;
  Pages pages_;
  ucp_mem_h handle_;
};

class UcxTransport final : public Transport {
 public:
  // Errors: those of Worker::make, system.
  [[nodiscard]] static Result<std::unique_ptr<Transport>> make(const Settings& settings);
  ~UcxTransport() override;

  [[nodiscard]] const Traits& traits() const override;
  [[nodiscard]] std::string describe() const override;
  [[nodiscard]] Result<Address> listen() override;
  [[nodiscard]] Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers,
                                                                       Deadline deadline) override;
  [[nodiscard]] Result<std::unique_ptr<Bare>> open_bare(const Peer& peer, const BareOptions& options,
                                                        Deadline deadline) override;
  [[nodiscard]] Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override;
  [[nodiscard]] Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override;
  bool progress() override;
  void wait(Seconds at_most) override;

  // For endpoints.
  void enter(UcxEndpoint& endpoint);
  void leave(UcxEndpoint& endpoint);
  [[nodiscard]] Worker& worker() const { return *worker_; }
  // Keeps flights that UCX has not done with.
  void keep(std::unique_ptr<Flights> flights);

 private:
  struct Opening;

  UcxTransport(const Settings& settings, std::unique_ptr<Worker> worker, Fd epoll);
  [[nodiscard]] Result<Link*> link_to(int rank, const Introduction& own, const Introduction& peer);
  void ask(Seconds at_most);
  void look_around();

  Settings settings_;
  std::vector<std::unique_ptr<Flights>> kept_;  // before the worker, to go after it
  std::unique_ptr<Worker> worker_;
  Fd epoll_;
  Introductions introductions_{"ucx", Introduction::k_most_bytes};
  std::map<int, std::vector<std::unique_ptr<Link>>> links_;  // by rank; the last one is in use
  std::vector<UcxEndpoint*> endpoints_;
  std::uint64_t next_pipe_ = 1;
  unsigned calls_ = 0;
  Clock::time_point looked_around_ = Clock::now();
};

}  // namespace gradrail::ucx

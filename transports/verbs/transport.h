// Pipes over RDMA: reliable queue pairs of libibverbs, on InfiniBand or RoCE. Owned by its rank, on the rank's one
// thread.
//
// Two ranks introduce their queue pairs to each other over a socket that stays open as the pipe's side channel
// (transports/introductions.h), and connect them by what they heard, or by rdma_cm (cm.h). Each transport uses one
// device, or several as rails: a pipe begins with the rail of its lane's turn, and its long messages are striped over
// all. options.h and device.h choose them. Completions are found by polling; a wait that may sleep asks the device to
// be woken by the next one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/introductions.h"
#include "transports/settings.h"
#include "transports/verbs/endpoint.h"

namespace gradrail::verbs {

class VerbsTransport final : public Transport {
 public:
  // Errors: those of Device::open, bad_usage (settings), system.
  [[nodiscard]] static Result<std::unique_ptr<Transport>> make(const Settings& settings);
  // The same over other calls than libibverbs' and librdmacm's (null: there is none), which must outlive the transport;
  // tests use it.
  [[nodiscard]] static Result<std::unique_ptr<Transport>> make(const Settings& settings, Calls& calls,
                                                               CmCalls* cm_calls = nullptr,
                                                               CudaDriver& driver = cuda_driver());
  ~VerbsTransport() override;

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

  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] const std::vector<std::unique_ptr<Device>>& rails() const { return devices_; }

  // For endpoints.
  void enter(VerbsEndpoint& endpoint);
  void leave(VerbsEndpoint& endpoint);
  // Takes what the devices have to say, and tells the endpoints that it concerns.
  void take_events();

 private:
  struct Opening;

  VerbsTransport(const Settings& settings, Options options, std::vector<std::unique_ptr<Device>> devices, Fd epoll,
                 CudaDriver& driver);
  [[nodiscard]] Result<std::unique_ptr<Region>> register_gpu_memory(Buffer buffer);
  [[nodiscard]] SharedReceives* shared_receives(std::size_t rail) {
    return shared_.empty() ? nullptr : shared_[rail].get();
  }
  void take_events(Device& device);
  void ask(Seconds at_most);
  void look_around();

  Settings settings_;
  Options options_;
  std::vector<std::unique_ptr<Device>> devices_;  // the rails
  CudaDriver& driver_;
  std::map<int, std::unique_ptr<Gpu>> gpus_;             // by CUDA ordinal, as memory of theirs comes
  std::vector<std::string> gpu_paths_;                   // that memory of theirs took, in words, each once
  Registrations registrations_;                          // goes before the devices
  std::vector<std::unique_ptr<SharedReceives>> shared_;  // one for each, if at all
  std::unique_ptr<CmPort> cm_;                           // null: not by rdma_cm
  Fd epoll_;
  std::size_t ring_bytes_;
  std::size_t eager_bytes_;
  Introductions introductions_{"verbs", Introduction::k_most_bytes};
  std::vector<VerbsEndpoint*> endpoints_;
  unsigned idle_ = 0;
  Clock::time_point looked_around_ = Clock::now();
};

}  // namespace gradrail::verbs

// Pipes over RDMA: reliable queue pairs of libibverbs, on InfiniBand or RoCE. Owned by its rank, on the rank's one
// thread.
//
// Two ranks meet as over tcp: the lower connects a socket to the higher, both prove the job's secret (handshake.h), the
// lower introduces its queue pair in its hello, the higher answers with its own (or why not), and the lower says when
// it is ready. The socket stays open as the pipe's side channel. Each transport uses one device, chosen by options.h
// and device.h; completions are
// found by polling; a wait that may sleep asks the device to be woken by the next one.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "transports/base/fd.h"
#include "transports/handshake.h"
#include "transports/settings.h"
#include "transports/verbs/endpoint.h"

namespace gradrail::verbs {

class VerbsTransport final : public Transport {
 public:
  // Errors: those of Device::open, bad_usage (settings), system.
  [[nodiscard]] static Result<std::unique_ptr<Transport>> make(const Settings& settings);
  // The same over other calls than libibverbs', which must outlive the transport; tests use it.
  [[nodiscard]] static Result<std::unique_ptr<Transport>> make(const Settings& settings, Calls& calls);
  ~VerbsTransport() override;

  [[nodiscard]] const Traits& traits() const override;
  [[nodiscard]] std::string describe() const override { return device_->describe(); }
  [[nodiscard]] Result<Address> listen() override;
  [[nodiscard]] Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers,
                                                                       Deadline deadline) override;
  [[nodiscard]] Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override;
  [[nodiscard]] Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override;
  bool progress() override;
  void wait(Seconds at_most) override;

  // For endpoints.
  void enter(VerbsEndpoint& endpoint);
  void leave(VerbsEndpoint& endpoint);
  [[nodiscard]] Device& device() const { return *device_; }
  // Takes what the device has to say, and tells the endpoints that it concerns.
  void take_events();
  // What happened to the port that explains failures; empty if nothing did.
  [[nodiscard]] std::string_view port_note() const { return port_note_; }

 private:
  struct Early {  // proven, and not yet asked for
    Introduction introduction;
    Fd fd;
  };
  struct Opening;

  VerbsTransport(const Settings& settings, std::unique_ptr<Device> device, Fd epoll);
  [[nodiscard]] Result<void> take_early();
  [[nodiscard]] Result<void> start(Opening& opening);
  [[nodiscard]] Result<void> advance(Opening& opening);
  [[nodiscard]] Result<void> advance_lower(Opening& opening);
  [[nodiscard]] Result<void> advance_higher(Opening& opening);
  [[nodiscard]] Result<void> agree(Opening& opening, std::span<const std::byte> introduction) const;
  void ask(Seconds at_most);
  void look_around();

  Settings settings_;
  std::unique_ptr<Device> device_;
  Fd epoll_;
  std::size_t ring_bytes_;
  std::size_t eager_bytes_;
  std::optional<Acceptor> acceptor_;
  std::vector<Early> early_;
  std::vector<VerbsEndpoint*> endpoints_;
  std::string_view port_note_;
  unsigned idle_ = 0;
  Clock::time_point looked_around_ = Clock::now();
};

}  // namespace gradrail::verbs

// Pipes over TCP: the transport that reaches every host. Owned by its rank, on the rank's one thread.
//
// The lower rank of a pair connects to the higher; each socket is proven with the job's secret and says in its hello
// which rank, lane and index it is (transports/handshake.h). All sockets are non-blocking and watched, edge-triggered,
// by one epoll set; with few busy endpoints progress() does not ask it, but reads and writes straight away. A
// connection that comes before connect() asks for it waits in `early_`. The listener stays open, so that connect() may
// be called again.
#pragma once

#include <optional>
#include <vector>

#include "transports/base/fd.h"
#include "transports/handshake.h"
#include "transports/settings.h"
#include "transports/tcp/endpoint.h"
#include "transports/tcp/pace.h"
#include "transports/transport.h"

namespace gradrail {

class TcpTransport final : public Transport {
 public:
  // Errors: bad_usage (connections out of 1..16), system.
  [[nodiscard]] static Result<std::unique_ptr<Transport>> make(const Settings& settings);
  ~TcpTransport() override;

  [[nodiscard]] const Traits& traits() const override;
  [[nodiscard]] Result<Address> listen() override;
  [[nodiscard]] Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer> peers,
                                                                       Deadline deadline) override;
  [[nodiscard]] Result<std::unique_ptr<Region>> register_memory(Buffer buffer) override;
  [[nodiscard]] Result<std::unique_ptr<Region>> allocate(std::size_t bytes) override;
  bool progress() override;
  void wait(Seconds at_most) override;

  [[nodiscard]] int rank() const { return settings_.rank; }
  // For endpoints, as they are made and destroyed.
  void enter(TcpEndpoint& endpoint);
  void leave(TcpEndpoint& endpoint);
  // True if an endpoint expects part of a long message (pace.h).
  [[nodiscard]] bool takes_long() const;
  // Of long messages, over all endpoints.
  [[nodiscard]] Pace& pace() { return pace_; }

 private:
  struct Early {  // proven, and not yet asked for
    int rank, lane, index, connections;
    Fd fd;
  };

  TcpTransport(const Settings& settings, Fd epoll) : settings_(settings), epoll_(std::move(epoll)) {}
  [[nodiscard]] Result<void> take_early();
  [[nodiscard]] Result<std::optional<Fd>> claim(const Peer& peer, int index);
  // Asks epoll, waiting at most so long; true if it had something to say.
  bool ask(Seconds at_most);
  void look_around();

  Settings settings_;
  Fd epoll_;
  std::optional<Acceptor> acceptor_;
  std::vector<Early> early_;
  std::vector<TcpEndpoint*> endpoints_;
  Pace pace_;
  unsigned calls_ = 0;
  Clock::time_point looked_around_ = Clock::now();
};

}  // namespace gradrail

// The tcp transport beside plain pairs of sockets, between two processes on loopback. Both ends of a pair do the same:
// ping-pong, where one message is under way at a time, and exchange, where both send and receive a message at once. The
// plain exchange goes over one socket both ways, or over one for each way. The forked end follows the program's own
// pace and ends with it. Interleave the two for a fair ratio:
//   micro_tcp --benchmark_enable_random_interleaving=true --benchmark_repetitions=9
#include <benchmark/benchmark.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <algorithm>
#include <functional>
#include <memory>

#include "transports/base/check.h"
#include "transports/handshake.h"
#include "transports/settings.h"

namespace gradrail {
namespace {

Deadline soon() { return Deadline::after(Seconds(20)); }

enum class Pattern : std::int64_t { ping_pong, exchange };

// One end of a link that moves messages of one size; `round` is one ping-pong or one exchange.
class Link {
 public:
  virtual ~Link() = default;
  virtual void round(Pattern pattern, bool first, std::size_t bytes) = 0;
};

class PlainSockets final : public Link {
 public:
  // One socket, or one to send on and one to receive from.
  PlainSockets(std::vector<Fd> sockets, std::size_t bytes) : sockets_(std::move(sockets)), out_(bytes), in_(bytes) {
    for (const Fd& socket : sockets_) {
      set_prompt_and_watched(socket.get());
      if (on_loopback(socket.get())) size_buffers_on_one_host(socket.get());
    }
  }
  void round(Pattern pattern, bool first, std::size_t bytes) override {
    if (pattern == Pattern::exchange) return move(bytes, bytes);
    move(first ? bytes : 0, first ? 0 : bytes);
    move(first ? 0 : bytes, first ? bytes : 0);
  }

 private:
  void move(std::size_t send, std::size_t receive) {
    const std::size_t turn = std::max(send, receive) <= (4u << 20) ? 256u << 10 : 1u << 20;
    const int to = sockets_.front().get();
    const int from = sockets_.back().get();
    std::size_t sent = 0;
    std::size_t received = 0;
    int idle = 0;
    while (sent < send || received < receive) {
      bool moved = false;
      if (sent < send) {
        const auto n = ::send(to, out_.data() + sent, std::min(turn, send - sent), MSG_NOSIGNAL);
        if (n > 0) sent += static_cast<std::size_t>(n);
        moved |= n > 0;
      }
      if (received < receive) {
        const auto n = ::recv(from, in_.data() + received, std::min(turn, receive - received), 0);
        if (n == 0) ::_exit(0);
        if (n > 0) received += static_cast<std::size_t>(n);
        moved |= n > 0;
      }
      idle = moved ? 0 : idle + 1;
      if (idle > 20) ::sched_yield();
    }
  }
  std::vector<Fd> sockets_;
  Bytes out_, in_;
};

class Pipes final : public Link {
 public:
  Pipes(int rank, Fd control, int connections, std::size_t bytes) {
    Settings settings;
    settings.rank = rank;
    settings.ranks = 2;
    settings.connections = connections;
    transport_ = make_transport("tcp", settings).value();
    const auto mine = transport_->listen().value();
    GRADRAIL_CHECK(send_frame(control.get(), mine, soon()));
    const Peer peer{1 - rank, 0, "loopback", receive_frame(control.get(), 1000, soon()).value()};
    pipe_ = std::move(transport_->connect({&peer, 1}, soon()).value().front());
    memory_ = transport_->allocate(2 * bytes).value();
  }
  void round(Pattern pattern, bool first, std::size_t bytes) override {
    const Slice out{memory_.get(), 0, bytes};
    const Slice in{memory_.get(), memory_->buffer().size / 2, bytes};
    const auto sends = pipe_->sends_done() + 1;
    const auto recvs = pipe_->recvs_done() + 1;
    post(pipe_->recv(in));
    if (pattern == Pattern::ping_pong && !first) drive([&] { return pipe_->recvs_done() == recvs; });
    post(pipe_->send(out));
    drive([&] { return pipe_->sends_done() == sends && pipe_->recvs_done() == recvs; });
  }

 private:
  static void post(const Result<void>& posted) {
    if (!posted) ::_exit(0);  // the other end has finished
  }
  template <class Done>
  void drive(Done done) {
    int idle = 0;
    while (!done()) {
      if (pipe_->failure() != nullptr) ::_exit(0);
      idle = transport_->progress() ? 0 : idle + 1;
      if (idle > 20) transport_->wait(Seconds(0));
    }
  }
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Region> memory_;
  std::unique_ptr<Endpoint> pipe_;
};

// Both ends of a link, the second in a process of its own.
void run(benchmark::State& state, const std::function<std::unique_ptr<Link>(int rank, std::vector<Fd>)>& make,
         int plain) {
  const auto pattern = static_cast<Pattern>(state.range(0));
  const auto bytes = static_cast<std::size_t>(state.range(1));
  std::vector<Fd> ends[2];
  for (int i = 0; i < plain; ++i) {
    auto listener = listen_tcp("127.0.0.1", 0).value();
    ends[1].push_back(connect_tcp("127.0.0.1", local_port(listener.get()).value(), soon(), OnRefused::fail).value());
    ends[0].push_back(accept_connection(listener.get(), soon()).value());
  }
  if (plain == 0) {
    int fds[2];
    GRADRAIL_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    for (int i = 0; i < 2; ++i) ends[i].emplace_back(fds[i]);
  }
  std::reverse(ends[1].begin(), ends[1].end());  // one sends where the other receives
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ends[0].clear();
    const auto link = make(1, std::move(ends[1]));
    for (;;) link->round(pattern, false, bytes);
  }
  ends[1].clear();
  const auto link = make(0, std::move(ends[0]));
  for (int i = 0; i < 20; ++i) link->round(pattern, true, bytes);
  for (auto _ : state) link->round(pattern, true, bytes);
  state.SetBytesProcessed(state.iterations() * 2 * state.range(1));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

void plain_sockets(benchmark::State& state) {
  run(
      state,
      [&](int, std::vector<Fd> sockets) {
        return std::make_unique<PlainSockets>(std::move(sockets), static_cast<std::size_t>(state.range(1)));
      },
      static_cast<int>(state.range(2)));
}
void tcp_transport(benchmark::State& state) {
  run(
      state,
      [&](int rank, std::vector<Fd> control) {
        return std::make_unique<Pipes>(rank, std::move(control.front()), static_cast<int>(state.range(2)),
                                       static_cast<std::size_t>(state.range(1)));
      },
      0);
}

constexpr auto k_ping_pong = static_cast<std::int64_t>(Pattern::ping_pong);
constexpr auto k_exchange = static_cast<std::int64_t>(Pattern::exchange);

BENCHMARK(plain_sockets)
    ->ArgNames({"exchange", "bytes", "sockets"})
    ->ArgsProduct({{k_ping_pong}, {8, 1024, 16 << 10}, {1, 2}})
    ->ArgsProduct({{k_exchange}, {64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}, {1, 2}})
    ->UseRealTime();
BENCHMARK(tcp_transport)
    ->ArgNames({"exchange", "bytes", "connections"})
    ->ArgsProduct({{k_ping_pong}, {8, 1024, 16 << 10}, {1}})
    ->ArgsProduct({{k_exchange}, {64 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20}, {1, 2, 4}})
    ->UseRealTime();

}  // namespace
}  // namespace gradrail

// The tcp transport beside a plain pair of sockets, between two processes on loopback. Both ends of a pair do the same:
// ping-pong, where one message is under way at a time, and exchange, where both send and receive a message at once. The
// forked end follows the program's own pace and ends with it. Interleave the two for a fair ratio:
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
  PlainSockets(Fd socket, std::size_t bytes) : socket_(std::move(socket)), out_(bytes), in_(bytes) {
    set_prompt_and_watched(socket_.get());
    for (const int option : {SO_SNDBUF, SO_RCVBUF}) {
      constexpr int k_bytes = 1 << 20;
      ::setsockopt(socket_.get(), SOL_SOCKET, option, &k_bytes, sizeof k_bytes);
    }
  }
  void round(Pattern pattern, bool first, std::size_t bytes) override {
    if (pattern == Pattern::exchange) return move(bytes, bytes);
    move(first ? bytes : 0, first ? 0 : bytes);
    move(first ? 0 : bytes, first ? bytes : 0);
  }

 private:
  void move(std::size_t send, std::size_t receive) {
    constexpr std::size_t k_turn = 256 << 10;
    std::size_t sent = 0;
    std::size_t received = 0;
    int idle = 0;
    while (sent < send || received < receive) {
      bool moved = false;
      if (sent < send) {
        const auto n = ::send(socket_.get(), out_.data() + sent, std::min(k_turn, send - sent), MSG_NOSIGNAL);
        if (n > 0) sent += static_cast<std::size_t>(n);
        moved |= n > 0;
      }
      if (received < receive) {
        const auto n = ::recv(socket_.get(), in_.data() + received, std::min(k_turn, receive - received), 0);
        if (n == 0) ::_exit(0);
        if (n > 0) received += static_cast<std::size_t>(n);
        moved |= n > 0;
      }
      idle = moved ? 0 : idle + 1;
      if (idle > 20) ::sched_yield();
    }
  }
  Fd socket_;
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
void run(benchmark::State& state, const std::function<std::unique_ptr<Link>(int rank, Fd listener_or_control)>& make,
         bool plain) {
  const auto pattern = static_cast<Pattern>(state.range(0));
  const auto bytes = static_cast<std::size_t>(state.range(1));
  Fd ends[2];
  if (plain) {
    auto listener = listen_tcp("127.0.0.1", 0).value();
    ends[1] = connect_tcp("127.0.0.1", local_port(listener.get()).value(), soon(), OnRefused::fail).value();
    ends[0] = accept_connection(listener.get(), soon()).value();
  } else {
    int fds[2];
    GRADRAIL_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    ends[0] = Fd(fds[0]);
    ends[1] = Fd(fds[1]);
  }
  const pid_t child = ::fork();
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ends[0].reset();
    const auto link = make(1, std::move(ends[1]));
    for (;;) link->round(pattern, false, bytes);
  }
  ends[1].reset();
  const auto link = make(0, std::move(ends[0]));
  for (int i = 0; i < 20; ++i) link->round(pattern, true, bytes);
  for (auto _ : state) link->round(pattern, true, bytes);
  state.SetBytesProcessed(state.iterations() * 2 * state.range(1));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

void plain_sockets(benchmark::State& state) {
  run(
      state, [&](int, Fd socket) { return std::make_unique<PlainSockets>(std::move(socket), state.range(1)); }, true);
}
void tcp_transport(benchmark::State& state) {
  run(
      state,
      [&](int rank, Fd control) {
        return std::make_unique<Pipes>(rank, std::move(control), static_cast<int>(state.range(2)),
                                       static_cast<std::size_t>(state.range(1)));
      },
      false);
}

constexpr auto k_ping_pong = static_cast<std::int64_t>(Pattern::ping_pong);
constexpr auto k_exchange = static_cast<std::int64_t>(Pattern::exchange);

BENCHMARK(plain_sockets)
    ->ArgNames({"exchange", "bytes"})
    ->ArgsProduct({{k_ping_pong}, {8, 1024, 16 << 10}})
    ->ArgsProduct({{k_exchange}, {64 << 10, 1 << 20, 16 << 20, 64 << 20}})
    ->UseRealTime();
BENCHMARK(tcp_transport)
    ->ArgNames({"exchange", "bytes", "sockets"})
    ->ArgsProduct({{k_ping_pong}, {8, 1024, 16 << 10}, {1}})
    ->ArgsProduct({{k_exchange}, {64 << 10, 1 << 20, 16 << 20, 64 << 20}, {1, 2, 4}})
    ->UseRealTime();

}  // namespace
}  // namespace gradrail

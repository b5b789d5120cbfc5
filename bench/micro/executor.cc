// What the executor costs: the same collective over the same kind of endpoints, once as a plan run by communicators and
// once written by hand, all ranks driven in turn by one thread. One thread sees every instruction of every rank and no
// waiting, so the difference is the executor's own work; the times of both, batch by batch in turn, are in one row.
//   by_hand_ns, executor_ns   per operation and rank, median over batches
//   overhead_ns, overhead_pct of the executor over the hand-written loop
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "bench/measure/statistics.h"
#include "collectives/exec/communicator.h"
#include "collectives/exec/kernels/reduce.h"
#include "transports/base/check.h"
#include "transports/local/hub.h"

namespace gradrail {
namespace {

constexpr std::size_t k_batch = 20;

template <class T>
T value(Result<T> result) {
  GRADRAIL_CHECK(result.has_value());
  return std::move(*result);
}
void ok(const Result<void>& result) { GRADRAIL_CHECK(result.has_value()); }

std::vector<Member> members_of(int ranks) {
  std::vector<Member> members;
  for (int rank = 0; rank < ranks; ++rank) members.push_back({rank, "here", "127.0.0.1", 1 + rank});
  return members;
}

// Runs `work` for every rank at once: opening connections waits for the other side.
void on_all(int ranks, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(work, rank);
  for (std::thread& thread : threads) thread.join();
}

// The plan's side.
class ByExecutor {
 public:
  ByExecutor(int ranks, const std::string& transport, const char* algorithm, std::size_t count)
      : hub_(std::make_shared<LocalHub>()) {
    std::vector<Bytes> addresses;
    for (int rank = 0; rank < ranks; ++rank) {
      CommunicatorOptions options;
      options.inner = options.outer = transport;
      options.settings.hub = hub_;
      groups_.push_back(value(Communicator::open(options, members_of(ranks), rank)));
      addresses.push_back(groups_.back()->address());
    }
    for (auto& group : groups_) ok(group->meet(addresses));
    calls_.resize(groups_.size());
    memory_.resize(groups_.size());
    on_all(ranks, [&](int rank) {
      const auto i = static_cast<std::size_t>(rank);
      memory_[i] = value(groups_[i]->allocate(2 * count * sizeof(float)));
      calls_[i].in = {&memory_[i], 0};
      calls_[i].out = {&memory_[i], count * sizeof(float)};
      calls_[i].count = count;
      calls_[i].algorithm = algorithm;
      calls_[i].lanes = calls_[i].pieces = 1;
      ok(groups_[i]->run(calls_[i], Deadline::after(Seconds(20))));
    });
  }
  ~ByExecutor() { memory_.clear(); }

  void once() {
    const Deadline deadline = Deadline::after(Seconds(20));
    operations_.resize(groups_.size());
    for (std::size_t i = 0; i < groups_.size(); ++i) operations_[i] = value(groups_[i]->start(calls_[i], deadline));
    for (bool all = false; !all;) {
      all = true;
      for (std::size_t i = 0; i < groups_.size(); ++i) all &= value(groups_[i]->test(operations_[i]));
    }
  }

 private:
  std::shared_ptr<LocalHub> hub_;
  std::vector<std::unique_ptr<Communicator>> groups_;
  std::vector<Memory> memory_;
  std::vector<Call> calls_;
  std::vector<Communicator::Operation> operations_;
};

// Endpoints without an executor.
class ByHand {
 public:
  ByHand(int ranks, const std::string& name, std::size_t count)
      : ranks_(ranks), count_(count), hub_(std::make_shared<LocalHub>()) {
    const auto n = static_cast<std::size_t>(ranks);
    transports_.resize(n);
    std::vector<Address> addresses(n);
    for (std::size_t i = 0; i < n; ++i) {
      Settings settings;
      settings.rank = static_cast<int>(i);
      settings.ranks = ranks;
      settings.hub = hub_;
      transports_[i] = value(make_transport(name, settings));
      addresses[i] = value(transports_[i]->listen());
    }
    next_.resize(n);
    previous_.resize(n);
    regions_.resize(n);
    states_.resize(n);
    sends_.resize(n);
    receives_.resize(n);
    on_all(ranks, [&](int rank) {
      const auto i = static_cast<std::size_t>(rank);
      const int next = (rank + 1) % ranks;
      const int previous = (rank + ranks - 1) % ranks;
      std::vector<Peer> peers{{next, 0, "here", addresses[static_cast<std::size_t>(next)]}};
      if (previous != next) peers.push_back({previous, 0, "here", addresses[static_cast<std::size_t>(previous)]});
      auto endpoints = value(transports_[i]->connect(peers, Deadline::after(Seconds(20))));
      next_[i] = std::move(endpoints[0]);
      if (endpoints.size() > 1) previous_[i] = std::move(endpoints[1]);
      regions_[i] = value(transports_[i]->allocate(2 * count * sizeof(float)));
    });
  }
  ~ByHand() {
    next_.clear();
    previous_.clear();
    regions_.clear();
  }

  // One collective, every rank polled in turn until all are done: the way the executor is driven, too.
  void once(bool ring) {
    std::fill(states_.begin(), states_.end(), State{});
    for (bool all = false; !all;) {
      all = true;
      for (std::size_t rank = 0; rank < states_.size(); ++rank) all &= ring ? poll_ring(rank) : poll_exchange(rank);
    }
  }

 private:
  // Where a rank is within its collective.
  struct State {
    int round = 0;
    bool posted = false;    // this round's messages
    std::size_t added = 0;  // bytes of this round's message
  };

  // Sends all it has, and adds what comes. True once done.
  bool poll_exchange(std::size_t rank) {
    State& state = states_[rank];
    Endpoint& peer = *next_[rank];
    const std::size_t bytes = count_ * sizeof(float);
    if (!state.posted) {
      ok(peer.send({regions_[rank].get(), 0, bytes}));
      ok(peer.recv_in_place(bytes));
      ++sends_[rank];
      state.posted = true;
    }
    transports_[rank]->progress();
    if (state.added < bytes) add(rank, peer, 0, bytes, bytes);
    return state.added == bytes && peer.sends_done() == sends_[rank];
  }

  // Reduce-scatter, then all-gather, a block a round. True once done.
  bool poll_ring(std::size_t rank) {
    State& state = states_[rank];
    const int n = ranks_;
    const int me = static_cast<int>(rank);
    Endpoint& next = *next_[rank];
    Endpoint& previous = *previous_[rank];
    const std::size_t total = count_ * sizeof(float);
    const std::size_t block = total / static_cast<std::size_t>(n);
    const auto offset = [&](int index) { return block * static_cast<std::size_t>((index % n + n) % n); };
    for (; state.round < 2 * (n - 1); ++state.round, state.posted = false, state.added = 0) {
      const bool reducing = state.round < n - 1;
      // The first block is still in the input; later ones are in the output.
      const std::size_t from = (state.round == 0 ? 0 : total) + offset(me - state.round);
      const std::size_t to = offset(me - state.round - 1);
      if (!state.posted) {
        ok(next.send({regions_[rank].get(), from, block}));
        ++sends_[rank];
        ok(reducing ? previous.recv_in_place(block) : previous.recv({regions_[rank].get(), total + to, block}));
        ++receives_[rank];
        state.posted = true;
      }
      transports_[rank]->progress();
      if (reducing) add(rank, previous, to, total + to, block);
      if (previous.recvs_done() < receives_[rank]) return false;
    }
    transports_[rank]->progress();
    return next.sends_done() == sends_[rank];
  }

  // Adds what has come of a message of `bytes`.
  void add(std::size_t rank, Endpoint& from, std::size_t own, std::size_t to, std::size_t bytes) {
    static const ReduceFn sum = reduce_function(Type::f32, ReduceOp::sum);
    std::size_t& at = states_[rank].added;
    std::byte* base = regions_[rank]->buffer().data;
    while (at < bytes) {
      const auto part = from.readable();
      if (part.empty()) return;
      sum(base + to + at, base + own + at, part.data(), part.size() / sizeof(float));
      from.consume(part.size());
      at += part.size();
    }
  }

  int ranks_;
  std::size_t count_;
  std::shared_ptr<LocalHub> hub_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::unique_ptr<Region>> regions_;
  std::vector<std::unique_ptr<Endpoint>> next_;
  std::vector<std::unique_ptr<Endpoint>> previous_;  // null where it is the same as next
  std::vector<State> states_;
  std::vector<std::uint64_t> sends_;     // posted so far on each `next_`
  std::vector<std::uint64_t> receives_;  // posted so far on each `previous_`
};

template <class Work>
double batch_ns(int ranks, Work&& work) {
  const auto begin = Clock::now();
  for (std::size_t i = 0; i < k_batch; ++i) work();
  return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / k_batch / ranks;
}

void compare(benchmark::State& state, int ranks, const char* transport, const char* algorithm, bool ring) {
  const auto count = static_cast<std::size_t>(state.range(0)) / sizeof(float);
  ByExecutor executor(ranks, transport, algorithm, count);
  ByHand hand(ranks, transport, count);
  std::vector<double> by_executor, by_hand;
  const auto hand_once = [&] { hand.once(ring); };
  for (auto _ : state) {
    by_hand.push_back(batch_ns(ranks, hand_once));
    by_executor.push_back(batch_ns(ranks, [&] { executor.once(); }));
  }
  const double h = median(by_hand);
  const double e = median(by_executor);
  state.counters["by_hand_ns"] = h;
  state.counters["executor_ns"] = e;
  state.counters["overhead_ns"] = e - h;
  state.counters["overhead_pct"] = 100 * (e - h) / h;
}

void two_rank_exchange_local(benchmark::State& state) { compare(state, 2, "local", "recursive_doubling", false); }
void two_rank_exchange_shm(benchmark::State& state) { compare(state, 2, "shm", "recursive_doubling", false); }
void ring_of_four_local(benchmark::State& state) { compare(state, 4, "local", "ring", true); }
void ring_of_four_shm(benchmark::State& state) { compare(state, 4, "shm", "ring", true); }

BENCHMARK(two_rank_exchange_local)->Arg(16)->Arg(4096)->Arg(1 << 20);
BENCHMARK(two_rank_exchange_shm)->Arg(16)->Arg(4096)->Arg(1 << 20);
BENCHMARK(ring_of_four_local)->Arg(64)->Arg(4096)->Arg(1 << 20);
BENCHMARK(ring_of_four_shm)->Arg(64)->Arg(4096)->Arg(1 << 20);

}  // namespace
}  // namespace gradrail

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

  // Everyone sends all it has, and adds what comes.
  void exchange() {
    const std::size_t bytes = count_ * sizeof(float);
    for (std::size_t i = 0; i < regions_.size(); ++i) {
      ok(next_[i]->send({regions_[i].get(), 0, bytes}));
      ok(next_[i]->recv_in_place(bytes));
    }
    for (std::size_t i = 0; i < regions_.size(); ++i) add(i, *next_[i], 0, bytes, bytes);
    ++sends_;
    drain();
  }

  // Reduce-scatter, then all-gather, a block a round.
  void ring() {
    const std::size_t total = count_ * sizeof(float);
    const std::size_t block = total / static_cast<std::size_t>(ranks_);
    const int n = ranks_;
    const auto offset = [&](int index) { return block * static_cast<std::size_t>((index % n + n) % n); };
    for (int round = 0; round < n - 1; ++round) {
      for (int rank = 0; rank < n; ++rank) {
        const auto i = static_cast<std::size_t>(rank);
        // The first block is still in the input; later ones are sums in the output.
        const std::size_t from = round == 0 ? 0 : total;
        ok(next_[i]->send({regions_[i].get(), from + offset(rank - round), block}));
        ok(previous_[i]->recv_in_place(block));
      }
      for (int rank = 0; rank < n; ++rank) {
        const std::size_t at = offset(rank - round - 1);
        add(static_cast<std::size_t>(rank), *previous_[static_cast<std::size_t>(rank)], at, total + at, block);
      }
      ++receives_;
    }
    for (int round = 0; round < n - 1; ++round) {
      for (int rank = 0; rank < n; ++rank) {
        const auto i = static_cast<std::size_t>(rank);
        ok(next_[i]->send({regions_[i].get(), total + offset(rank + 1 - round), block}));
        ok(previous_[i]->recv({regions_[i].get(), total + offset(rank - round), block}));
      }
      ++receives_;
      for (const auto& endpoint : previous_)
        while (endpoint->recvs_done() < receives_) progress();
    }
    sends_ += 2 * static_cast<std::uint64_t>(n - 1);
    drain();
  }

 private:
  void progress() {
    for (auto& transport : transports_) transport->progress();
  }
  void add(std::size_t rank, Endpoint& from, std::size_t own, std::size_t to, std::size_t bytes) {
    static const ReduceFn sum = reduce_function(Type::f32, ReduceOp::sum);
    std::byte* base = regions_[rank]->buffer().data;
    for (std::size_t at = 0; at < bytes;) {
      const auto part = from.readable();
      if (part.empty()) {
        progress();
        continue;
      }
      sum(base + to + at, base + own + at, part.data(), part.size() / sizeof(float));
      from.consume(part.size());
      at += part.size();
    }
  }
  // Until everyone's sends are complete: the executor promises that, too.
  void drain() {
    for (const auto& endpoint : next_)
      while (endpoint->sends_done() < sends_) progress();
  }

  int ranks_;
  std::size_t count_;
  std::shared_ptr<LocalHub> hub_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<std::unique_ptr<Region>> regions_;
  std::vector<std::unique_ptr<Endpoint>> next_;
  std::vector<std::unique_ptr<Endpoint>> previous_;  // null where it is the same as next
  std::uint64_t sends_ = 0;                          // posted so far on each `next_`
  std::uint64_t receives_ = 0;                       // of the ring, on each `previous_`
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

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
  const auto hand_once = [&] { ring ? hand.ring() : hand.exchange(); };
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

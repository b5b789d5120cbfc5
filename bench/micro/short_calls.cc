// A short allreduce between two ranks of one host, each bound to a core, and what it cannot be faster than: two
// processes that write a line or a block each and add up the other's, with nothing around it. Batches of the two are
// interleaved, because cores' distance moves under a run. Counters:
//   trip_ns   one way of a bare cache line, a ping-pong's half
//   bare_ns   an exchange of bare memory; bare_ns_least the smallest batch
//   call_ns   Communicator::run(), in place from plain memory; call_ns_least the smallest batch
#include <benchmark/benchmark.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "collectives/exec/communicator.h"
#include "collectives/exec/kernels/reduce.h"
#include "transports/base/check.h"
#include "transports/base/cores.h"

namespace gradrail {
namespace {

constexpr std::size_t k_most = 16 << 10;
constexpr int k_batch = 500;

struct Shared {
  struct alignas(4096) Rank {
    struct alignas(128) Turn {
      std::atomic<std::uint64_t> number{0};
    };
    std::array<Turn, 2> turns;  // by parity
    alignas(4096) std::array<std::array<std::byte, k_most>, 2> data{};
    std::atomic<std::uint64_t> arrived{0};
    std::atomic<std::size_t> address_bytes{0};
    std::array<std::byte, 4096> address{};
  };
  std::array<Rank, 2> ranks;
  std::array<Rank::Turn, 2> pings;
};

class Side {
 public:
  Side(Shared& shared, int rank, const std::vector<int>& cores)
      : shared_(shared), rank_(static_cast<std::size_t>(rank)) {
    if (cores.size() > 1) GRADRAIL_CHECK(bind_to_core(cores[rank_]).has_value());
    CommunicatorOptions options;
    options.inner = options.outer = "shm";
    std::vector<Member> members;
    for (int r = 0; r < 2; ++r) members.push_back({r, "here", "127.0.0.1", 1 + r});
    communicator_ = Communicator::open(options, members, rank).value();
    const Bytes& mine = communicator_->address();
    GRADRAIL_CHECK(mine.size() <= shared.ranks[rank_].address.size());
    std::copy(mine.begin(), mine.end(), shared.ranks[rank_].address.begin());
    shared.ranks[rank_].address_bytes = mine.size();
    std::vector<Bytes> addresses;
    for (auto& one : shared.ranks) {
      while (one.address_bytes == 0) ::sched_yield();
      addresses.emplace_back(one.address.data(), one.address.data() + one.address_bytes);
    }
    GRADRAIL_CHECK(communicator_->meet(addresses).has_value());
    memory_ = communicator_->adopt(buffer_).value();
  }

  double trip() {
    together();
    const auto begin = Clock::now();
    for (int i = 0; i < k_batch; ++i) {
      ++pings_;
      if (rank_ == 0) shared_.pings[0].number.store(pings_, std::memory_order_release);
      while (shared_.pings[1 - rank_].number.load(std::memory_order_acquire) != pings_) {
      }
      if (rank_ == 1) shared_.pings[1].number.store(pings_, std::memory_order_release);
    }
    return ns_since(begin) / 2;
  }
  double bare(std::size_t bytes) {
    static const ReduceFn sum = reduce_function(Type::f32, ReduceOp::sum);
    Shared::Rank &mine = shared_.ranks[rank_], &its = shared_.ranks[1 - rank_];
    together();
    const auto begin = Clock::now();
    for (int i = 0; i < k_batch; ++i) {
      ++turn_;
      const std::size_t set = turn_ % 2;
      std::memcpy(mine.data[set].data(), buffer_.data(), bytes);
      mine.turns[set].number.store(turn_, std::memory_order_release);
      while (its.turns[set].number.load(std::memory_order_acquire) != turn_) {
      }
      sum(buffer_.data(), buffer_.data(), its.data[set].data(), bytes / sizeof(float));
    }
    return ns_since(begin);
  }
  double call(std::size_t bytes) {
    Call call;
    call.in = call.out = {&memory_, 0};
    call.in_place = true;
    call.count = bytes / sizeof(float);
    const Deadline deadline = Deadline::after(Seconds(20));
    GRADRAIL_CHECK(communicator_->run(call, deadline).has_value());  // bound before the clock runs
    together();
    const auto begin = Clock::now();
    for (int i = 0; i < k_batch; ++i) GRADRAIL_CHECK(communicator_->run(call, deadline).has_value());
    return ns_since(begin);
  }

 private:
  static double ns_since(Clock::time_point begin) {
    return std::chrono::duration<double, std::nano>(Clock::now() - begin).count() / k_batch;
  }
  void together() {
    shared_.ranks[rank_].arrived = ++meetings_;
    while (shared_.ranks[1 - rank_].arrived < meetings_) ::sched_yield();
  }

  Shared& shared_;
  std::size_t rank_;
  std::unique_ptr<Communicator> communicator_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(k_most);
  Memory memory_;
  std::uint64_t meetings_ = 0;
  std::uint64_t turn_ = 0;
  std::uint64_t pings_ = 0;
};

void short_call(benchmark::State& state) {
  static const std::vector<int> cores = usable_cores();  // before anybody was bound
  const auto bytes = static_cast<std::size_t>(state.range(0));
  void* const memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  GRADRAIL_CHECK(memory != MAP_FAILED);
  auto& shared = *new (memory) Shared;
  const pid_t pid = ::fork();
  GRADRAIL_CHECK(pid >= 0);
  if (pid == 0) {
    Side side(shared, 1, cores);
    for (;;) {
      side.trip();
      side.bare(bytes);
      side.call(bytes);
    }
  }
  std::vector<double> trips, bare, call;
  {
    Side side(shared, 0, cores);
    for (auto _ : state) {
      trips.push_back(side.trip());
      bare.push_back(side.bare(bytes));
      call.push_back(side.call(bytes));
    }
  }
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  ::munmap(memory, sizeof(Shared));
  const auto report = [&](const std::string& name, std::vector<double>& values) {
    std::sort(values.begin(), values.end());
    state.counters[name] = values[values.size() / 2];
    state.counters[name + "_least"] = values.front();
  };
  report("trip_ns", trips);
  report("bare_ns", bare);
  report("call_ns", call);
}
BENCHMARK(short_call)
    ->Arg(4)
    ->Arg(64)
    ->RangeMultiplier(4)
    ->Range(256, k_most)
    ->Iterations(200)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace gradrail

// The machine's limits, as the probes of a benchmark see them: copying and adding by working set, far beyond the caches
// by threads, and the latency between two cores. bytes_per_second counts bytes read and written.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "bench/measure/probe.h"
#include "collectives/exec/kernels/reduce.h"

namespace gradrail {
namespace {

void copy(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  const std::vector<std::byte> from(bytes);
  std::vector<std::byte> to(bytes);
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), bytes);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(2 * bytes) * static_cast<std::int64_t>(state.iterations()));
}
BENCHMARK(copy)->RangeMultiplier(16)->Range(1 << 12, 1 << 28);

// A copy by the reduce kernel of one input, which is also how it hands one result to several.
void copy_to_many(benchmark::State& state) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  const auto outputs = static_cast<std::size_t>(state.range(1));
  const std::vector<std::byte> from(bytes);
  std::vector<std::vector<std::byte>> to(outputs, std::vector<std::byte>(bytes));
  const std::vector<const std::byte*> inputs_at = {from.data()};
  std::vector<std::byte*> outputs_at;
  for (auto& one : to) outputs_at.push_back(one.data());
  const ReduceManyFn fan_out = reduce_many_function(Type::f32, ReduceOp::sum);
  for (auto _ : state) fan_out(outputs_at, inputs_at, bytes / sizeof(float), 0);
  state.SetBytesProcessed(static_cast<std::int64_t>((1 + outputs) * bytes) *
                          static_cast<std::int64_t>(state.iterations()));
}
BENCHMARK(copy_to_many)->ArgsProduct({{1 << 16, 1 << 22, 1 << 26}, {1, 3}});

void set_gbs(benchmark::State& state, const char* name, double gbs) {
  state.counters[name] = benchmark::Counter(gbs * 1e9, benchmark::Counter::kDefaults, benchmark::Counter::kIs1000);
}

void probe_caches(benchmark::State& state) {
  CacheBandwidth last;
  for (auto _ : state) last = cache_bandwidth(static_cast<std::size_t>(state.range(0)), Seconds(0.01));
  set_gbs(state, "copy", last.copy_gbs);
  set_gbs(state, "add", last.add_gbs);
}
BENCHMARK(probe_caches)->Arg(32 << 10)->Arg(1 << 20)->Arg(16 << 20)->Iterations(5)->Unit(benchmark::kMillisecond);

void probe_memory(benchmark::State& state) {
  auto probe = Probe::create();
  if (!probe) return state.SkipWithError(probe.error().message.c_str());
  const auto threads = static_cast<int>(state.range(0));
  double copied = 0, added = 0;
  for (auto _ : state) {
    copied = probe->copy_gbs(threads, Seconds(0.025));
    added = probe->add_gbs(threads, Seconds(0.025));
  }
  set_gbs(state, "copy", copied);
  set_gbs(state, "add", added);
}
BENCHMARK(probe_memory)->Arg(1)->Arg(2)->Iterations(5)->Unit(benchmark::kMillisecond);

void probe_phase(benchmark::State& state) {
  auto probe = Probe::create();
  if (!probe) return state.SkipWithError(probe.error().message.c_str());
  PhaseNames names;
  Phase phase;
  for (auto _ : state) phase = probe->phase();
  state.counters["core_to_core_ns"] = phase.core_to_core_ns;
  set_gbs(state, "memory", phase.memory_gbs);
  state.SetLabel(names.name(phase));
}
BENCHMARK(probe_phase)->Iterations(1)->Repetitions(5)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace gradrail

// Choosing 1 % by size, exactly, against LibTorch's topk on one thread: 64 MiB of gradient. What is timed of LibTorch
// is topk alone, unsorted, on sizes made beforehand; of ours, everything from the gradient to pairs of index and value.
// times_of_exact is the ratio of the medians, each pair of runs one after the other. Built where LibTorch is found.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <vector>

#include "bench/measure/statistics.h"
#include "bench/micro/gradient.h"
#include "bench/micro/timed.h"
#include "collectives/compress/select.h"

namespace gradrail {
namespace {

constexpr std::size_t k_count = std::size_t{16} << 20;
constexpr std::size_t k_wanted = k_count / 100;

void torch_topk(benchmark::State& state) {
  at::set_num_threads(1);
  const auto from = gradient(k_count);
  const at::Tensor tensor =
      at::from_blob(const_cast<float*>(from.data()), {static_cast<std::int64_t>(k_count)}, at::kFloat);
  const at::Tensor sizes = tensor.abs();
  Selection selection;
  std::vector<double> times, ours;
  for (auto _ : state) {
    times.push_back(seconds(
        [&] { benchmark::DoNotOptimize(at::topk(sizes, static_cast<std::int64_t>(k_wanted), -1, true, false)); }));
    ours.push_back(seconds([&] { selection.exact(from, k_wanted); }));
    state.SetIterationTime(times.back());
  }
  state.counters["ours_ms"] = 1e3 * median(ours);
  state.counters["times_of_exact"] = median(times) / median(ours);
}
BENCHMARK(torch_topk)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(9);

}  // namespace
}  // namespace gradrail

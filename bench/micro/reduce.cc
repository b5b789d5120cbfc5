// How close the reduce kernels come to what memory gives. Each iteration times the kernel and a STREAM-like loop
// (to[i] = a[i] + b[i] on doubles, written plainly and left to the compiler) of the same traffic in turn, so that both
// meet the same phase of the machine. bytes_per_second and limit count bytes read and written; of_limit is the ratio of
// the medians.
#include "collectives/exec/kernels/reduce.h"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/measure/statistics.h"
#include "bench/micro/timed.h"

namespace gradrail {
namespace {

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define GRADRAIL_CLONES __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define GRADRAIL_CLONES __attribute__((noinline))
#endif

GRADRAIL_CLONES void stream_add(double* to, const double* a, const double* b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] = a[i] + b[i];
}

struct Free {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<std::byte[], Free>;

// Page-aligned and touched; numbers that stay finite under any operation.
Memory make_memory(std::size_t bytes) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096));
  std::memset(memory, 0, bytes);
  return Memory(memory);
}

// Small sizes are repeated within a timing, so that the clock does not show.
void against_limit(benchmark::State& state, std::size_t traffic, const std::function<void()>& kernel,
                   const std::function<void()>& limit) {
  const std::size_t repeat = std::max<std::size_t>(1, (1 << 20) / traffic);
  std::vector<double> kernel_times, limit_times;
  for (auto _ : state) {
    limit_times.push_back(seconds([&] {
      for (std::size_t i = 0; i < repeat; ++i) limit();
    }));
    kernel_times.push_back(seconds([&] {
      for (std::size_t i = 0; i < repeat; ++i) kernel();
    }));
    state.SetIterationTime(kernel_times.back());
  }
  const double bytes = static_cast<double>(traffic * repeat);
  const auto rate = benchmark::Counter::kDefaults;
  state.counters["median"] = benchmark::Counter(bytes / median(kernel_times), rate, benchmark::Counter::kIs1000);
  state.counters["limit"] = benchmark::Counter(bytes / median(limit_times), rate, benchmark::Counter::kIs1000);
  state.counters["of_limit"] = median(limit_times) / median(kernel_times);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * traffic * repeat));
}

void pairwise(benchmark::State& state, Type type, ReduceOp op, bool in_place) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  const auto a = make_memory(bytes), b = make_memory(bytes), c = make_memory(bytes);
  std::byte* const to = in_place ? a.get() : c.get();
  const auto as_double = [](std::byte* memory) { return reinterpret_cast<double*>(memory); };
  const ReduceFn reduce = reduce_function(type, op);
  against_limit(
      state, 3 * bytes, [&] { reduce(to, a.get(), b.get(), bytes / size_of(type)); },
      [&] { stream_add(as_double(to), as_double(a.get()), as_double(b.get()), bytes / sizeof(double)); });
}

// Every rank's input into every rank's output, in place: what a fused exchange in shared memory does. The limit is the
// same loop as above over as many bytes; it reads two for each that it writes, the kernel one, so that far beyond the
// caches the kernel may be the faster of the two.
void many(benchmark::State& state, Type type, std::size_t ranks) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  std::vector<Memory> buffers;
  std::vector<std::byte*> to;
  std::vector<const std::byte*> from;
  for (std::size_t i = 0; i < ranks; ++i) {
    buffers.push_back(make_memory(bytes));
    to.push_back(buffers.back().get());
    from.push_back(buffers.back().get());
  }
  const ReduceManyFn reduce = reduce_many_function(type, ReduceOp::sum);
  const auto as_double = [](std::byte* memory) { return reinterpret_cast<double*>(memory); };
  // The limit: a = a + b, as often as it takes for the same number of bytes.
  const double scale = static_cast<double>(2 * ranks) / 3;
  const auto part =
      static_cast<std::size_t>(static_cast<double>(bytes / sizeof(double)) * scale / static_cast<double>(ranks));
  against_limit(
      state, 2 * ranks * bytes, [&] { reduce(to, from, bytes / size_of(type), 0); },
      [&] {
        for (std::size_t i = 0; i < ranks; ++i) {
          const auto next = (i + 1) % ranks;
          stream_add(as_double(to[i]), as_double(to[i]), as_double(to[next]), part);
        }
      });
}

void divide(benchmark::State& state, Type type) {
  const auto bytes = static_cast<std::size_t>(state.range(0));
  const auto a = make_memory(bytes);
  const DivideFn function = divide_function(type);
  for (auto _ : state) function(a.get(), bytes / size_of(type), 3);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * 2 * bytes));
}

void name_all() {
  const auto add = [](const std::string& name, auto... arguments) {
    return benchmark::RegisterBenchmark(name.c_str(), arguments...)->UseManualTime()->Unit(benchmark::kMicrosecond);
  };
  const auto sizes = [](benchmark::internal::Benchmark* one) {
    for (const std::int64_t bytes : {16 << 10, 256 << 10, 4 << 20, 256 << 20}) one->Arg(bytes);
  };
  for (const Type type : {Type::f32, Type::f64, Type::f16, Type::bf16}) {
    const std::string name(to_string(type));
    sizes(add("sum/" + name, pairwise, type, ReduceOp::sum, false));
    sizes(add("sum_in_place/" + name, pairwise, type, ReduceOp::sum, true));
  }
  for (const Type type : k_types) {
    for (const ReduceOp op : {ReduceOp::sum, ReduceOp::prod, ReduceOp::min, ReduceOp::max}) {
      const std::string name = std::string(to_string(op)) + "_in_l2/" + std::string(to_string(type));
      add(name, pairwise, type, op, true)->Arg(128 << 10);
    }
  }
  for (const std::size_t ranks : {2u, 4u, 8u}) {
    for (const Type type : {Type::f32, Type::bf16, Type::f16}) {
      const std::string name = "many" + std::to_string(ranks) + "/" + std::string(to_string(type));
      add(name, many, type, ranks)->Arg(64 << 10)->Arg(4 << 20)->Arg(64 << 20);
    }
  }
  for (const Type type : k_types) {
    const std::string name = "divide/" + std::string(to_string(type));
    benchmark::RegisterBenchmark(name.c_str(), divide, type)->Arg(1 << 20)->Unit(benchmark::kMicrosecond);
  }
}

const bool k_named = (name_all(), true);

}  // namespace
}  // namespace gradrail

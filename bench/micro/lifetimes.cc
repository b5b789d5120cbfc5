// What it costs to be told when memory is given back: watching and letting go, and unmapping memory that is watched
// against memory that is not. Arguments: KiB of the range; whether it is watched.
#include "transports/base/lifetimes.h"

#include <benchmark/benchmark.h>
#include <sys/mman.h>

#include <cstring>

namespace gradrail {
namespace {

AddressRange map(std::size_t bytes) {
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memset(memory, 1, bytes);
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  return {begin, begin + bytes};
}

void watch(benchmark::State& state) {
  auto lifetimes = Lifetimes::start();
  if (!lifetimes) return state.SkipWithError(lifetimes.error().message.c_str());
  const auto range = map(static_cast<std::size_t>(state.range(0)) << 10);
  for (auto _ : state) {
    benchmark::DoNotOptimize((*lifetimes)->watch(range));
    (*lifetimes)->unwatch(range);
  }
  ::munmap(reinterpret_cast<void*>(range.begin), range.end - range.begin);
}
BENCHMARK(watch)->Arg(1024)->Arg(65536);

void unmap(benchmark::State& state) {
  auto lifetimes = Lifetimes::start();
  if (!lifetimes) return state.SkipWithError(lifetimes.error().message.c_str());
  auto gone = std::make_unique<Lifetimes::Gone>();
  for (auto _ : state) {
    state.PauseTiming();
    const auto range = map(static_cast<std::size_t>(state.range(0)) << 10);
    if (state.range(1) != 0) benchmark::DoNotOptimize((*lifetimes)->watch(range));
    state.ResumeTiming();
    ::munmap(reinterpret_cast<void*>(range.begin), range.end - range.begin);
    benchmark::DoNotOptimize((*lifetimes)->take_gone(*gone));
  }
}
BENCHMARK(unmap)->ArgsProduct({{1024, 65536}, {0, 1}});

}  // namespace
}  // namespace gradrail

// How close the codecs come to what memory gives, on one core: 64 MiB of gradient, far beyond the caches.
//
// Three limits are measured in turn with each codec, so that all meet the same phase of the machine: reading (sums of
// 64 MiB), copying (64 MiB to elsewhere: memcpy or a plain loop, whichever is faster), and updating (adding to 64 MiB
// in place). A codec's limit is the time those need for the bytes that it touches: encoding r bytes to w bytes is a
// copy of w bytes and the reading of the other r - w; decode-add of w bytes is an update of 64 MiB and the reading of w
// bytes. of_limit is the ratio of the medians, 1 being the limit; of_read compares 64 MiB over the codec's time with
// reading. bytes_per_second counts the gradient's 64 MiB.
//
// of_pack compares an encoder with a loop that reads as it does, in one stream asked for ahead, and writes as many
// bytes in another, to the message's own place, but computes nothing of use: what stores are left to do when reading
// does not wait, which the limit above, two passes apart, does not say. It writes through the caches or around them,
// whichever is faster.
//
// Counters that say nothing of a benchmark are 0: what writes tables wants the same of all.
#include "collectives/compress/codec.h"

#include <benchmark/benchmark.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/measure/statistics.h"
#include "bench/micro/gradient.h"
#include "bench/micro/timed.h"
#include "collectives/compress/select.h"
#include "collectives/compress/sparse.h"
#include "collectives/compress/sparse_sum.h"

namespace gradrail {
namespace {

constexpr std::size_t k_count = std::size_t{16} << 20;
constexpr double k_bytes = 4.0 * static_cast<double>(k_count);

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__SANITIZE_THREAD__)
#define GRADRAIL_CLONES __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#else
#define GRADRAIL_CLONES __attribute__((noinline))
#endif

GRADRAIL_CLONES std::uint64_t stream_read(const std::uint64_t* a, std::size_t count) {
  std::uint64_t sums[32] = {};
  for (std::size_t i = 0; i + 32 <= count; i += 32) {
    for (std::size_t j = 0; j < 32; ++j) sums[j] += a[i + j];
  }
  return std::accumulate(std::begin(sums), std::end(sums), std::uint64_t{0});
}
GRADRAIL_CLONES void stream_copy(std::uint64_t* to, const std::uint64_t* from, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] = from[i] + 1;  // so that it becomes no call of memcpy
}
GRADRAIL_CLONES void stream_update(std::uint64_t* to, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) to[i] += 3;
}

constexpr std::size_t k_ahead = 1024;  // words, as far as codecs ask for memory

// So many lines of 64 bytes become one. Around the caches if asked for.
template <std::size_t k_lines>
GRADRAIL_CLONES void stream_pack(std::uint64_t* to, const std::uint64_t* from, std::size_t lines) {
  for (std::size_t line = 0; line < lines; ++line, to += 8, from += 8 * k_lines) {
    std::uint64_t all[8] = {};
    for (std::size_t i = 0; i < k_lines; ++i) {
      __builtin_prefetch(from + 8 * i + k_ahead);
      for (std::size_t j = 0; j < 8; ++j) all[j] ^= from[8 * i + j];
    }
    for (std::size_t j = 0; j < 8; ++j) to[j] = all[j];
  }
}
#if defined(__SSE2__)
template <std::size_t k_lines>
GRADRAIL_CLONES void stream_pack_around(std::uint64_t* to, const std::uint64_t* from, std::size_t lines) {
  for (std::size_t line = 0; line < lines; ++line, to += 8, from += 8 * k_lines) {
    alignas(64) std::uint64_t all[8] = {};
    for (std::size_t i = 0; i < k_lines; ++i) {
      __builtin_prefetch(from + 8 * i + k_ahead);
      for (std::size_t j = 0; j < 8; ++j) all[j] ^= from[8 * i + j];
    }
    for (std::size_t j = 0; j < 8; j += 2) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + j), _mm_load_si128(reinterpret_cast<const __m128i*>(all + j)));
    }
  }
  _mm_sfence();
}
#else
template <std::size_t k_lines>
void stream_pack_around(std::uint64_t* to, const std::uint64_t* from, std::size_t lines) {
  stream_pack<k_lines>(to, from, lines);
}
#endif

// Times of one pass over 64 MiB.
class Limits {
 public:
  void measure() {
    auto* const a = reinterpret_cast<std::uint64_t*>(a_.get());
    auto* const b = reinterpret_cast<std::uint64_t*>(b_.get());
    constexpr std::size_t k_words = k_count / 2;
    read_.push_back(seconds([&] { benchmark::DoNotOptimize(stream_read(a, k_words)); }));
    memcpy_.push_back(seconds([&] { std::memcpy(b, a, k_words * 8); }));
    loop_.push_back(seconds([&] { stream_copy(b, a, k_words); }));
    update_.push_back(seconds([&] { stream_update(b, k_words); }));
  }
  [[nodiscard]] double read() const { return median(read_); }
  [[nodiscard]] double copy() const { return std::min(median(memcpy_), median(loop_)); }
  [[nodiscard]] double update() const { return median(update_); }

 private:
  Memory<float> a_ = make_memory<float>(k_count), b_ = make_memory<float>(k_count);
  std::vector<double> read_, memcpy_, loop_, update_;
};

benchmark::Counter rate(double bytes_per_second) {
  return {bytes_per_second, benchmark::Counter::kDefaults, benchmark::Counter::kIs1000};
}

// Reading 64 MiB of `from` and writing a k-th of it to `to`.
class Packing {
 public:
  Packing(const void* from, std::byte* to, double ratio) : from_(static_cast<const std::uint64_t*>(from)) {
    to_ = reinterpret_cast<std::uint64_t*>((reinterpret_cast<std::uintptr_t>(to) + 63) / 64 * 64);
    for (const int lines : {2, 4, 8, 32}) {
      if (std::fabs(ratio / lines - 1) < 0.1) lines_ = lines;
    }
  }
  void measure() {
    if (lines_ == 2) measure_as<2>();
    if (lines_ == 4) measure_as<4>();
    if (lines_ == 8) measure_as<8>();
    if (lines_ == 32) measure_as<32>();
  }
  // 0 if there is no such loop for the codec's ratio.
  [[nodiscard]] double time() const { return lines_ == 0 ? 0 : std::min(median(through_), median(around_)); }

 private:
  template <std::size_t k_lines>
  void measure_as() {
    constexpr std::size_t k_out = k_count * 4 / 64 / k_lines - 1;  // the message may begin inside a line
    through_.push_back(seconds([&] { stream_pack<k_lines>(to_, from_, k_out); }));
    around_.push_back(seconds([&] { stream_pack_around<k_lines>(to_, from_, k_out); }));
  }

  const std::uint64_t* from_;
  std::uint64_t* to_;
  int lines_ = 0;
  std::vector<double> through_, around_;
};

void no_counters(benchmark::State& state) {
  for (const char* name :
       {"read", "copy", "update", "of_limit", "of_read", "of_pack", "ratio", "kept", "times_of_exact", "pairs"}) {
    state.counters[name] = 0;
  }
}

void report(benchmark::State& state, const Limits& limits, double time, double limit) {
  state.counters["read"] = rate(k_bytes / limits.read());
  state.counters["copy"] = rate(2 * k_bytes / limits.copy());
  state.counters["update"] = rate(2 * k_bytes / limits.update());
  state.counters["of_limit"] = limit / time;
  state.counters["of_read"] = limits.read() / time;
  state.SetBytesProcessed(static_cast<std::int64_t>(k_bytes) * state.iterations());
}

void encode(benchmark::State& state, const std::string& name) {
  const auto codec = make_codec(name).value();
  const auto from = gradient(k_count);
  const std::size_t room = codec->max_bytes(from.size());
  const auto message = make_memory<std::byte>(room);
  Limits limits;
  std::vector<double> times;
  double bytes = static_cast<double>(codec->encode(from, {message.get(), room}, {.seed = 1}).value().bytes);
  Packing packing(from.data(), message.get(), k_bytes / bytes);
  std::uint64_t step = 1;
  for (auto _ : state) {
    limits.measure();
    packing.measure();
    times.push_back(seconds([&] {
      bytes =
          static_cast<double>(codec->encode(from, {message.get(), room}, {.seed = 1, .step = step++}).value().bytes);
    }));
    state.SetIterationTime(times.back());
  }
  const double share = bytes / k_bytes;
  report(state, limits, median(times), share * limits.copy() + (1 - share) * limits.read());
  state.counters["ratio"] = k_bytes / bytes;
  state.counters["of_pack"] = packing.time() / median(times);
}

void decode_add(benchmark::State& state, const std::string& name) {
  const auto codec = make_codec(name).value();
  const auto from = gradient(k_count);
  const std::size_t room = codec->max_bytes(from.size());
  const auto message = make_memory<std::byte>(room);
  const std::size_t bytes = codec->encode(from, {message.get(), room}, {.seed = 1}).value().bytes;
  const auto to = make_memory<float>(k_count);
  Limits limits;
  std::vector<double> times;
  for (auto _ : state) {
    limits.measure();
    times.push_back(seconds([&] {
      if (!codec->decode_add({message.get(), bytes}, {to.get(), k_count})) state.SkipWithError("decoding failed");
    }));
    state.SetIterationTime(times.back());
  }
  report(state, limits, median(times), limits.update() + static_cast<double>(bytes) / k_bytes * limits.read());
}

// Choosing 1 % by size; and std::nth_element over indices, which is what one would write.
void choose(benchmark::State& state, bool sampled) {
  const auto from = gradient(k_count);
  constexpr std::size_t k_wanted = k_count / 100;
  Selection selection;
  Limits limits;
  std::vector<double> times;
  for (auto _ : state) {
    limits.measure();
    times.push_back(seconds([&] { sampled ? selection.sampled(from, k_wanted) : selection.exact(from, k_wanted); }));
    state.SetIterationTime(times.back());
  }
  report(state, limits, median(times), limits.read());
  state.counters["kept"] = static_cast<double>(selection.pairs().size()) / static_cast<double>(k_wanted);
}

void nth_element(benchmark::State& state) {
  const auto from = gradient(k_count);
  constexpr std::ptrdiff_t k_wanted = k_count / 100;
  std::vector<std::uint32_t> order(k_count);
  Selection selection;
  std::vector<double> times, ours;
  for (auto _ : state) {
    std::iota(order.begin(), order.end(), 0u);
    times.push_back(seconds([&] {
      std::nth_element(order.begin(), order.begin() + k_wanted, order.end(),
                       [&](std::uint32_t a, std::uint32_t b) { return std::fabs(from[a]) > std::fabs(from[b]); });
    }));
    ours.push_back(seconds([&] { selection.exact(from, k_wanted); }));
    state.SetIterationTime(times.back());
  }
  state.counters["times_of_exact"] = median(times) / median(ours);
}

struct Pairs {
  std::vector<std::uint32_t> indices;
  std::vector<float> values;
};

// One place in `of`, at random.
Pairs draw(std::uint32_t of, std::uint32_t seed) {
  Pairs out;
  std::mt19937 random(seed);
  for (std::uint32_t i = 0; i < k_count; ++i) {
    if (random() % of != 0) continue;
    out.indices.push_back(i);
    out.values.push_back(1.0f);
  }
  return out;
}

// Two sparse vectors with 2 % of the places each; pairs that go in, a second.
void merge(benchmark::State& state) {
  const Pairs a = draw(50, 1), b = draw(50, 2);
  std::vector<std::uint32_t> indices(a.indices.size() + b.indices.size());
  std::vector<float> values(indices.size());
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(seconds([&] {
      benchmark::DoNotOptimize(
          merge_sparse({a.indices, a.values}, {b.indices, b.values}, indices.data(), values.data()));
    }));
    state.SetIterationTime(times.back());
  }
  state.counters["pairs"] = rate(static_cast<double>(indices.size()) / median(times));
}

// The same of any number of messages, as they come off the wire.
void sum(benchmark::State& state, std::uint32_t vectors, std::uint32_t of) {
  std::vector<std::vector<std::byte>> messages;
  std::size_t pairs = 0;
  for (std::uint32_t i = 0; i < vectors; ++i) {
    const Pairs one = draw(of, i + 1);
    messages.emplace_back(sparse_max_bytes(one.indices.size()));
    messages.back().resize(write_sparse({one.indices, one.values}, k_count, messages.back()));
    pairs += one.indices.size();
  }
  SparseSum all;
  all.reserve(pairs);
  std::vector<SparseReader> readers(vectors);
  std::vector<double> times;
  for (auto _ : state) {
    times.push_back(seconds([&] {
      for (std::uint32_t i = 0; i < vectors; ++i)
        readers[i] = SparseReader(open_sparse(messages[i], k_count, "").value());
      if (all.sum(readers, k_count)) state.SkipWithError("a message was damaged");
    }));
    state.SetIterationTime(times.back());
  }
  state.counters["pairs"] = rate(static_cast<double>(pairs) / median(times));
}

void name_all() {
  const auto add = [](const std::string& name, auto measure, auto... arguments) {
    const auto with_all_counters = [=](benchmark::State& state) {
      no_counters(state);
      measure(state, arguments...);
    };
    benchmark::RegisterBenchmark(name.c_str(), with_all_counters)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond)
        ->MinTime(0.1);
  };
  for (const char* name :
       {"bf16", "fp16", "int8", "int4", "fp8:e4m3", "fp8:e5m2", "signsgd", "onebit", "qsgd:4", "qsgd:8:max", "terngrad",
        "topk:0.01", "topk:0.01:sampled", "topk:0.01+ef", "int8+ef", "randomk:0.01", "powersgd:4", "nonzero"}) {
    add(std::string("encode/") + name, encode, std::string(name));
    add(std::string("decode_add/") + name, decode_add, std::string(name));
  }
  add("choose/exact", choose, false);
  add("choose/sampled", choose, true);
  add("choose/nth_element", nth_element);
  add("merge/2%+2%", merge);
  add("sum/2x2%", sum, 2u, 50u);
  add("sum/8x1%", sum, 8u, 100u);
  add("sum/8x0.1%", sum, 8u, 1000u);
}

const bool k_named = (name_all(), true);

}  // namespace
}  // namespace gradrail

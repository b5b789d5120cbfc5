// What programs about codecs work on: memory, and a gradient to encode. For one thread.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <vector>

namespace gradrail {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Memory = std::unique_ptr<T[], Free>;

// Page-aligned and touched.
template <class T>
Memory<T> make_memory(std::size_t count) {
  const std::size_t bytes = (count * sizeof(T) + 4095) / 4096 * 4096;
  auto* memory = static_cast<T*>(std::aligned_alloc(4096, bytes));
  std::memset(static_cast<void*>(memory), 0, bytes);
  return Memory<T>(memory);
}

// Normal numbers of slowly changing size, as gradients of different layers are; the same at every run; of one
// count in a program.
inline std::span<const float> gradient(std::size_t count) {
  static const auto values = [count] {
    auto out = make_memory<float>(count);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> some(1 << 18);
    for (float& value : some) value = normal(random);
    std::uint32_t state = 7;
    for (std::size_t i = 0; i < count; ++i) {
      state = state * 1664525u + 1013904223u;
      const float size = 1e-3f * (1.5f + std::sin(static_cast<float>(i >> 16)));
      out[i] = some[state >> 14] * size;
    }
    return out;
  }();
  return {values.get(), count};
}

}  // namespace gradrail

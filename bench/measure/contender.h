// Something that is not ours and does the same calls: measured in the same block as our own cases, turn and turn about.
// It lives on rank 0 alone and drives ranks of its own, which sleep while others are measured, as ours sleep while it
// is.
//
// After an error other than `unsupported` it is of no use any more, and every later call of it returns that error.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/measure/buffers.h"
#include "collectives/exec/communicator.h"

namespace gradrail {

class Contender {
 public:
  struct Trial {
    std::uint64_t wrong = 0;  // elements, over all its ranks
    double operation_us = 0;  // an estimate, at its slowest rank
    double barrier_us = 0;
  };

  virtual ~Contender() = default;
  [[nodiscard]] virtual const std::string& library() const = 0;
  [[nodiscard]] virtual const std::string& name() const = 0;

  // Takes buffers, checks the call on fresh data, warms up. Errors: unsupported (there is no such call), and whatever
  // ended it.
  [[nodiscard]] virtual Result<Trial> prepare(const Call& call, Cache cache, int warmup, bool check, std::uint64_t seed,
                                              Deadline deadline) = 0;
  // Per operation, the slowest of its ranks; by the rules of block.h.
  [[nodiscard]] virtual Result<std::vector<double>> measure(int samples, int batch, Deadline deadline) = 0;
  // Gives the buffers back.
  virtual void release(Deadline deadline) = 0;
};

}  // namespace gradrail

// What rank 0 tells the others to do next while it tunes, and the bytes that it says so with. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/measure/block.h"
#include "collectives/select/selector.h"
#include "transports/base/bytes.h"

namespace gradrail {

enum class TuningOrder : std::uint8_t { measure, survey, end };

struct TuningCommand {
  TuningOrder order = TuningOrder::end;
  double most_time = 0;  // seconds
  // A block.
  std::int64_t count = 0;
  double time_per_point = 0;
  Pace pace{};
  std::uint64_t seed = 0;
  std::vector<Selection> selections;
  // A survey, of these sizes; largest 0: nothing is measured.
  std::uint64_t smallest = 0;
  std::uint64_t largest = 0;
};

[[nodiscard]] Bytes pack(const TuningCommand& command);
// Errors: malformed, for bytes that are damaged.
[[nodiscard]] Result<TuningCommand> unpack_tuning_command(const Bytes& bytes);

}  // namespace gradrail

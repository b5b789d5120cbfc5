// What a measured case becomes in a results file.
#pragma once

#include <string>

#include "bench/measure/block.h"
#include "bench/measure/buffers.h"
#include "bench/measure/placement.h"
#include "collectives/exec/communicator.h"
#include "collectives/select/cost_selector.h"
#include "results/record.h"

namespace gradrail {

// What the points of a group share.
struct Setting {
  std::string transport;
  std::string topology;
  int ranks = 1;
  int ranks_per_host = 1;
  BufferKind buffers = BufferKind::plain;
  Cache cache = Cache::hot;
  bool checked = true;
  Bind bind = Bind::none;
  CostModel model;  // with the links as measured
};

// The collective's data, by which sizes go.
[[nodiscard]] std::int64_t bytes_of(const Call& call, int ranks);

// The phase is left open.
[[nodiscard]] Point point_of(const Setting& setting, const Call& call, const Outcome& outcome);
// The same of another library: its algorithm is the name of its configuration, its buffers are plain.
[[nodiscard]] Point point_of(const Setting& setting, const Call& call, const Outcome& outcome,
                             const Contender& contender);

}  // namespace gradrail

// What a measured case becomes in a results file.
#pragma once

#include <optional>
#include <string>
#include <vector>

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
  CostModel model;                      // with the links as measured
  std::optional<std::string> via = {};  // as in Point
};

// The collective's data, by which sizes go.
[[nodiscard]] std::int64_t bytes_of(const Call& call, int ranks);

// Says of points of one block below which bandwidth of a link encoding pays: the bytes that it saves against the
// fastest of those without a codec, by the time that it adds. That is what encoding and decoding take, as if nothing of
// it were hidden behind the wire, or what the operation took longer here, if that is more.
void say_where_encoding_pays(std::vector<Point>& points);

// The phase is left open.
[[nodiscard]] Point point_of(const Setting& setting, const Call& call, const Outcome& outcome);
// The same of another library: its algorithm is the name of its configuration, its buffers are plain.
[[nodiscard]] Point point_of(const Setting& setting, const Call& call, const Outcome& outcome,
                             const Contender& contender);

}  // namespace gradrail

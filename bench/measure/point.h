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

// The same operation without and with a codec, as measured on one link.
struct CodedAndDense {
  double dense_us = 0;  // 0: not measured
  double dense_bytes = 0;
  double coded_us = 0;
  double coded_bytes = 0;
  double coding_us = 0;  // of coded_us: encoding and decoding
};
// The bandwidth of a link, in GB/s, at which both take as long: below it encoding pays. Without a codec time goes with
// the bytes, dense_bytes / bandwidth. With one it is coding_us + coded_bytes / bandwidth, less what is hidden of the
// shorter of the two behind the longer; the share hidden is the one that was measured, and stays. What the encoded
// operation took beyond coding and its bytes counts as coding. 0 where no bytes are saved or nothing was measured.
// Without dense_us nothing is taken to be hidden.
[[nodiscard]] double break_even_gbs(const CodedAndDense& measured);

// Says of points of one block where encoding breaks even, against the fastest of those without a codec.
void say_where_encoding_pays(std::vector<Point>& points);

// The phase is left open.
[[nodiscard]] Point point_of(const Setting& setting, const Call& call, const Outcome& outcome);
// The same of another library: its algorithm is the name of its configuration, its buffers are plain.
[[nodiscard]] Point point_of(const Setting& setting, const Call& call, const Outcome& outcome,
                             const Contender& contender);

}  // namespace gradrail

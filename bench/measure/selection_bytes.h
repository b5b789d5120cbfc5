// A selection, or what to measure in a block, as rank 0 tells it to the others. Pure.
#pragma once

#include <vector>

#include "bench/measure/block.h"
#include "collectives/select/selector.h"
#include "transports/base/bytes.h"

namespace gradrail {

void put(ByteWriter& writer, const Selection& selection);
// Nothing sensible where the bytes are damaged; reader.ok() tells.
[[nodiscard]] Selection get_selection(ByteReader& reader);

void put(ByteWriter& writer, const Pace& pace);
[[nodiscard]] Pace get_pace(ByteReader& reader);

void put(ByteWriter& writer, const std::vector<Selection>& selections);
[[nodiscard]] std::vector<Selection> get_selections(ByteReader& reader);

}  // namespace gradrail

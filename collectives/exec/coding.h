// What a call asks of codecs, and what its encoding came to: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "collectives/types.h"
#include "transports/base/clock.h"

namespace gradrail {

struct Coding {
  std::string_view codec;  // as make_codec() reads it; empty: data travels as it is, but for the budget
  CodecWhere where = CodecWhere::everywhere;
  // Whose data this is. A codec's state (what was not sent yet, a warm start) is kept from call to call of the same
  // tensor and kind; calls of one tensor do not overlap.
  std::uint32_t tensor = 0;
  std::uint64_t seed = 0;  // of random numbers; the same on all ranks
  // Permission to be off by so much (relative L2 error of the result, above 0 and below 1), where no codec is named and
  // the algorithm is "auto": whatever answers "auto" then names a codec as well, or none where none pays. Errors are
  // those that were measured on data as gradients are. Calls that no codec is for travel as they are.
  double error_budget = 0;

  [[nodiscard]] bool asked() const { return !codec.empty(); }
  [[nodiscard]] bool permitted() const { return codec.empty() && error_budget > 0; }
};

// What a call came to: read from what ran, not from the request.
struct Ran {
  std::string algorithm;
  int lanes = 1;
  int pieces = 1;
  std::uint32_t chunks = 1;  // the plan's grid
  std::size_t steps = 0;     // of this rank's program
  std::string codec = {};    // with all parameters; empty where data was not encoded
  int requantised = 0;       // the most codec errors that add up in a value of the result, one behind the other
  CodecWhere where = CodecWhere::everywhere;  // of the codec
};

// Of one call on this rank. Encoding and decoding are done by the thread that drives the call; while they are, the wire
// may be busy, so that the time of the wire, which is the rest, is only what could not be hidden.
struct Encoding {
  std::uint64_t wire_bytes = 0;   // payload that this rank sent
  std::uint64_t dense_bytes = 0;  // what the same messages would have been in float32
  Seconds encode{0};
  Seconds decode{0};        // of it and adding
  Seconds wire{0};          // from the start to the end, less the two
  bool non_finite = false;  // a value was no finite number when this rank encoded it
};

}  // namespace gradrail

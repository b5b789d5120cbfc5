// What is measured of calls whose data is encoded, besides their time: what a rank sees of one, and what all ranks'
// looks come to. Cases without a codec in a block that compares codecs are looked at as well.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "bench/measure/gradient.h"
#include "transports/base/bytes.h"
#include "transports/base/clock.h"

namespace gradrail {

// What encoding cost a case and did to its data; of cases in a block in which some data is encoded.
struct CodingFigures {
  std::uint64_t wire_bytes = 0;   // that the rank that sends most sends for one operation
  std::uint64_t dense_bytes = 0;  // what the same messages are in float32
  // Of an operation's time, at the rank that encodes and decodes longest.
  double encode_share = 0;
  double decode_share = 0;
  double relative_error = 0;  // L2, against float64
  double largest_error = 0;   // of one element, as a share of the largest exact one
  bool non_finite = false;    // some value was no finite number when it was encoded, or came out so
};

// One rank's look at a case.
struct CodingLook {
  Gradient::Seen seen;
  double error_of_one = 0;  // Gradient::error_of_one()
  std::uint64_t wire_bytes = 0;
  std::uint64_t dense_bytes = 0;

  void put(ByteWriter& writer) const;
  [[nodiscard]] static CodingLook get(ByteReader& reader);
};

// Over samples.
struct CodingTime {
  Seconds encode{0}, decode{0}, all{0};
};

struct Judgement {
  CodingFigures figures;
  std::string why_wrong;  // empty: all ranks have the same bits, no further from exact than the codec explains
};
// `looks`: of all ranks, at data made with `seed`.
[[nodiscard]] Judgement judge(const Call& call, const Ran& ran, std::span<const CodingLook> looks, std::uint64_t seed);

}  // namespace gradrail

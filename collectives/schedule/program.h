// A plan as plain data. A Program is what one rank does; a Schedule is the programs of all ranks. Pure: no sizes in
// bytes, no addresses, no clocks. The same program is executed, verified, costed, printed, drawn and exported.
//
// Data coordinates. The data of a collective (its largest buffer: `count` elements for allreduce, broadcast, reduce and
// send-recv, ranks * count for the blocked ones) is divided evenly into `grid` chunks; when a program is bound to a
// count of T elements, chunk c covers elements [c*T/grid, (c+1)*T/grid). A buffer that holds only one rank's block
// (all-gather's input, reduce-scatter's output) is a window on the same coordinates: its first byte is its block's
// first chunk. Scratch planes mirror the whole data. Chunks may be empty; both ends then skip the step.
//
// All-to-all is the one collective with two coordinate systems: `in` chunk block j is what goes to rank j, `out` chunk
// block i is what came from rank i.
//
// Order. The steps of a lane start in the order written. A step may start when every receive and local step of its lane
// up to `after` and every send of its lane up to `after_send` has completed (indices into Program::steps, -1 for none).
// Steps of different lanes touch disjoint chunks and are never ordered. Messages from one rank to another on one lane
// match in order, send by receive.
#pragma once

#include <cstdint>
#include <vector>

#include "collectives/schedule/shape.h"

namespace gradrail {

enum class Op : std::uint8_t {
  send,         // from -> peer
  recv,         // peer -> to
  recv_reduce,  // to = from op incoming (from and to may be the same place)
  reduce,       // to = to op from
  copy,         // to = from
};

enum class Store : std::uint8_t { in, out, scratch };

// Where a run of chunks begins.
struct Place {
  Store store = Store::in;
  std::uint8_t plane = 0;  // scratch only
  std::uint32_t chunk = 0;
  friend bool operator==(const Place&, const Place&) = default;
};

struct Step {
  Op op = Op::send;
  std::uint8_t lane = 0;
  std::uint16_t peer = 0;    // send, recv, recv_reduce
  std::uint32_t chunks = 0;  // length of the run, at least 1
  Place from;                // send, recv_reduce, reduce, copy
  Place to;                  // recv, recv_reduce, reduce, copy
  std::int32_t after = -1;
  std::int32_t after_send = -1;

  [[nodiscard]] bool reads() const { return op != Op::recv; }
  [[nodiscard]] bool writes() const { return op != Op::send; }
  [[nodiscard]] bool receives() const { return op == Op::recv || op == Op::recv_reduce; }
  [[nodiscard]] bool talks() const { return op == Op::send || receives(); }
  friend bool operator==(const Step&, const Step&) = default;
};

struct Program {
  Shape shape;
  int rank = 0;
  std::uint32_t grid = 1;   // chunks the data is divided into; for blocked collectives a multiple of ranks
  std::uint8_t planes = 0;  // scratch planes used
  std::vector<Step> steps;
};

struct Schedule {
  Shape shape;
  std::vector<Program> programs;  // by rank
};

// First element of chunk c (0..grid) when `total` elements are divided into `grid` chunks. Boundaries between blocks of
// `grid/blocks` chunks are exact when total is a multiple of blocks; other boundaries are rounded down to a multiple
// of `align` elements within their block, so that vector loops start on whole cache lines.
[[nodiscard]] std::uint64_t chunk_begin(std::uint64_t total, std::uint32_t grid, std::uint32_t blocks,
                                        std::uint32_t align, std::uint32_t chunk);

// Which chunks [first, first+count) a buffer of this rank holds; count 0 if the rank has no such buffer.
struct Window {
  std::uint32_t first = 0;
  std::uint32_t count = 0;
  [[nodiscard]] std::uint32_t end() const { return first + count; }
  // The i-th of n equal parts; n divides count.
  [[nodiscard]] Window part(std::uint32_t i, std::uint32_t n) const { return {first + count / n * i, count / n}; }
  friend bool operator==(const Window&, const Window&) = default;
};
[[nodiscard]] Window window_of(Store store, const Shape& shape, int rank, std::uint32_t grid);

}  // namespace gradrail

// What a planner writes a program with. The builder keeps track of where this rank's current version of each chunk is
// (first the input, later the output or scratch), works out `after` and `after_send` from what each step reads and
// writes, and refuses (CHECK) a planner that lets two lanes touch the same chunk. A planner therefore only says who
// sends what to whom, in order.
//
// Members of a Group are numbered 0..n-1; the builder translates them to ranks, so a planner can be used unchanged
// inside another (hierarchical uses one inside a host and one between hosts).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "collectives/schedule/program.h"

namespace gradrail {

struct Group {
  std::vector<int> ranks;  // job ranks of the members, ascending
  int me = 0;              // index of this rank in it
  [[nodiscard]] int size() const { return static_cast<int>(ranks.size()); }

  [[nodiscard]] static Group all(const Shape& shape, int rank);
  [[nodiscard]] static Group same_host(const Shape& shape, int rank);  // the ranks of this rank's host
  [[nodiscard]] static Group across_hosts(const Shape& shape,
                                          int rank);  // the ranks with this rank's place in their host
};

class Builder {
 public:
  Builder(const Shape& shape, int rank, std::uint32_t grid);

  // What planners go by: the shape of the job, of one lane while confined.
  [[nodiscard]] const Shape& shape() const { return view_; }
  [[nodiscard]] int rank() const { return program_.rank; }
  [[nodiscard]] std::uint32_t grid() const { return program_.grid; }
  [[nodiscard]] Window whole() const { return {0, program_.grid}; }

  // About so many steps will follow: spares the planners of many steps most of the time they would take to allocate.
  void expect(std::size_t steps);
  // Steps that follow belong to this lane.
  void lane(int lane);
  // Until release(), shape() has one lane, and its lane 0 is this one: so a planner runs inside one lane of another.
  void confine(int lane);
  void release();
  // The next step waits for all earlier steps of its lane, whatever it touches: the end of a round.
  void wait();

  // --- Steps on "my current version" of a window. `peer` is a member of `group`.
  // Sends my current version of the window.
  void send(const Group& group, int peer, Window window);
  // Receives into my result; that is then my current version.
  void recv(const Group& group, int peer, Window window);
  // Result = current version op incoming.
  void recv_reduce(const Group& group, int peer, Window window);
  // Makes my current version of the window live in my result, copying if it does not yet.
  void settle(Window window);

  // --- Steps on explicit places, for planners that keep several versions.
  void send_from(const Group& group, int peer, Place from, std::uint32_t chunks);
  void recv_to(const Group& group, int peer, Place to, std::uint32_t chunks);
  void recv_reduce_to(const Group& group, int peer, Place from, Place to, std::uint32_t chunks);
  void reduce(Place from, Place to, std::uint32_t chunks);
  void copy(Place from, Place to, std::uint32_t chunks);

  // Where my current version of the window is; the whole window must be in one store.
  [[nodiscard]] Place current(Window window) const;
  // Where my result of the window belongs: the output where this rank has one that covers it, else scratch plane 0.
  [[nodiscard]] Place result(Window window) const;
  // Whether my current version of the window is in that place already (in place, the input is).
  [[nodiscard]] bool settled(Window window) const;
  [[nodiscard]] Place scratch(std::uint8_t plane, Window window) const;
  // Declares that my current version of the window is now at `place`.
  void moved(Window window, Place place);

  // Settles what the collective promises in `out`, and hands the program over.
  [[nodiscard]] Program finish() &&;

 private:
  struct Touched;  // last write and last read of a chunk, by step
  void add(Step step);
  Touched* touched(Place place);  // of the run of chunks that begins there

  Program program_;
  Shape view_;
  Window out_;         // chunks of this rank's output
  int confined_ = -1;  // the lane that planners are confined to, -1 for none
  std::uint8_t lane_ = 0;
  bool wait_ = false;
  std::vector<Place> current_;                 // by chunk
  std::vector<std::vector<Touched>> touched_;  // by buffer (in, out, planes), by chunk; in and out are one if in_place

 public:
  ~Builder();
};

}  // namespace gradrail

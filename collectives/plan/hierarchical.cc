// Hierarchical allreduce: reduce-scatter inside each host, allreduce between hosts of each rank's share, all-gather
// inside.
//
// For h hosts of m ranks, the ranks with the same place in their host hold the same share, 1/m of the data, and run any
// other allreduce on it: all ports between hosts work at once, and only 1/m of the data crosses them per rank. Rounds
// and bytes are those of the parts: inside, (m-1)/m of the data before and after; between, what `outer` sends of 1/m of
// the data.
//
// `inner` is the allreduce whose two phases are used inside (see two_phase.h), two_shot by default: inside a host, all
// pairs are near. `outer` is any allreduce but this one; by default two_shot for up to 8 hosts, halving_doubling
// beyond. Each lane goes through the three stages on its own, so lanes overlap the inside and the between; pieces are
// cut within the stages. Four ranks, two hosts of two (A, B: halves of the data):
//
//               host 0        host 1
//               0     1       2     3
//     inside    A <-> B       A <-> B        rank 0 has A of host 0, rank 1 has B of host 0, ..
//     between   0 <-A-> 2,  1 <-B-> 3        rank 0 and 2 have A, 1 and 3 have B
//     inside    A <-> B       A <-> B        all have both
#include <fmt/format.h>

#include <array>

#include "collectives/plan/planner.h"
#include "collectives/plan/two_phase.h"

namespace gradrail {

namespace {

constexpr std::string_view k_name = "hierarchical";
constexpr std::array k_phases = {&k_two_shot_phases, &k_ring_phases, &k_halving_doubling_phases};

// nullptr if there is none of that name.
const TwoPhase* inner_of(const Shape& shape) {
  if (shape.inner.empty()) return k_phases.front();
  for (const TwoPhase* phases : k_phases)
    if (phases->name == shape.inner) return phases;
  return nullptr;
}

Result<const Planner*> outer_of(const Shape& shape) {
  if (!shape.outer.empty()) return find_planner(Collective::allreduce, shape.outer);
  return find_planner(Collective::allreduce, shape.hosts() <= 8 ? "two_shot" : "halving_doubling");
}

// What the stages inside one lane see.
Shape one_lane(const Shape& shape) {
  Shape one = shape;
  one.lanes = 1;
  return one;
}

Result<void> supports(const Shape& shape) {
  if (inner_of(shape) == nullptr) {
    std::string known;
    for (const TwoPhase* phases : k_phases) known += fmt::format("{}{}", known.empty() ? "" : ", ", phases->name);
    return fail(Code::unsupported,
                fmt::format("hierarchical cannot use '{}' inside a host; use one of {}", shape.inner, known));
  }
  if (shape.outer == k_name)
    return fail(Code::unsupported,
                "hierarchical cannot be used between the hosts of hierarchical; use another allreduce");
  GRADRAIL_ASSIGN(const Planner* outer, outer_of(shape));
  if (shape.ranks_per_host < 1 || shape.ranks % shape.ranks_per_host != 0)
    return fail(Code::unsupported,
                fmt::format("hierarchical needs hosts of equally many ranks, and {} ranks are no multiple of {}",
                            shape.ranks, shape.ranks_per_host));
  return outer->supports(one_lane(shape));
}

std::uint32_t grain(const Shape& shape, int) {
  const Shape one = one_lane(shape);
  const std::uint32_t share = shape.hosts() == 1 ? 1 : (*outer_of(shape))->grain(one, shape.hosts());
  const std::uint32_t lane =
      shape.ranks_per_host == 1 ? share : inner_of(shape)->grain(one, shape.ranks_per_host, share);
  return static_cast<std::uint32_t>(shape.lanes) * lane;
}

// The member's shares of one lane's window.
std::vector<Window> shares_of(const Shape& shape, int place, Window window) {
  if (shape.ranks_per_host == 1) return {window};
  return inner_of(shape)->shares(shape.ranks_per_host, place, window);
}

void emit(Builder& builder, const Group& group, Window window) {
  const Shape shape = builder.shape();
  const int rank = group.ranks[static_cast<std::size_t>(group.me)];
  const Group inside = Group::same_host(shape, rank);
  const Group between = Group::across_hosts(shape, rank);
  const TwoPhase& inner = *inner_of(shape);
  const Planner& outer = **outer_of(shape);
  for (int lane = 0; lane < shape.lanes; ++lane) {
    builder.confine(lane);
    const Window part = window.part(static_cast<std::uint32_t>(lane), static_cast<std::uint32_t>(shape.lanes));
    if (inside.size() > 1) inner.reduce_scatter(builder, inside, part);
    if (between.size() > 1)
      for (const Window share : shares_of(shape, inside.me, part)) {
        outer.emit(builder, between, share);
        if (inside.size() > 1) builder.settle(share);
      }
    if (inside.size() > 1) inner.all_gather(builder, inside, part);
    builder.release();
  }
}

std::uint64_t chunks_sent(const Shape& shape, int, int member, std::uint32_t chunks) {
  const int place = member % shape.ranks_per_host;
  const Window part{0, chunks / static_cast<std::uint32_t>(shape.lanes)};
  std::uint64_t sent = 0;
  if (shape.ranks_per_host > 1) sent += 2 * inner_of(shape)->chunks_sent(shape.ranks_per_host, place, part.count);
  if (shape.hosts() > 1)
    for (const Window share : shares_of(shape, place, part))
      sent +=
          (*outer_of(shape))->chunks_sent(one_lane(shape), shape.hosts(), member / shape.ranks_per_host, share.count);
  return sent * static_cast<std::uint64_t>(shape.lanes);
}

}  // namespace

extern const Planner k_hierarchical_allreduce{
    k_name,
    Collective::allreduce,
    "reduce-scatter inside hosts, any allreduce between them, all-gather inside",
    supports,
    grain,
    emit,
    chunks_sent};

}  // namespace gradrail

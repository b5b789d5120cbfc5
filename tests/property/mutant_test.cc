// verify() must catch wrong plans. Each correct plan is spoilt in every way below, at every step. Most of these mutants
// are wrong; some are not (two steps that have nothing to do with each other may be exchanged, a wait that an earlier
// one implies may be cleared). Which is which is not taken from verify(), nor from tolerance: judge() proves it in
// another way, and the two must agree on every single mutant. A survivor must also compute every output by the same
// formula as the plan that it was made from, and some mutations leave no survivors at all.
#include <algorithm>
#include <functional>

#include "collectives/schedule/verify.h"
#include "tests/property/oracle.h"
#include "tests/property/plans.h"

namespace gradrail::test {
namespace {

using Steps = std::vector<Step>;

// Moves watermarks at or behind `index` by one place, for a step that was put there or taken out.
void shift(Steps& steps, std::int32_t index, std::int32_t by) {
  for (Step& s : steps)
    for (std::int32_t* watermark : {&s.after, &s.after_send})
      if (*watermark >= index) *watermark += by;
}

struct Mutation {
  const char* name;
  bool may_survive;
  // Spoils step i of the program; false if there is nothing to spoil.
  std::function<bool(Program&, std::size_t i)> apply;
};

bool swap_with(Steps& steps, std::size_t i, std::size_t j) {
  if (j >= steps.size() || steps[i] == steps[j]) return false;
  std::swap(steps[i], steps[j]);
  // Waiting for a later step is refused for its form; that would catch nothing else. Waits follow their steps.
  for (Step& s : steps)
    for (std::int32_t* watermark : {&s.after, &s.after_send})
      if (*watermark == static_cast<std::int32_t>(i)) *watermark = static_cast<std::int32_t>(j);
  for (const std::size_t k : {i, j}) {
    steps[k].after = std::min(steps[k].after, static_cast<std::int32_t>(k) - 1);
    steps[k].after_send = std::min(steps[k].after_send, static_cast<std::int32_t>(k) - 1);
  }
  return true;
}

std::vector<Mutation> mutations() {
  return {
      {"drop", false,
       [](Program& p, std::size_t i) {
         p.steps.erase(p.steps.begin() + static_cast<std::ptrdiff_t>(i));
         shift(p.steps, static_cast<std::int32_t>(i), -1);
         return true;
       }},
      {"double", false,
       [](Program& p, std::size_t i) {
         const Step copy = p.steps[i];
         shift(p.steps, static_cast<std::int32_t>(i), 1);
         p.steps.insert(p.steps.begin() + static_cast<std::ptrdiff_t>(i), copy);
         return true;
       }},
      {"swap with the next", true, [](Program& p, std::size_t i) { return swap_with(p.steps, i, i + 1); }},
      {"swap with the one after the next", true,
       [](Program& p, std::size_t i) { return swap_with(p.steps, i, i + 2); }},
      {"next peer", false,
       [](Program& p, std::size_t i) {
         Step& s = p.steps[i];
         if (!s.talks()) return false;
         do s.peer = static_cast<std::uint16_t>((s.peer + 1) % p.shape.ranks);
         while (s.peer == p.rank && p.shape.ranks > 1);
         return p.shape.ranks > 2;
       }},
      {"own peer", false,
       [](Program& p, std::size_t i) {
         p.steps[i].peer = static_cast<std::uint16_t>(p.rank);
         return p.steps[i].talks();
       }},
      {"next chunk read", false,
       [](Program& p, std::size_t i) {
         ++p.steps[i].from.chunk;
         return p.steps[i].reads();
       }},
      {"previous chunk read", false,
       [](Program& p, std::size_t i) {
         --p.steps[i].from.chunk;
         return p.steps[i].reads() && p.steps[i].from.chunk + 1 > 0;
       }},
      {"next chunk written", false,
       [](Program& p, std::size_t i) {
         ++p.steps[i].to.chunk;
         return p.steps[i].writes();
       }},
      {"previous chunk written", false,
       [](Program& p, std::size_t i) {
         if (p.steps[i].to.chunk == 0) return false;
         --p.steps[i].to.chunk;
         return p.steps[i].writes();
       }},
      {"read elsewhere", true,
       [](Program& p, std::size_t i) {
         Place& from = p.steps[i].from;
         from.plane = 0;
         from.store = from.store == Store::in ? Store::out : Store::in;
         return p.steps[i].reads();
       }},
      {"write elsewhere", true,
       [](Program& p, std::size_t i) {
         Place& to = p.steps[i].to;
         to.plane = 0;
         to.store = to.store == Store::out && p.planes > 0 ? Store::scratch : Store::in;
         return p.steps[i].writes();
       }},
      {"shorter run", false,
       [](Program& p, std::size_t i) {
         --p.steps[i].chunks;
         return true;
       }},
      {"longer run", true,  // a copy may take more along than is used
       [](Program& p, std::size_t i) {
         ++p.steps[i].chunks;
         return true;
       }},
      {"reduce or not", false,
       [](Program& p, std::size_t i) {
         Step& s = p.steps[i];
         switch (s.op) {
           case Op::recv:
             s.op = Op::recv_reduce;
             s.from = s.to;
             return true;
           case Op::recv_reduce: s.op = Op::recv; return true;
           case Op::reduce: s.op = Op::copy; return true;
           case Op::copy: s.op = Op::reduce; return true;
           case Op::send: return false;
         }
         return false;
       }},
      {"clear after", true, [](Program& p, std::size_t i) { return std::exchange(p.steps[i].after, -1) >= 0; }},
      {"clear after_send", true,
       [](Program& p, std::size_t i) { return std::exchange(p.steps[i].after_send, -1) >= 0; }},
      {"wait one step less", true, [](Program& p, std::size_t i) { return p.steps[i].after-- >= 0; }},
      {"wait one send less", true, [](Program& p, std::size_t i) { return p.steps[i].after_send-- >= 0; }},
      {"wait for all before", true,
       [](Program& p, std::size_t i) {
         p.steps[i].after = p.steps[i].after_send = static_cast<std::int32_t>(i) - 1;
         return true;
       }},
      {"other lane", true,
       [](Program& p, std::size_t i) {
         p.steps[i].lane = static_cast<std::uint8_t>((p.steps[i].lane + 1) % p.shape.lanes);
         return p.shape.lanes > 1;
       }},
  };
}

std::vector<Shape> small_shapes(const Planner& planner) {
  std::vector<Shape> found;
  const auto add = [&](int ranks, int per_host, int root, int lanes, int pieces, bool in_place) {
    Shape shape;
    shape.collective = planner.collective;
    shape.ranks = ranks;
    shape.ranks_per_host = per_host;
    shape.root = has_root(planner.collective) ? root : 0;
    shape.lanes = lanes;
    shape.pieces = pieces;
    shape.in_place = in_place;
    if (planner.supports(shape)) found.push_back(shape);
  };
  add(2, 1, 1, 2, 1, false);
  add(3, 3, 1, 1, 2, true);
  add(4, 2, 0, 1, 1, false);
  add(4, 2, 2, 1, 1, true);
  add(5, 5, 4, 1, 1, false);
  return found;
}

class EveryPlannersMutants : public testing::TestWithParam<const Planner*> {};

TEST_P(EveryPlannersMutants, AreCaughtOrProvedEquivalent) {
  std::size_t caught = 0;
  std::size_t equivalent = 0;
  for (const Shape& shape : small_shapes(*GetParam())) {
    const auto schedule = plan_all(*GetParam(), shape);
    ASSERT_TRUE(schedule);
    const Verdict original = judge(*schedule);
    ASSERT_TRUE(original.right) << describe(*GetParam(), shape) << ": " << original.why;
    for (const Mutation& mutation : mutations())
      for (std::size_t rank = 0; rank < schedule->programs.size(); ++rank)
        for (std::size_t i = 0; i < schedule->programs[rank].steps.size(); ++i) {
          Schedule mutant = *schedule;
          if (!mutation.apply(mutant.programs[rank], i)) continue;
          const auto verified = verify(mutant);
          const Verdict verdict = judge(mutant);
          const auto where = [&] {
            return describe(*GetParam(), shape) + ", " + mutation.name + ", rank " + std::to_string(rank) + " step " +
                   std::to_string(i) + ": verify says '" + (verified ? "right" : verified.error().message) +
                   "', the other proof '" + (verdict.right ? "right" : verdict.why) + "'";
          };
          ASSERT_EQ(verified.has_value(), verdict.right) << where();
          if (!verified) {
            ++caught;
            EXPECT_EQ(verified.error().code, Code::malformed);
            continue;
          }
          ++equivalent;
          EXPECT_TRUE(mutation.may_survive) << where();
          EXPECT_EQ(verdict.outputs, original.outputs) << where();
        }
  }
  EXPECT_GT(caught, 20u);
  RecordProperty("caught", static_cast<int>(caught));
  RecordProperty("equivalent", static_cast<int>(equivalent));
}

INSTANTIATE_TEST_SUITE_P(Planners, EveryPlannersMutants, testing::ValuesIn(all_planners()), PlannerName());

}  // namespace
}  // namespace gradrail::test

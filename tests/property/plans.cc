#include "tests/property/plans.h"

#include <fmt/format.h>

#include <algorithm>

namespace gradrail::test {

std::string describe(const Planner& planner, const Shape& shape) {
  return fmt::format("{} {}, {} ranks in hosts of {}, root {}, lanes {}, pieces {}{}", planner.name,
                     to_string(planner.collective), shape.ranks, shape.ranks_per_host, shape.root, shape.lanes,
                     shape.pieces, shape.in_place ? ", in place" : "");
}

std::vector<int> roots(Collective collective, int ranks) {
  if (!has_root(collective)) return {0};
  std::vector<int> found{0, 1, ranks / 2, ranks - 1};
  std::erase_if(found, [&](int root) { return root >= ranks; });
  std::sort(found.begin(), found.end());
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

std::vector<int> host_sizes(int ranks) {
  std::vector<int> divisors;
  for (int size = 1; size <= ranks; ++size)
    if (ranks % size == 0) divisors.push_back(size);
  const auto count = divisors.size();
  if (count <= 4) return divisors;
  return {divisors[0], divisors[1], divisors[count / 2], divisors[count - 1]};
}

namespace {

// Whether the planner makes the same program of shapes that differ in their hosts only.
bool same_for_hosts(const Planner& planner, Shape shape, int per_host) {
  const auto one = plan(planner, shape, shape.root);
  shape.ranks_per_host = per_host;
  const auto other = plan(planner, shape, shape.root);
  return one && other && one->grid == other->grid && one->steps == other->steps;
}

}  // namespace

std::vector<Shape> shapes(const Planner& planner, int ranks, bool thorough) {
  std::vector<Shape> found;
  int turn = ranks;
  Shape on_one_host;
  on_one_host.collective = planner.collective;
  on_one_host.ranks = on_one_host.ranks_per_host = ranks;
  for (const int per_host : host_sizes(ranks)) {
    if (per_host != ranks && same_for_hosts(planner, on_one_host, per_host)) continue;
    for (const int root : roots(planner.collective, ranks))
      for (const int lanes : {1, 2, 4})
        for (const int pieces : {1, 3})
          for (const bool in_place : {false, true}) {
            // 5 is coprime to the 12 combinations of the inner loops, so all of them occur in turn.
            if (!thorough && turn++ % 5 != 0) continue;
            Shape shape;
            shape.collective = planner.collective;
            shape.ranks = ranks;
            shape.ranks_per_host = per_host;
            shape.root = root;
            shape.lanes = lanes;
            shape.pieces = pieces;
            shape.in_place = in_place;
            if (planner.supports(shape)) found.push_back(shape);
          }
  }
  return found;
}

std::string PlannerName::operator()(const testing::TestParamInfo<const Planner*>& info) const {
  std::string name = fmt::format("{}_{}", info.param->name, to_string(info.param->collective));
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

}  // namespace gradrail::test

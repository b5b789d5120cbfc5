#include "collectives/select/candidates.h"

#include "collectives/plan/planner.h"

namespace gradrail {

namespace {

constexpr int k_piece_ladder[] = {4, 16, 64};
constexpr std::uint64_t k_least_lane_bytes = 256 << 10;

class List {
 public:
  List(const Question& question, Variety variety) : question_(question), variety_(variety) {
    shape_.collective = question.collective;
    shape_.ranks = question.ranks;
    shape_.ranks_per_host = question.ranks_per_host;
    shape_.in_place = question.in_place;
  }

  void add_all_of(const std::string& name) {
    Shape shape = shape_;
    const auto planner = parse_algorithm(name, shape);
    if (!planner || !(*planner)->supports(shape)) return;
    const auto grain = [&](int lanes, int pieces) {
      Shape other = shape;
      other.lanes = lanes;
      other.pieces = pieces;
      return (*planner)->supports(other) ? (*planner)->grain(other, other.ranks) : 0;
    };
    const std::uint32_t plain = grain(1, 1);
    list.push_back({name, 1, 1});
    // A planner that ignores lanes or pieces cuts its data no finer for them.
    const std::uint64_t block = question_.bytes / plain;
    int rungs = variety_.pieces;
    for (const int pieces : k_piece_ladder)
      if (rungs-- > 0 && grain(1, pieces) > plain && block / static_cast<unsigned>(pieces) >= k_least_piece_bytes)
        list.push_back({name, 1, pieces});
    if (variety_.lanes && grain(2, 1) > plain && block / 2 >= k_least_lane_bytes) list.push_back({name, 2, 1});
  }

  std::vector<Selection> list;

 private:
  const Question& question_;
  const Variety variety_;
  Shape shape_;
};

}  // namespace

std::vector<Selection> candidates(const Question& question, Variety variety) {
  // One host has no levels: hierarchical would only be its inner algorithm under another name.
  const bool levels = question.ranks_per_host > 1 && question.ranks > question.ranks_per_host;
  List list(question, variety);
  // First, as the first of equals is chosen: of plans that send the same bytes between hosts, the one that was made for
  // hosts does so whatever their number and order. Small data wants one round between them, not two.
  if (levels && question.collective == Collective::allreduce)
    for (const char* name : {"hierarchical", "hierarchical:two_shot+one_shot"}) list.add_all_of(name);
  for (const Planner* planner : planners())
    if (planner->collective == question.collective && planner->name != "hierarchical")
      list.add_all_of(std::string(planner->name));
  return std::move(list.list);
}

}  // namespace gradrail

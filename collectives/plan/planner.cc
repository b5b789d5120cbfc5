#include "collectives/plan/planner.h"

#include <fmt/format.h>

namespace gradrail {

Result<const Planner*> find_planner(Collective collective, std::string_view name) {
  std::string known;
  for (const Planner* planner : planners()) {
    if (planner->collective != collective) continue;
    if (planner->name == name) return planner;
    known += known.empty() ? "" : ", ";
    known += planner->name;
  }
  return fail(Code::bad_usage,
              fmt::format("there is no algorithm '{}' for {}; known are {}", name, to_string(collective), known));
}

Result<const Planner*> parse_algorithm(std::string_view text, Shape& shape) {
  const auto colon = text.find(':');
  shape.inner.clear();
  shape.outer.clear();
  GRADRAIL_ASSIGN(const Planner* planner, find_planner(shape.collective, text.substr(0, colon)));
  if (colon == std::string_view::npos) return planner;
  const auto parts = text.substr(colon + 1);
  const auto plus = parts.find('+');
  if (plus == std::string_view::npos)
    return fail(Code::bad_usage,
                fmt::format("'{}' does not name an algorithm; write {}:INNER+OUTER", text, planner->name));
  shape.inner = parts.substr(0, plus);
  shape.outer = parts.substr(plus + 1);
  return planner;
}

Result<Program> plan(const Planner& planner, const Shape& shape, int rank) {
  GRADRAIL_TRY(planner.supports(shape));
  Builder builder(shape, rank, planner.grain(shape, shape.ranks));
  planner.emit(builder, Group::all(shape, rank), builder.whole());
  return std::move(builder).finish();
}

Result<Schedule> plan_all(const Planner& planner, const Shape& shape) {
  Schedule schedule;
  schedule.shape = shape;
  schedule.programs.reserve(static_cast<std::size_t>(shape.ranks));
  for (int rank = 0; rank < shape.ranks; ++rank) {
    GRADRAIL_ASSIGN(Program program, plan(planner, shape, rank));
    schedule.programs.push_back(std::move(program));
  }
  return schedule;
}

}  // namespace gradrail

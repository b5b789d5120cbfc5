#include <fmt/format.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "collectives/schedule/render.h"

namespace gradrail {

namespace {

using Json = nlohmann::ordered_json;

constexpr int k_schema = 1;
constexpr std::int64_t k_most_ranks = 65536;
constexpr std::int64_t k_most_chunks = 1 << 27;
constexpr std::size_t k_longest_name = 64;
constexpr Op k_ops[] = {Op::send, Op::recv, Op::recv_reduce, Op::reduce, Op::copy};
constexpr Store k_stores[] = {Store::in, Store::out, Store::scratch};

Json place_json(const Place& place) {
  Json json = {{"store", to_string(place.store)}, {"chunk", place.chunk}};
  if (place.store == Store::scratch) json["plane"] = place.plane;
  return json;
}

Json step_json(const Step& s) {
  Json json = {{"op", to_string(s.op)}, {"lane", s.lane}};
  if (s.talks()) json["peer"] = s.peer;
  json["chunks"] = s.chunks;
  if (s.reads()) json["from"] = place_json(s.from);
  if (s.writes()) json["to"] = place_json(s.to);
  json["after"] = s.after;
  json["after_send"] = s.after_send;
  return json;
}

Json shape_json(const Shape& shape) {
  return {{"collective", to_string(shape.collective)},
          {"ranks", shape.ranks},
          {"ranks_per_host", shape.ranks_per_host},
          {"root", shape.root},
          {"in_place", shape.in_place},
          {"lanes", shape.lanes},
          {"pieces", shape.pieces},
          {"inner", shape.inner},
          {"outer", shape.outer}};
}

// A field of an object, known by where it stands in the document. Every reader checks type and range.
class Field {
 public:
  Field(const Json* json, std::string path) : json_(json), path_(std::move(path)) {}

  [[nodiscard]] tl::unexpected<Error> bad(std::string_view what) const {
    return fail(Code::malformed, fmt::format("{} {}", path_, what));
  }
  [[nodiscard]] Result<Field> field(const char* name) const {
    if (!json_->is_object()) return bad("is not an object");
    const auto found = json_->find(name);
    const std::string path = path_ == "the plan" ? name : fmt::format("{}.{}", path_, name);
    if (found == json_->end()) return fail(Code::malformed, fmt::format("{} is missing", path));
    return Field(&*found, path);
  }
  [[nodiscard]] Result<std::vector<Field>> elements(std::size_t at_most) const {
    if (!json_->is_array()) return bad("is not a list");
    if (json_->size() > at_most)
      return bad(fmt::format("has {} entries; at most {} are allowed", json_->size(), at_most));
    std::vector<Field> fields;
    fields.reserve(json_->size());
    for (const Json& element : *json_) fields.emplace_back(&element, fmt::format("{}[{}]", path_, fields.size()));
    return fields;
  }
  [[nodiscard]] Result<std::int64_t> integer(std::int64_t least, std::int64_t most) const {
    if (!json_->is_number_integer()) return bad("is not a whole number");
    const bool huge = json_->is_number_unsigned() &&
                      json_->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()};
    const std::int64_t value = huge ? std::numeric_limits<std::int64_t>::max() : json_->get<std::int64_t>();
    if (huge || value < least || value > most) return bad(fmt::format("is not from {} to {}", least, most));
    return value;
  }
  [[nodiscard]] Result<bool> boolean() const {
    if (!json_->is_boolean()) return bad("is neither true nor false");
    return json_->get<bool>();
  }
  [[nodiscard]] Result<std::string> string() const {
    if (!json_->is_string()) return bad("is not a string");
    const auto& text = json_->get_ref<const std::string&>();
    if (text.size() > k_longest_name) return bad(fmt::format("is longer than {} characters", k_longest_name));
    return text;
  }

 private:
  const Json* json_;
  std::string path_;
};

template <class T>
Result<void> read(const Field& object, const char* name, std::int64_t least, std::int64_t most, T& into) {
  GRADRAIL_ASSIGN(const Field field, object.field(name));
  GRADRAIL_ASSIGN(const std::int64_t value, field.integer(least, most));
  into = static_cast<T>(value);
  return {};
}

template <class Enum, std::size_t n>
Result<Enum> read_name(const Field& object, const char* name, const Enum (&known)[n]) {
  GRADRAIL_ASSIGN(const Field field, object.field(name));
  GRADRAIL_ASSIGN(const std::string text, field.string());
  for (const Enum value : known)
    if (to_string(value) == text) return value;
  return field.bad(fmt::format("is '{}', which is not known", text));
}

Result<Shape> read_shape(const Field& object) {
  Shape shape;
  GRADRAIL_ASSIGN(const Field collective, object.field("collective"));
  GRADRAIL_ASSIGN(const std::string name, collective.string());
  const auto parsed = parse_collective(name);
  if (!parsed) return collective.bad(fmt::format("is '{}', which is not known", name));
  shape.collective = *parsed;
  GRADRAIL_TRY(read(object, "ranks", 1, k_most_ranks, shape.ranks));
  GRADRAIL_TRY(read(object, "ranks_per_host", 1, shape.ranks, shape.ranks_per_host));
  if (shape.ranks % shape.ranks_per_host != 0) return object.bad("has ranks that are not whole hosts");
  GRADRAIL_TRY(read(object, "root", 0, shape.ranks - 1, shape.root));
  GRADRAIL_ASSIGN(const Field in_place, object.field("in_place"));
  GRADRAIL_ASSIGN(shape.in_place, in_place.boolean());
  GRADRAIL_TRY(read(object, "lanes", 1, 64, shape.lanes));
  GRADRAIL_TRY(read(object, "pieces", 1, 1024, shape.pieces));
  GRADRAIL_ASSIGN(const Field inner, object.field("inner"));
  GRADRAIL_ASSIGN(shape.inner, inner.string());
  GRADRAIL_ASSIGN(const Field outer, object.field("outer"));
  GRADRAIL_ASSIGN(shape.outer, outer.string());
  return shape;
}

Result<Place> read_place(const Field& step, const char* name, const Program& program, std::uint32_t chunks) {
  GRADRAIL_ASSIGN(const Field field, step.field(name));
  Place place;
  GRADRAIL_ASSIGN(place.store, read_name(field, "store", k_stores));
  GRADRAIL_TRY(read(field, "chunk", 0, std::int64_t{program.grid} - chunks, place.chunk));
  if (place.store == Store::scratch)
    GRADRAIL_TRY(read(field, "plane", 0, std::int64_t{program.planes} - 1, place.plane));
  return place;
}

Result<Step> read_step(const Field& object, const Program& program) {
  Step step;
  const auto index = static_cast<std::int64_t>(program.steps.size());
  GRADRAIL_ASSIGN(step.op, read_name(object, "op", k_ops));
  GRADRAIL_TRY(read(object, "lane", 0, program.shape.lanes - 1, step.lane));
  if (step.talks()) GRADRAIL_TRY(read(object, "peer", 0, program.shape.ranks - 1, step.peer));
  GRADRAIL_TRY(read(object, "chunks", 1, program.grid, step.chunks));
  if (step.reads()) {
    GRADRAIL_ASSIGN(step.from, read_place(object, "from", program, step.chunks));
  }
  if (step.writes()) {
    GRADRAIL_ASSIGN(step.to, read_place(object, "to", program, step.chunks));
  }
  GRADRAIL_TRY(read(object, "after", -1, index - 1, step.after));
  GRADRAIL_TRY(read(object, "after_send", -1, index - 1, step.after_send));
  return step;
}

Result<Program> read_program(const Field& object, const Shape& shape, std::int64_t rank) {
  Program program;
  program.shape = shape;
  GRADRAIL_TRY(read(object, "rank", rank, rank, program.rank));
  GRADRAIL_TRY(read(object, "grid", 1, k_most_chunks, program.grid));
  if (is_blocked(shape.collective) && program.grid % static_cast<std::uint32_t>(shape.ranks) != 0)
    return object.bad("has a grid that is not a multiple of the ranks");
  GRADRAIL_TRY(read(object, "planes", 0, 255, program.planes));
  GRADRAIL_ASSIGN(const Field steps, object.field("steps"));
  GRADRAIL_ASSIGN(const auto fields, steps.elements(std::numeric_limits<std::int32_t>::max()));
  program.steps.reserve(fields.size());
  for (const Field& field : fields) {
    GRADRAIL_ASSIGN(const Step step, read_step(field, program));
    program.steps.push_back(step);
  }
  return program;
}

Result<Json> parsed(std::string_view text) {
  try {
    return Json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    return fail(Code::malformed, fmt::format("the plan is not JSON; it goes wrong at byte {}", error.byte));
  }
}

}  // namespace

std::string to_json(const Schedule& schedule) {
  std::string text =
      fmt::format("{{\"schema\":{},\"shape\":{},\"programs\":[", k_schema, shape_json(schedule.shape).dump());
  for (std::size_t rank = 0; rank < schedule.programs.size(); ++rank) {
    const Program& program = schedule.programs[rank];
    text += fmt::format("{}\n{{\"rank\":{},\"grid\":{},\"planes\":{},\"steps\":[", rank == 0 ? "" : ",", program.rank,
                        program.grid, program.planes);
    for (std::size_t index = 0; index < program.steps.size(); ++index)
      text += (index == 0 ? "\n" : ",\n") + step_json(program.steps[index]).dump();
    text += "]}";
  }
  return text + "]}\n";
}

Result<Schedule> schedule_from_json(std::string_view text) {
  GRADRAIL_ASSIGN(const Json json, parsed(text));
  const Field document(&json, "the plan");
  Schedule schedule;
  int schema = 0;
  GRADRAIL_TRY(read(document, "schema", k_schema, k_schema, schema));
  GRADRAIL_ASSIGN(const Field shape, document.field("shape"));
  GRADRAIL_ASSIGN(schedule.shape, read_shape(shape));
  GRADRAIL_ASSIGN(const Field programs, document.field("programs"));
  const auto ranks = static_cast<std::size_t>(schedule.shape.ranks);
  GRADRAIL_ASSIGN(const auto fields, programs.elements(ranks));
  if (fields.size() < ranks) return programs.bad(fmt::format("has {} entries for {} ranks", fields.size(), ranks));
  for (const Field& field : fields) {
    GRADRAIL_ASSIGN(Program program,
                    read_program(field, schedule.shape, static_cast<std::int64_t>(schedule.programs.size())));
    schedule.programs.push_back(std::move(program));
  }
  return schedule;
}

}  // namespace gradrail

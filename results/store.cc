#include "results/store.h"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <type_traits>
#include <utility>

namespace gradrail {
namespace {

using Json = nlohmann::ordered_json;  // keys stay in the order in which a person wants to read them

// The fields of each kind, named once for writing and for reading. `need` fields must be present in a file that is
// read; `may` fields keep their default.

template <class Visit, class T>
void machine_fields(Visit& visit, T& machine) {
  visit.may("hostname", machine.hostname);
  visit.may("cpu_model", machine.cpu_model);
  visit.may("cores", machine.cores);
  visit.may("sockets", machine.sockets);
  visit.may("numa_nodes", machine.numa_nodes);
  visit.may("l1d_bytes", machine.l1d_bytes);
  visit.may("l2_bytes", machine.l2_bytes);
  visit.may("l3_bytes", machine.l3_bytes);
  visit.may("memory_bytes", machine.memory_bytes);
  visit.may("kernel", machine.kernel);
  visit.may("os", machine.os);
  visit.may("virtualisation", machine.virtualisation);
  visit.may("governor", machine.governor);
  visit.may("thp", machine.thp);
  visit.may("simd", machine.simd);
}

template <class Visit, class T>
void build_fields(Visit& visit, T& build) {
  visit.may("version", build.version);
  visit.may("commit", build.commit);
  visit.may("type", build.type);
  visit.may("compiler", build.compiler);
  visit.may("flags", build.flags);
  visit.may("sanitize", build.sanitize);
  visit.may("libraries", build.libraries);
}

template <class Visit, class T>
void job_fields(Visit& visit, T& job) {
  visit.may("ranks", job.ranks);
  visit.may("hosts", job.hosts);
  visit.may("origin", job.origin);
  visit.may("cpus", job.cpus);
}

template <class Visit, class T>
void run_fields(Visit& visit, T& run) {
  visit.need("schema", run.schema);
  visit.may("started", run.started);
  visit.need("machine", run.machine);
  visit.need("build", run.build);
  visit.may("job", run.job);
  visit.need("args", run.args);
}

template <class Visit, class T>
void timing_fields(Visit& visit, T& timing) {
  visit.need("median", timing.median);
  visit.need("ci", timing.ci);
  visit.may("p95", timing.p95);
  visit.may("p99", timing.p99);
  visit.may("min", timing.min);
  visit.may("max", timing.max);
  visit.may("cv", timing.cv);
  visit.need("n", timing.n);
  visit.may("batch", timing.batch);
}

template <class Visit, class T>
void point_fields(Visit& visit, T& point) {
  visit.need("library", point.library);
  visit.need("collective", point.collective);
  visit.need("algorithm", point.algorithm);
  visit.if_set("requested", point.requested);
  visit.need("transport", point.transport);
  visit.need("topology", point.topology);
  visit.need("ranks", point.ranks);
  visit.need("bytes", point.bytes);
  visit.need("count", point.count);
  visit.need("type", point.type);
  visit.may("op", point.op);
  visit.may("root", point.root);
  visit.may("in_place", point.in_place);
  visit.may("buffers", point.buffers);
  visit.may("cache", point.cache);
  visit.if_set("bind", point.bind);
  visit.may("path", point.path);
  visit.if_set("via", point.via);
  visit.may("lanes", point.lanes);
  visit.may("chunks", point.chunks);
  visit.may("wrong", point.wrong);
  visit.may("phase", point.phase);
  visit.may("time_us", point.time_us);
  visit.may("algbw_gbs", point.algbw_gbs);
  visit.may("busbw_gbs", point.busbw_gbs);
  visit.if_set("model_us", point.model_us);
  visit.if_set("expected_gbs", point.expected_gbs);
  visit.if_set("expected_share", point.expected_share);
  visit.if_set("codec", point.codec);
  visit.if_set("requested_codec", point.requested_codec);
  visit.if_set("codec_where", point.codec_where);
  visit.if_set("wire_bytes", point.wire_bytes);
  visit.if_set("wire_ratio", point.wire_ratio);
  visit.if_set("encode_us", point.encode_us);
  visit.if_set("wire_us", point.wire_us);
  visit.if_set("decode_us", point.decode_us);
  visit.if_set("rel_l2_error", point.rel_l2_error);
  visit.if_set("max_error", point.max_error);
  visit.if_set("break_even_gbs", point.break_even_gbs);
  visit.if_set("non_finite", point.non_finite);
  visit.if_set("error", point.error);
  visit.may("samples_us", point.samples_us);  // last: the rest of the line stays readable
}

template <class Visit, class T>
void limits_fields(Visit& visit, T& limits) {
  visit.may("phase", limits.phase);
  visit.need("core_to_core_ns", limits.core_to_core_ns);
  visit.need("memory_gbs", limits.memory_gbs);
}

template <class Visit, class T>
void choice_fields(Visit& visit, T& choice) {
  visit.may("collective", choice.collective);
  visit.may("transport", choice.transport);
  visit.may("topology", choice.topology);
  visit.may("ranks", choice.ranks);
  visit.may("type", choice.type);
  visit.may("op", choice.op);
  visit.need("bytes", choice.bytes);
  visit.need("algorithm", choice.algorithm);
  visit.may("margin", choice.margin);
  visit.may("confident", choice.confident);
  visit.may("runner_up", choice.runner_up);
}

template <class Visit, class T>
void peer_fields(Visit& visit, T& peer) {
  visit.need("library", peer.library);
  visit.need("configuration", peer.configuration);
  visit.may("transport", peer.transport);
  visit.may("ranks", peer.ranks);
  visit.may("version", peer.version);
  visit.may("command", peer.command);
  visit.may("environment", peer.environment);
  visit.if_set("error", peer.error);
}

template <class Visit, class T>
void comparison_fields(Visit& visit, T& comparison) {
  visit.may("collective", comparison.collective);
  visit.may("transport", comparison.transport);
  visit.may("topology", comparison.topology);
  visit.may("ranks", comparison.ranks);
  visit.may("type", comparison.type);
  visit.may("op", comparison.op);
  visit.need("bytes", comparison.bytes);
  visit.may("in_place", comparison.in_place);
  visit.may("buffers", comparison.buffers);
  visit.may("cache", comparison.cache);
  visit.may("phase", comparison.phase);
  visit.need("algorithm", comparison.algorithm);
  visit.need("ours_us", comparison.ours_us);
  visit.need("peer", comparison.peer);
  visit.need("configuration", comparison.configuration);
  visit.need("peer_us", comparison.peer_us);
  visit.need("ratio", comparison.ratio);
  visit.may("ci", comparison.ci);
}

template <class Visit, class T>
void p2p_fields(Visit& visit, T& point) {
  visit.need("test", point.test);
  visit.need("transport", point.transport);
  visit.if_set("operation", point.operation);
  visit.need("from", point.from);
  visit.need("to", point.to);
  visit.may("from_host", point.from_host);
  visit.may("to_host", point.to_host);
  visit.need("bytes", point.bytes);
  visit.may("depth", point.depth);
  visit.may("lanes", point.lanes);
  visit.may("buffers", point.buffers);
  visit.if_set("bind", point.bind);
  visit.may("path", point.path);
  visit.may("iterations", point.iterations);
  visit.may("rounds", point.rounds);
  visit.may("wrong", point.wrong);
  visit.may("time_us", point.time_us);
  visit.may("average_us", point.average_us);
  visit.may("stdev_us", point.stdev_us);
  visit.may("p999_us", point.p999_us);
  visit.may("bandwidth_gbs", point.bandwidth_gbs);
  visit.may("message_mpps", point.message_mpps);
  visit.if_set("expected_gbs", point.expected_gbs);
  visit.if_set("expected_share", point.expected_share);
  visit.if_set("z_score", point.z_score);
  visit.if_set("error", point.error);
  visit.may("samples_us", point.samples_us);
}

template <class Visit, class T>
void fields_of(Visit& visit, T& value) {
  using Plain = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Plain, Machine>)
    machine_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Build>)
    build_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Job>)
    job_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Run>)
    run_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Timing>)
    timing_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Point>)
    point_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Limits>)
    limits_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, PeerRecord>)
    peer_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, Comparison>)
    comparison_fields(visit, value);
  else if constexpr (std::is_same_v<Plain, P2pPoint>)
    p2p_fields(visit, value);
  else
    choice_fields(visit, value);
}

template <class T>
concept HasFields = std::is_same_v<T, Machine> || std::is_same_v<T, Build> || std::is_same_v<T, Job> ||
    std::is_same_v<T, Timing>;  // objects inside a record

template <class T>
constexpr std::string_view k_kind = "";
template <>
constexpr std::string_view k_kind<Run> = "run";
template <>
constexpr std::string_view k_kind<Point> = "point";
template <>
constexpr std::string_view k_kind<Limits> = "limits";
template <>
constexpr std::string_view k_kind<Choice> = "choice";
template <>
constexpr std::string_view k_kind<PeerRecord> = "peer";
template <>
constexpr std::string_view k_kind<Comparison> = "comparison";
template <>
constexpr std::string_view k_kind<P2pPoint> = "p2p";

// --- writing ---------------------------------------------------------------------------------------------------------

Json to_json(const std::string& value) { return value; }
Json to_json(bool value) { return value; }
Json to_json(int value) { return value; }
Json to_json(std::int64_t value) { return value; }

// Seven significant digits: finer than any clock, and half the size of a file with all of a double's digits.
Json to_json(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.7g}", value).c_str(), nullptr);
}

Json to_json(const std::vector<Library>& libraries) {
  Json out = Json::object();
  for (const Library& library : libraries) out[library.name] = library.version;
  return out;
}

class ToJson {
 public:
  explicit ToJson(Json& out) : out_(out) {}
  template <class T>
  void need(const char* key, const T& value);
  template <class T>
  void may(const char* key, const T& value) {
    need(key, value);
  }
  template <class T>
  void if_set(const char* key, const std::optional<T>& value) {
    if (value) need(key, *value);
  }

 private:
  Json& out_;
};

template <class T>
requires std::is_class_v<T> Json to_json(const T& value) {
  Json out = Json::object();
  ToJson visit(out);
  fields_of(visit, value);
  return out;
}

template <class T>
Json to_json(const std::vector<T>& values) {
  Json out = Json::array();
  for (const T& value : values) out.push_back(to_json(value));
  return out;
}

Json to_json(const std::array<double, 2>& values) { return Json::array({to_json(values[0]), to_json(values[1])}); }

template <class T>
Json to_json(const std::optional<T>& value) {
  return value ? to_json(*value) : Json(nullptr);
}

template <class T>
void ToJson::need(const char* key, const T& value) {
  out_[key] = to_json(value);
}

// --- reading ---------------------------------------------------------------------------------------------------------

// Each returns what was expected instead, or nothing if the value was taken.
using Expected = std::string_view;

Expected take(const Json& in, std::string& value) {
  if (in.is_null()) return {};
  if (!in.is_string()) return "text";
  value = in.get<std::string>();
  return {};
}

Expected take(const Json& in, bool& value) {
  if (!in.is_boolean()) return "true or false";
  value = in.get<bool>();
  return {};
}

Expected take(const Json& in, std::int64_t& value) {
  constexpr Expected k_wanted = "a whole number";
  constexpr auto k_most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (!in.is_number_integer()) return k_wanted;
  if (in.is_number_unsigned() && in.get<std::uint64_t>() > k_most) return "a whole number below 2^63";
  value = in.get<std::int64_t>();
  return {};
}

Expected take(const Json& in, int& value) {
  std::int64_t wide = 0;
  if (const Expected wanted = take(in, wide); !wanted.empty()) return wanted;
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max())
    return "a whole number of 32 bits";
  value = static_cast<int>(wide);
  return {};
}

Expected take(const Json& in, double& value) {
  if (!in.is_number() && !in.is_null()) return "a number or null";
  value = in.is_null() ? std::numeric_limits<double>::quiet_NaN() : in.get<double>();
  return {};
}

Expected take(const Json& in, std::array<double, 2>& value) {
  if (!in.is_array() || in.size() != 2) return "two numbers";
  for (std::size_t i = 0; i < 2; ++i)
    if (const Expected wanted = take(in[i], value[i]); !wanted.empty()) return wanted;
  return {};
}

Expected take(const Json& in, std::vector<Library>& libraries) {
  if (!in.is_object()) return "an object of names and versions";
  for (const auto& [name, version] : in.items()) {
    Library library{name, {}};
    if (const Expected wanted = take(version, library.version); !wanted.empty()) return wanted;
    libraries.push_back(std::move(library));
  }
  return {};
}

template <class T>
Expected take(const Json& in, std::vector<T>& values) {
  if (!in.is_array()) return "a list";
  values.resize(in.size());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (const Expected wanted = take(in[i], values[i]); !wanted.empty()) return wanted;
  return {};
}

class FromJson {
 public:
  explicit FromJson(const Json& in) : in_(in) {}

  template <class T>
  void need(const char* key, T& value) {
    if (!in_.contains(key)) return wrong(fmt::format("\"{}\" is missing", key));
    may(key, value);
  }
  template <class T>
  void may(const char* key, T& value) {
    const auto at = in_.find(key);
    if (at != in_.end()) read(key, *at, value);
  }
  template <class T>
  void if_set(const char* key, T& value) {
    may(key, value);
  }

  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  template <class T>
  void read(const char* key, const Json& in, std::optional<T>& value) {
    if (in.is_null()) return;
    read(key, in, value.emplace());
  }
  template <class T>
  void read(const char* key, const Json& in, T& value) {
    if constexpr (HasFields<T>) {
      if (!in.is_object()) return wrong(fmt::format("\"{}\" is not an object", key));
      FromJson inner(in);
      fields_of(inner, value);
      if (!inner.problem_.empty()) wrong(fmt::format("in \"{}\", {}", key, inner.problem_));
    } else if (const Expected wanted = take(in, value); !wanted.empty()) {
      wrong(fmt::format("\"{}\" is not {}", key, wanted));
    }
  }
  void wrong(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
  }

  const Json& in_;
  std::string problem_;
};

template <class T>
Result<std::optional<Record>> read_kind(const Json& in) {
  T value;
  FromJson visit(in);
  fields_of(visit, value);
  if (!visit.problem().empty()) return fail(Code::malformed, fmt::format("a {} where {}", k_kind<T>, visit.problem()));
  return Record(std::move(value));
}

}  // namespace

std::string format_record(const Record& record) {
  return std::visit(
      [](const auto& value) {
        Json out = {{"kind", k_kind<std::decay_t<decltype(value)>>}};
        ToJson visit(out);
        fields_of(visit, value);
        // Arguments are whatever bytes the user typed; a file must be UTF-8 all the same.
        return out.dump(-1, ' ', false, Json::error_handler_t::replace);
      },
      record);
}

Result<std::optional<Record>> parse_record(std::string_view line) {
  if (line.size() > k_longest_record_bytes)
    return fail(Code::malformed, fmt::format("longer than {} bytes; no record is", k_longest_record_bytes));
  const Json in = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (in.is_discarded()) return fail(Code::malformed, "not JSON");
  if (!in.is_object() || !in.contains("kind") || !in["kind"].is_string())
    return fail(Code::malformed, "not an object with a \"kind\"; this is not a results file of gradrail");
  const auto& kind = in["kind"].get_ref<const std::string&>();
  if (kind == k_kind<Run>) {
    // Before all else, for a later schema may have other fields.
    std::int64_t schema = k_record_schema;
    if (in.contains("schema") && (!take(in["schema"], schema).empty() || schema < 1 || schema > k_record_schema))
      return fail(Code::malformed,
                  fmt::format("records of schema {}, and this gradrail reads schema {}; read them with "
                              "the version that wrote them, or a later one",
                              in["schema"].dump(), k_record_schema));
    return read_kind<Run>(in);
  }
  if (kind == k_kind<Point>) return read_kind<Point>(in);
  if (kind == k_kind<Limits>) return read_kind<Limits>(in);
  if (kind == k_kind<Choice>) return read_kind<Choice>(in);
  if (kind == k_kind<PeerRecord>) return read_kind<PeerRecord>(in);
  if (kind == k_kind<Comparison>) return read_kind<Comparison>(in);
  if (kind == k_kind<P2pPoint>) return read_kind<P2pPoint>(in);
  return std::optional<Record>();
}

Result<RecordWriter> RecordWriter::create(const std::string& path) {
  GRADRAIL_ASSIGN(auto file, OutputFile::create(path));
  return RecordWriter(std::move(file));
}

Result<void> RecordWriter::write(const Record& record) { return file_.write(format_record(record) + '\n'); }

Result<RecordFile> read_records(const std::string& path) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    const int why = errno;
    return fail(Code::bad_usage, fmt::format("cannot read '{}': {}", path, std::system_category().message(why)),
                Error::k_no_peer, why);
  }
  RecordFile file;
  std::string line;
  std::string piece(std::size_t{1} << 16, '\0');
  std::size_t number = 0;

  const auto accept = [&](bool ended) -> Result<void> {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) return {};
    auto record = parse_record(line);
    if (!record && !ended) {
      file.warnings.push_back(
          fmt::format("{} line {}: the last line was cut short and is left out; the {} records before it are whole",
                      path, number, file.records.size()));
      return {};
    }
    const std::string where = fmt::format("{} line {}", path, number);
    if (!record) return tl::unexpected<Error>(std::move(record).error().in(where));
    if (*record) file.records.push_back(std::move(**record));
    if (file.records.size() > k_most_records)
      return fail(Code::malformed, fmt::format("{}: more than {} records", where, k_most_records));
    return {};
  };

  // Read in pieces: std::getline would take a file without line ends into memory whole, however large.
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())), in.gcount() > 0) {
    std::string_view rest(piece.data(), static_cast<std::size_t>(in.gcount()));
    for (std::size_t end = rest.find('\n'); end != std::string_view::npos; end = rest.find('\n')) {
      line += rest.substr(0, end);
      rest.remove_prefix(end + 1);
      GRADRAIL_TRY(accept(/*ended=*/true));
      line.clear();
    }
    line += rest;
    if (line.size() > k_longest_record_bytes)
      return fail(Code::malformed, fmt::format("{} line {}: longer than {} bytes; no record is", path, number + 1,
                                               k_longest_record_bytes));
  }
  if (in.bad()) return fail_errno(fmt::format("reading '{}'", path), errno);
  if (!line.empty()) GRADRAIL_TRY(accept(/*ended=*/false));
  return file;
}

}  // namespace gradrail

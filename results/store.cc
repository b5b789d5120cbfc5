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

#include "results/fields.h"

namespace gradrail {
namespace {

using Json = nlohmann::ordered_json;  // keys stay in the order in which a person wants to read them

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

#include "bench/command/axes.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "bench/measure/memory_kind.h"
#include "collectives/compress/codec.h"
#include "collectives/exec/exchange.h"
#include "results/size.h"
#include "transports/settings.h"

namespace gradrail {

namespace {

constexpr int k_most_sizes = 1000;

template <class T, class Range, class Parse>
Result<std::vector<T>> parse_list(const std::string& text, std::string_view what, const Range& all, Parse parse) {
  std::vector<T> values;
  for (const std::string& name : split_words(text)) {
    if (name == "all") {
      values.assign(all.begin(), all.end());
      continue;
    }
    const auto value = parse(name);
    if (!value) {
      std::string known;
      for (const T one : all) known += fmt::format("{}{}", known.empty() ? "" : ", ", to_string(one));
      return fail(Code::bad_usage, fmt::format("'{}' is no {}; known are {}", name, what, known));
    }
    values.push_back(*value);
  }
  return values;
}

Result<Topology> parse_topology(const std::string& text, int ranks) {
  const auto x = text.find('x');
  Topology topology;
  const auto number = [&](std::string_view part, int& value) {
    const auto result = std::from_chars(part.data(), part.data() + part.size(), value);
    return result.ec == std::errc() && result.ptr == part.data() + part.size() && value > 0;
  };
  const std::string_view view = text;
  if (x == std::string::npos || !number(view.substr(0, x), topology.hosts) ||
      !number(view.substr(x + 1), topology.ranks_per_host))
    return fail(Code::bad_usage,
                fmt::format("topology '{}' is not HxR, hosts times ranks a host; for example 2x2", text));
  if (static_cast<long>(topology.hosts) * topology.ranks_per_host != ranks)
    return fail(Code::bad_usage, fmt::format("topology {} is for {} ranks, but the job has {} (-n)", text,
                                             static_cast<long>(topology.hosts) * topology.ranks_per_host, ranks));
  return topology;
}

// CLI11's own checks speak of the range of a double.
std::string whole_ranks(const std::string& text) {
  int ranks = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ranks);
  if (error == std::errc() && end == text.data() + text.size() && ranks > 0) return {};
  return fmt::format("'{}' is no number of ranks; a job has at least 1", text);
}

// An algorithm that one of the collectives has, with parts that it can take.
Result<void> known_algorithm(const std::string& name, const std::vector<Collective>& collectives) {
  for (const ExchangeKind* kind : exchange_kinds())
    if (kind->name == name) return {};
  Result<const Planner*> found = nullptr;
  Shape shape;
  for (const Collective collective : collectives) {
    shape = {};
    shape.collective = collective;
    found = parse_algorithm(name, shape);
    if (found) break;
  }
  if (!found) return tl::unexpected<Error>(std::move(found).error());
  if (shape.inner.empty() && shape.outer.empty()) return {};
  if ((*found)->name != "hierarchical")
    return fail(Code::bad_usage,
                fmt::format("'{}': only hierarchical is made of others; write {}", name, (*found)->name));
  // One rank is planned for by every algorithm, so what is refused here are the names.
  if (auto supported = (*found)->supports(shape); !supported)
    return fail(Code::bad_usage, std::move(supported).error().message);
  return {};
}

bool is_one_of(const auto& values, const auto& wanted) {
  return std::find(values.begin(), values.end(), wanted) != values.end();
}

// Codecs that can be made, and something among the other axes that they are for.
Result<void> take_codecs(const AxisTexts& texts, SweepOptions& options) {
  options.codecs = split_words(texts.codecs);
  bool encodes = false;
  for (const std::string& name : options.codecs) {
    if (name == "none") continue;
    if (name != "auto") GRADRAIL_TRY(make_codec(name));
    if (name == "auto" && texts.error_budget == 0)
      return fail(Code::bad_usage,
                  "--codec auto chooses a codec by the error that you can bear; say how large: --error-budget 1e-2");
    encodes = true;
  }
  if (!(texts.error_budget >= 0 && texts.error_budget < 1))
    return fail(Code::bad_usage,
                fmt::format("--error-budget is {}; a relative error is at least 0 and below 1, for example 1e-2",
                            texts.error_budget));
  options.error_budget = texts.error_budget;
  if (texts.codec_where != "all" && texts.codec_where != "between-hosts")
    return fail(Code::bad_usage, fmt::format("--codec-where is all or between-hosts, not '{}'", texts.codec_where));
  if (texts.codec_where == "between-hosts") options.codec_where = CodecWhere::between_hosts;
  if (!encodes) return {};
  const auto& collectives = options.collectives;
  if (!is_one_of(options.types, Type::f32))
    return fail(Code::bad_usage,
                fmt::format("codecs are for float32; -d {} leaves --codec nothing to encode", texts.types));
  const bool sums = is_one_of(options.ops, ReduceOp::sum) || is_one_of(options.ops, ReduceOp::avg);
  if (!is_one_of(collectives, Collective::all_gather) &&
      !(sums && (is_one_of(collectives, Collective::allreduce) || is_one_of(collectives, Collective::reduce_scatter))))
    return fail(Code::bad_usage,
                fmt::format("codecs are for allreduce and reduce_scatter, summing or averaging, and for all_gather; "
                            "--collective {} -o {} leaves --codec nothing to encode",
                            texts.collectives, texts.ops));
  return {};
}

}  // namespace

std::vector<std::string> split_words(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  while (true) {
    const auto end = text.find(separator, begin);
    parts.push_back(text.substr(begin, end - begin));
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

Result<void> known_transport(const std::string& name) {
  std::string known;
  for (const auto& kind : transport_kinds()) {
    if (kind.name == "local") continue;  // reaches only threads of one process
    if (kind.name == name) return kind.available();
    known += fmt::format("{}{}", known.empty() ? "" : ", ", kind.name);
  }
  return fail(Code::bad_usage, fmt::format("there is no transport '{}'; known are {}", name, known));
}

Result<std::vector<std::int64_t>> parse_sizes(const std::string& min_bytes, const std::string& max_bytes, double factor,
                                              const std::string& step_bytes) {
  GRADRAIL_ASSIGN(const std::int64_t smallest, parse_size(min_bytes));
  GRADRAIL_ASSIGN(const std::int64_t largest, parse_size(max_bytes));
  if (largest < smallest)
    return fail(Code::bad_usage,
                fmt::format("the largest size (-e {}) is below the smallest (-b {})", max_bytes, min_bytes));
  std::vector<std::int64_t> sizes;
  std::int64_t step = 0;
  if (!step_bytes.empty()) {
    GRADRAIL_ASSIGN(step, parse_size(step_bytes));
  } else if (!(factor > 1) || !std::isfinite(factor)) {
    return fail(Code::bad_usage, fmt::format("the factor between sizes (-f {}) must be above 1", factor));
  }
  for (std::int64_t size = smallest; size <= largest;) {
    sizes.push_back(size);
    if (static_cast<int>(sizes.size()) > k_most_sizes)
      return fail(Code::bad_usage, fmt::format("-b {} -e {} make more than {} sizes; take a larger step (-i) or factor "
                                               "(-f)",
                                               min_bytes, max_bytes, k_most_sizes));
    const double next = step > 0 ? static_cast<double>(size) + static_cast<double>(step)
                                 : std::max(static_cast<double>(size) * factor, static_cast<double>(size) + 1);
    if (next > static_cast<double>(largest)) break;
    size = static_cast<std::int64_t>(next);
  }
  return sizes;
}

CLI::Option* add_ranks_option(CLI::App& app, AxisTexts& t, const std::string& default_ranks) {
  return app
      .add_option(
          "-n,--ranks", t.ranks,
          fmt::format("Ranks to start on this host (default {}); under mpirun, srun or torchrun: what to expect",
                      default_ranks))
      ->check(whole_ranks);
}

void add_axis_options(CLI::App& app, AxisTexts& t) {
  const std::string what = "What to measure";
  add_ranks_option(app, t, "4")->group(what);
  app.add_option("--collective", t.collectives, "Collectives, separated by commas, or all")
      ->group(what)
      ->capture_default_str();
  app.add_option(
         "-a,--algorithm", t.algorithms,
         "Algorithms: all, auto (the best by table or model), or names; hierarchical:INNER+OUTER for both levels")
      ->group(what)
      ->capture_default_str();
  app.add_option(
         "--transport", t.transports,
         "Transports, each measured in turn; INNER+OUTER for a pair, shm alone is joined by tcp between real hosts")
      ->group(what)
      ->capture_default_str();
  app.add_option("--inner", t.inner, "Transport inside a host (with --outer, instead of --transport)")->group(what);
  app.add_option("--outer", t.outer, "Transport between hosts")->group(what);
  app.add_option("--topology", t.topologies,
                 "Group the ranks into hosts: HxR, several separated by commas; default: "
                 "the real hosts")
      ->group(what);
  app.add_option("-b,--minbytes", t.min_bytes, "Smallest size; K, M, G are powers of 1024")
      ->group(what)
      ->capture_default_str();
  app.add_option("-e,--maxbytes", t.max_bytes, "Largest size")->group(what)->capture_default_str();
  app.add_option("-f,--stepfactor", t.factor, "Factor from one size to the next")->group(what)->capture_default_str();
  app.add_option("-i,--stepbytes", t.step_bytes, "Bytes from one size to the next (instead of -f)")->group(what);
  app.add_option("-d,--datatype", t.types, "Types: float, double, half, bfloat16, int8, ... or all")
      ->group(what)
      ->capture_default_str();
  app.add_option("-o,--op", t.ops, "Reductions: sum, prod, min, max, avg or all")->group(what)->capture_default_str();
  app.add_option(
         "--codec", t.codecs,
         "Codecs that data travels in, side by side with none: none,int8,topk:0.01,powersgd:4+ef, ...; auto: by "
         "--error-budget")
      ->group(what)
      ->capture_default_str();
  app.add_option("--codec-where", t.codec_where, "Where data travels encoded: all, or between-hosts only")
      ->group(what)
      ->capture_default_str();
  app.add_option("-r,--root", t.root, "Root rank, for collectives that have one")->group(what)->capture_default_str();
  app.add_flag("--in-place", t.in_place, "Input and output are one buffer")->group(what);
  app.add_option("--buffers", t.buffers,
                 "plain (a user's memory), registered (the transport's own), or plain,registered")
      ->group(what)
      ->capture_default_str();
  app.add_option("--memory", t.memory,
                 "Memory of plain buffers: host, or huge (pages of 2 MiB that the system reserved)")
      ->group(what)
      ->capture_default_str();
  app.add_option("--cache", t.cache, "hot (same buffers), rotate (other buffers every time), flush (caches emptied)")
      ->group(what)
      ->capture_default_str();
  const std::string how = "How to measure";
  app.add_option("--iters", t.iterations, "Samples a point; default: as many as fit into --time-per-point")->group(how);
  app.add_option("--time-per-point", t.time_per_point, "Seconds to spend on a point")
      ->group(how)
      ->capture_default_str();
  app.add_option("-w,--warmup_iters", t.warmup, "Operations before measuring")->group(how)->capture_default_str();
  app.add_option("-c,--check", t.check, "Check every point's result on fresh data: 1, or 0 to skip")
      ->group(how)
      ->capture_default_str();
  app.add_option("-T,--timeout", t.timeout, "Seconds after which an operation has failed")
      ->group(how)
      ->capture_default_str();
  app.add_option("--lanes", t.lanes, "Pipes a pair of ranks uses; default: by algorithm")->group(how);
  app.add_option("--pieces", t.pieces, "Parts a block is pipelined in; default: by size")->group(how);
  app.add_option("--connections", t.connections, "tcp: sockets a pipe")->group(how)->capture_default_str();
  app.add_option(
         "--verbs", t.verbs,
         "verbs: NAME=VALUE,... of device (A+B: ranks take turns), rails (devices a rank), pairs (queue pairs a rail), "
         "srq (1: shared receives), port, gid (index or kind: ipv4, ipv6, link-local, v1), mtu, timeout, retry, "
         "traffic_class, service_level, inline, cache (MiB that stay registered when unused), gpu (best, dma-buf, "
         "peermem, staged), chunk (KiB of copies from GPUs); default: the variable GRADRAIL_VERBS")
      ->group(how);
  app.add_option("--connect", t.connect,
                 "verbs: queue pairs connect by what ranks tell each other (exchange, the default) or by rdma_cm (cm)")
      ->group(how)
      ->type_name("exchange|cm");
}

std::string verbs_settings(const AxisTexts& t) {
  if (t.connect.empty()) return t.verbs;
  const char* const variable = std::getenv("GRADRAIL_VERBS");
  const std::string others = t.verbs.empty() && variable != nullptr ? variable : t.verbs;
  return fmt::format("{}{}connect={}", others, others.empty() ? "" : ",", t.connect);
}

Result<SweepOptions> parse_axes(const AxisTexts& t, int ranks) {
  SweepOptions options;
  GRADRAIL_ASSIGN(options.collectives,
                  parse_list<Collective>(t.collectives, "collective", k_collectives, parse_collective));
  GRADRAIL_ASSIGN(options.types, parse_list<Type>(t.types, "type", k_types, parse_type));
  GRADRAIL_ASSIGN(options.ops, parse_list<ReduceOp>(t.ops, "reduction", k_reduce_ops, parse_reduce_op));
  GRADRAIL_ASSIGN(options.sizes, parse_sizes(t.min_bytes, t.max_bytes, t.factor, t.step_bytes));
  GRADRAIL_TRY(take_codecs(t, options));

  options.algorithms = split_words(t.algorithms);
  for (const std::string& name : options.algorithms) {
    if (name == "all" || name == "auto") continue;
    GRADRAIL_TRY(known_algorithm(name, options.collectives));
  }

  if (t.inner.empty() != t.outer.empty())
    return fail(Code::bad_usage, "--inner and --outer belong together; give both, or --transport");
  options.transports.clear();
  if (!t.inner.empty()) {
    options.transports.push_back({t.inner, t.outer});
  } else {
    for (const std::string& name : split_words(t.transports)) {
      const auto plus = name.find('+');
      const std::string inner = name.substr(0, plus);
      options.transports.push_back({inner, plus == std::string::npos ? "" : name.substr(plus + 1)});
    }
  }
  for (const TransportPair& pair : options.transports) {
    GRADRAIL_TRY(known_transport(pair.inner));
    if (!pair.outer.empty()) GRADRAIL_TRY(known_transport(pair.outer));
  }

  if (!t.topologies.empty()) {
    options.topologies.clear();
    for (const std::string& text : split_words(t.topologies)) {
      GRADRAIL_ASSIGN(const Topology topology, parse_topology(text, ranks));
      options.topologies.push_back(topology);
    }
  }
  options.registered_too = t.buffers == "plain,registered" || t.buffers == "registered,plain";
  if (t.buffers != "plain" && t.buffers != "registered" && !options.registered_too)
    return fail(Code::bad_usage,
                fmt::format("--buffers is plain, registered or plain,registered, not '{}'", t.buffers));
  options.buffers = t.buffers == "registered" ? BufferKind::registered : BufferKind::plain;
  GRADRAIL_ASSIGN(const auto memory, parse_memory(t.memory));
  if (memory.kind == MemoryKind::cuda)
    return fail(Code::bad_usage,
                fmt::format("--memory {}: collectives add in memory of the host; gradrail p2p measures memory of GPUs",
                            t.memory));
  if (memory.kind == MemoryKind::huge) {
    if (options.buffers != BufferKind::plain)
      return fail(Code::bad_usage, "--memory huge is for plain buffers; registered ones are memory of the transport's");
    options.buffers = BufferKind::huge;
  }
  if (t.cache != "hot" && t.cache != "rotate" && t.cache != "flush")
    return fail(Code::bad_usage, fmt::format("--cache is hot, rotate or flush, not '{}'", t.cache));
  options.cache = t.cache == "hot" ? Cache::hot : t.cache == "rotate" ? Cache::rotate : Cache::flush;
  const auto in_range = [](std::string_view option, double value, double low, double high) -> Result<void> {
    if (value >= low && value <= high) return {};
    return fail(Code::bad_usage, fmt::format("{} is {}; it may be {} to {}", option, value, low, high));
  };
  GRADRAIL_TRY(in_range("--root", t.root, 0, ranks - 1));
  GRADRAIL_TRY(in_range("--iters", t.iterations, 0, 1e6));
  GRADRAIL_TRY(in_range("--time-per-point", t.time_per_point, 1e-3, 3600));
  GRADRAIL_TRY(in_range("--warmup_iters", t.warmup, 0, 1e6));
  GRADRAIL_TRY(in_range("--check", t.check, 0, 1));
  GRADRAIL_TRY(in_range("--timeout", t.timeout, 0.1, 86400));
  GRADRAIL_TRY(in_range("--lanes", t.lanes, 0, 64));
  GRADRAIL_TRY(in_range("--pieces", t.pieces, 0, 1024));
  GRADRAIL_TRY(in_range("--connections", t.connections, 1, 16));
  options.root = t.root;
  options.in_place = t.in_place;
  options.lanes = t.lanes;
  options.pieces = t.pieces;
  options.connections = t.connections;
  options.verbs = verbs_settings(t);
  options.rules.samples = t.iterations;
  options.rules.time_per_point = Seconds(t.time_per_point);
  options.rules.warmup = t.warmup;
  options.rules.check = t.check != 0;
  options.rules.timeout = Seconds(t.timeout);
  return options;
}

}  // namespace gradrail

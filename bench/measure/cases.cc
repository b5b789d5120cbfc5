#include "bench/measure/cases.h"

#include <algorithm>

#include "bench/measure/gradient.h"
#include "collectives/exec/exchange.h"

namespace gradrail {

namespace {

std::vector<std::string> algorithms_of(const SweepOptions& options, Collective collective, const Communicator& group) {
  const bool levels = group.ranks_per_host() > 1 && group.ranks() > group.ranks_per_host();
  std::vector<std::string> names;
  const auto add = [&](std::string_view name) {
    if (std::find(names.begin(), names.end(), name) == names.end()) names.emplace_back(name);
  };
  for (const std::string& wanted : options.algorithms) {
    if (wanted == "all") {
      // One host has no levels: hierarchical would only be its inner algorithm under another name.
      for (const Planner* planner : planners())
        if (planner->collective == collective && (levels || planner->name != "hierarchical")) add(planner->name);
    } else if (wanted == "auto") {
      add(wanted);
    } else {
      Shape shape;
      shape.collective = collective;
      if (parse_algorithm(wanted, shape)) add(wanted);
    }
  }
  return names;
}

// The same for data that a codec encodes. Plans carry messages of fixed size, exchanges those of others: what was named
// for one kind of codec is not asked of the other, unless nothing else was named.
Result<std::vector<std::string>> algorithms_of(const SweepOptions& options, Collective collective,
                                               const Communicator& group, const std::string& codec) {
  GRADRAIL_ASSIGN(const auto made, make_codec(codec));
  const bool planned = made->traits().fixed_size;
  const auto& wanted = options.algorithms;
  const bool everything = std::find(wanted.begin(), wanted.end(), "all") != wanted.end();
  const auto is_exchange = [](const std::string& name) {
    const auto kinds = exchange_kinds();
    return std::any_of(kinds.begin(), kinds.end(), [&](const ExchangeKind* kind) { return kind->name == name; });
  };
  std::vector<std::string> names = algorithms_of(options, collective, group);
  for (const std::string& name : wanted)
    if (is_exchange(name)) names.push_back(name);
  std::vector<std::string> fitting;
  for (const std::string& name : names) {
    const bool crosses = options.codec_where == CodecWhere::everywhere || name.starts_with("hierarchical") ||
                         name == "auto" || !everything;
    if (name == "auto" || (planned != is_exchange(name) && crosses)) fitting.push_back(name);
  }
  if (everything && !planned) {
    ExchangeSetting setting;
    setting.rank = group.rank();
    setting.ranks = group.ranks();
    setting.ranks_per_host = group.ranks_per_host();
    setting.collective = collective;
    setting.codec = codec;
    setting.where = options.codec_where;
    setting.in_place = options.in_place;
    for (const ExchangeKind* kind : exchange_kinds())
      if (kind->supports(setting, *made)) fitting.emplace_back(kind->name);
    if (fitting.empty()) fitting.emplace_back("auto");
  }
  return fitting.empty() ? names : fitting;
}

}  // namespace

std::vector<SweepCase> cases_of(const SweepOptions& options, int ranks) {
  std::vector<SweepCase> cases;
  for (const Collective collective : options.collectives)
    for (const Type type : options.types)
      for (const ReduceOp op : options.ops) {
        if (!reduces(collective) && op != options.ops.front()) continue;
        const auto unit = static_cast<std::int64_t>(size_of(type)) * (is_blocked(collective) ? ranks : 1);
        std::int64_t last = 0;
        for (const std::int64_t size : options.sizes) {
          const std::int64_t count = std::max<std::int64_t>(1, size / unit);
          if (count == last) continue;
          last = count;
          cases.push_back({collective, type, op, count, count * unit});
        }
      }
  return cases;
}

Result<SweepCalls> calls_of(const SweepOptions& options, const SweepCase& c, const Communicator& group) {
  SweepCalls made;
  for (const std::string& codec : options.codecs) {
    Call call;
    call.collective = c.collective;
    call.count = static_cast<std::uint64_t>(c.count);
    call.type = c.type;
    call.op = c.op;
    call.root = options.root;
    call.in_place = options.in_place;
    call.lanes = options.lanes;
    call.pieces = options.pieces;
    auto algorithms = algorithms_of(options, c.collective, group);
    if (codec != "none") {
      if (!Gradient::fits(call)) continue;
      if (codec == "auto") {
        call.coding.error_budget = options.error_budget;
        algorithms = {"auto"};
      } else {
        call.coding.codec = codec;
        call.coding.where = options.codec_where;
        GRADRAIL_ASSIGN(algorithms, algorithms_of(options, c.collective, group, codec));
      }
    }
    for (const std::string& name : algorithms) {
      call.algorithm = made.names.emplace_back(name);
      made.calls.push_back(call);
    }
  }
  return made;
}

}  // namespace gradrail

#include "collectives/types.h"

#include <utility>

namespace gradrail {

std::size_t size_of(Type type) {
  switch (type) {
    case Type::i8:
    case Type::u8: return 1;
    case Type::f16:
    case Type::bf16: return 2;
    case Type::i32:
    case Type::u32:
    case Type::f32: return 4;
    case Type::i64:
    case Type::u64:
    case Type::f64: return 8;
  }
  return 0;
}

std::string_view to_string(Type type) {
  switch (type) {
    case Type::i8: return "i8";
    case Type::u8: return "u8";
    case Type::i32: return "i32";
    case Type::u32: return "u32";
    case Type::i64: return "i64";
    case Type::u64: return "u64";
    case Type::f16: return "f16";
    case Type::bf16: return "bf16";
    case Type::f32: return "f32";
    case Type::f64: return "f64";
  }
  return "unknown";
}

std::optional<Type> parse_type(std::string_view name) {
  static constexpr std::pair<std::string_view, Type> k_other_names[] = {
      {"int8", Type::i8},     {"char", Type::i8},     {"uint8", Type::u8},  {"int32", Type::i32},
      {"int", Type::i32},     {"uint32", Type::u32},  {"int64", Type::i64}, {"uint64", Type::u64},
      {"half", Type::f16},    {"float16", Type::f16}, {"fp16", Type::f16},  {"bfloat16", Type::bf16},
      {"float", Type::f32},   {"float32", Type::f32}, {"fp32", Type::f32},  {"double", Type::f64},
      {"float64", Type::f64}, {"fp64", Type::f64}};
  for (const Type type : k_types)
    if (to_string(type) == name) return type;
  for (const auto& [other, type] : k_other_names)
    if (other == name) return type;
  return std::nullopt;
}

std::string_view to_string(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return "sum";
    case ReduceOp::prod: return "prod";
    case ReduceOp::min: return "min";
    case ReduceOp::max: return "max";
    case ReduceOp::avg: return "avg";
  }
  return "unknown";
}

std::optional<ReduceOp> parse_reduce_op(std::string_view name) {
  for (const ReduceOp op : k_reduce_ops)
    if (to_string(op) == name) return op;
  return std::nullopt;
}

std::string_view to_string(Collective collective) {
  switch (collective) {
    case Collective::allreduce: return "allreduce";
    case Collective::reduce_scatter: return "reduce_scatter";
    case Collective::all_gather: return "all_gather";
    case Collective::broadcast: return "broadcast";
    case Collective::reduce: return "reduce";
    case Collective::all_to_all: return "all_to_all";
    case Collective::gather: return "gather";
    case Collective::scatter: return "scatter";
    case Collective::send_recv: return "send_recv";
  }
  return "unknown";
}

std::optional<Collective> parse_collective(std::string_view name) {
  static constexpr std::pair<std::string_view, Collective> k_other_names[] = {
      {"all_reduce", Collective::allreduce},
      {"all-reduce", Collective::allreduce},
      {"reducescatter", Collective::reduce_scatter},
      {"reduce-scatter", Collective::reduce_scatter},
      {"allgather", Collective::all_gather},
      {"all-gather", Collective::all_gather},
      {"bcast", Collective::broadcast},
      {"alltoall", Collective::all_to_all},
      {"all-to-all", Collective::all_to_all},
      {"sendrecv", Collective::send_recv},
      {"send-recv", Collective::send_recv}};
  for (const Collective collective : k_collectives)
    if (to_string(collective) == name) return collective;
  for (const auto& [other, collective] : k_other_names)
    if (other == name) return collective;
  return std::nullopt;
}

std::string_view to_string(CodecWhere where) { return where == CodecWhere::everywhere ? "all" : "between-hosts"; }

std::optional<CodecWhere> parse_codec_where(std::string_view name) {
  for (const CodecWhere where : {CodecWhere::everywhere, CodecWhere::between_hosts})
    if (name == to_string(where)) return where;
  return std::nullopt;
}

bool reduces(Collective collective) {
  return collective == Collective::allreduce || collective == Collective::reduce_scatter ||
         collective == Collective::reduce;
}

bool has_root(Collective collective) {
  return collective == Collective::broadcast || collective == Collective::reduce || collective == Collective::gather ||
         collective == Collective::scatter;
}

bool is_blocked(Collective collective) {
  switch (collective) {
    case Collective::reduce_scatter:
    case Collective::all_gather:
    case Collective::all_to_all:
    case Collective::gather:
    case Collective::scatter: return true;
    case Collective::allreduce:
    case Collective::broadcast:
    case Collective::reduce:
    case Collective::send_recv: return false;
  }
  return false;
}

double bus_factor(Collective collective, int ranks) {
  const double others = static_cast<double>(ranks - 1) / ranks;
  if (collective == Collective::allreduce) return 2 * others;
  return is_blocked(collective) ? others : 1;
}

}  // namespace gradrail

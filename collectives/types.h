// The vocabulary of collectives: element types, reductions, collectives, and their names as users type them.
// Names follow nccl-tests (`-d float -o sum`) and accept the short forms (f32) as well.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gradrail {

enum class Type : std::uint8_t { i8, u8, i32, u32, i64, u64, f16, bf16, f32, f64 };
inline constexpr std::array k_types = {Type::i8,  Type::u8,  Type::i32,  Type::u32, Type::i64,
                                       Type::u64, Type::f16, Type::bf16, Type::f32, Type::f64};
[[nodiscard]] std::size_t size_of(Type type);
[[nodiscard]] std::string_view to_string(Type type);  // "f32"
// Accepts f32, float, float32, fp32, half, bfloat16, int8, uint64, ...
[[nodiscard]] std::optional<Type> parse_type(std::string_view name);

enum class ReduceOp : std::uint8_t { sum, prod, min, max, avg };
inline constexpr std::array k_reduce_ops = {ReduceOp::sum, ReduceOp::prod, ReduceOp::min, ReduceOp::max, ReduceOp::avg};
[[nodiscard]] std::string_view to_string(ReduceOp op);
[[nodiscard]] std::optional<ReduceOp> parse_reduce_op(std::string_view name);

enum class Collective : std::uint8_t {
  allreduce,
  reduce_scatter,
  all_gather,
  broadcast,
  reduce,
  all_to_all,
  gather,
  scatter,
  send_recv,  // every rank sends to the next and receives from the previous
};
inline constexpr std::array k_collectives = {Collective::allreduce, Collective::reduce_scatter, Collective::all_gather,
                                             Collective::broadcast, Collective::reduce,         Collective::all_to_all,
                                             Collective::gather,    Collective::scatter,        Collective::send_recv};
[[nodiscard]] std::string_view to_string(Collective collective);
[[nodiscard]] std::optional<Collective> parse_collective(std::string_view name);

[[nodiscard]] bool reduces(Collective collective);  // takes a ReduceOp
[[nodiscard]] bool has_root(Collective collective);
// The collectives whose buffers are made of one block a rank; for the others all ranks' buffers are alike.
[[nodiscard]] bool is_blocked(Collective collective);

// Between which ranks data travels encoded.
enum class CodecWhere : std::uint8_t {
  everywhere,
  between_hosts,  // as float32 inside a host
};
[[nodiscard]] std::string_view to_string(CodecWhere where);  // "all", "between-hosts"
[[nodiscard]] std::optional<CodecWhere> parse_codec_where(std::string_view name);

// busbw = algbw * factor, as nccl-tests defines it: allreduce 2(n-1)/n; reduce-scatter, all-gather, all-to-all, gather
// and scatter (n-1)/n; broadcast, reduce and send-recv 1.
[[nodiscard]] double bus_factor(Collective collective, int ranks);

}  // namespace gradrail

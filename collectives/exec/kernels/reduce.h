// Elementwise reductions of host memory: what a rank does to bytes between receiving and sending them. One function is
// chosen per (type, operation) when a plan is bound and then called through its pointer; the vector instructions are
// those of the CPU the process runs on. Functions keep no state and may be called from any thread; pointers need no
// alignment, not even the element's.
//
// The bits of a result depend on nothing but the operands and the order of the chain, so that all ranks, all machines,
// a fused and an unfused run of one plan, and a repeat, agree bit for bit:
//  - every pairwise operation is commutative in its bits, and rounds to the element type, to nearest even. f16 and bf16
//    are computed in f32 (exact enough that the one rounding is correct) and rounded after each operation, in
//    ReduceManyFn as well: it equals the chain of pairwise calls.
//  - a NaN operand makes a NaN result, min and max included, and every NaN result is the same quiet one (f32
//  0x7fc00000).
//  - min and max order -0 below +0.
//  - integers wrap.
#pragma once

#include <cstddef>
#include <span>

#include "collectives/types.h"

namespace gradrail {

// to[i] = a[i] op b[i] for `count` elements. `to` may be `a` or `b` themselves; no other overlap.
using ReduceFn = void (*)(std::byte* to, const std::byte* a, const std::byte* b, std::size_t count);
// Defined for every type and operation. avg reduces as sum: divide once, at the end.
[[nodiscard]] ReduceFn reduce_function(Type type, ReduceOp op);

// to[j][i] = from[0][i] op from[1][i] op ..., from left to right, for all j: one pass that reads every input once and
// writes every output once. from holds at least one pointer (one: a copy). Any to[j] may be any from[k]; no other
// overlap. The first `around` outputs, which are no inputs then, are written around the caches where the CPU can: for
// results that would drive out of them what is needed sooner. They are visible to other cores as any other store is.
using ReduceManyFn = void (*)(std::span<std::byte* const> to, std::span<const std::byte* const> from, std::size_t count,
                              std::size_t around);
[[nodiscard]] ReduceManyFn reduce_many_function(Type type, ReduceOp op);

// data[i] = data[i] / ranks, for avg. ranks is at least 1. Floats round to nearest even, integers truncate toward zero.
using DivideFn = void (*)(std::byte* data, std::size_t count, int ranks);
[[nodiscard]] DivideFn divide_function(Type type);

// The instruction set in force: "AVX3" (AVX-512), "AVX2", "SSE4", "NEON", ...
[[nodiscard]] const char* simd_target();

}  // namespace gradrail

#include "collectives/compress/low_rank.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "collectives/compress/arithmetic.h"

// One binary runs everywhere: each loop below is compiled for several instruction sets and chosen by the CPU.
#include "collectives/exec/kernels/targets.h"
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/compress/low_rank.cc"
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
#include "collectives/compress/vectors_inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradrail::HWY_NAMESPACE {
namespace {

using arithmetic::k_columns;

// The dot products of a row with k_count vectors that lie `stride` apart.
template <std::size_t k_count>
HWY_INLINE void dots(const float* row, std::size_t values, const float* q, std::size_t stride, float* out,
                     std::size_t out_stride) {
  const F32Tag d;
  const std::size_t n = hn::Lanes(d), whole = values / k_columns * k_columns;
  HWY_ALIGN float sums[4][k_columns];
  for (std::size_t column = 0; column < k_columns; column += n) {
    auto a0 = hn::Zero(d), a1 = a0, a2 = a0, a3 = a0;
    for (std::size_t i = column; i < whole; i += k_columns) {
      const auto x = hn::LoadU(d, row + i);
      a0 = hn::Add(a0, hn::Mul(x, hn::LoadU(d, q + i)));
      if constexpr (k_count > 1) a1 = hn::Add(a1, hn::Mul(x, hn::LoadU(d, q + stride + i)));
      if constexpr (k_count > 2) a2 = hn::Add(a2, hn::Mul(x, hn::LoadU(d, q + 2 * stride + i)));
      if constexpr (k_count > 3) a3 = hn::Add(a3, hn::Mul(x, hn::LoadU(d, q + 3 * stride + i)));
    }
    hn::Store(a0, d, sums[0] + column);
    hn::Store(a1, d, sums[1] + column);
    hn::Store(a2, d, sums[2] + column);
    hn::Store(a3, d, sums[3] + column);
  }
  for (std::size_t j = 0; j < k_count; ++j) {
    for (std::size_t i = whole; i < values; ++i) {
      sums[j][i - whole] = sums[j][i - whole] + row[i] * q[j * stride + i];
    }
    out[j * out_stride] = arithmetic::total(sums[j]);
  }
}

void project(std::span<const float> matrix, MatrixShape shape, const float* q, std::size_t rank, float* p) {
  for (std::size_t row = 0; row < shape.rows; ++row) {
    const std::size_t begin = std::min(matrix.size(), row * shape.columns);
    const std::size_t values = std::min(shape.columns, matrix.size() - begin);
    const float* const at = matrix.data() + begin;
    std::size_t j = 0;
    for (; j + 4 <= rank; j += 4) {
      dots<4>(at, values, q + j * shape.columns, shape.columns, p + j * shape.rows + row, shape.rows);
    }
    for (; j < rank; ++j) {
      dots<1>(at, values, q + j * shape.columns, shape.columns, p + j * shape.rows + row, shape.rows);
    }
  }
}

// q += p[0] * row 0 + p[1] * row 1 + ..., from left to right, for `rows` rows of whole length.
template <std::size_t k_rows_at_once>
HWY_INLINE void add_rows(const float* matrix, std::size_t columns, std::size_t values, const float* p, float* q) {
  const F32Tag d;
  const std::size_t n = hn::Lanes(d);
  const auto p0 = hn::Set(d, p[0]);
  const auto p1 = hn::Set(d, p[k_rows_at_once > 1 ? 1 : 0]), p2 = hn::Set(d, p[k_rows_at_once > 2 ? 2 : 0]),
             p3 = hn::Set(d, p[k_rows_at_once > 3 ? 3 : 0]);
  std::size_t i = 0;
  for (; i + n <= values; i += n) {
    auto sum = hn::Add(hn::LoadU(d, q + i), hn::Mul(p0, hn::LoadU(d, matrix + i)));
    if constexpr (k_rows_at_once == 4) {
      sum = hn::Add(sum, hn::Mul(p1, hn::LoadU(d, matrix + columns + i)));
      sum = hn::Add(sum, hn::Mul(p2, hn::LoadU(d, matrix + 2 * columns + i)));
      sum = hn::Add(sum, hn::Mul(p3, hn::LoadU(d, matrix + 3 * columns + i)));
    }
    hn::StoreU(sum, d, q + i);
  }
  for (; i < values; ++i) {
    for (std::size_t row = 0; row < k_rows_at_once; ++row) q[i] = q[i] + p[row] * matrix[row * columns + i];
  }
}

void back_project(std::span<const float> matrix, MatrixShape shape, const float* p, std::size_t rank, float* q) {
  std::memset(q, 0, rank * shape.columns * sizeof(float));
  const std::size_t whole = shape.columns == 0 ? 0 : std::min(shape.rows, matrix.size() / shape.columns);
  std::size_t row = 0;
  for (; row + 4 <= whole; row += 4) {
    for (std::size_t j = 0; j < rank; ++j) {
      add_rows<4>(matrix.data() + row * shape.columns, shape.columns, shape.columns, p + j * shape.rows + row,
                  q + j * shape.columns);
    }
  }
  for (; row < shape.rows; ++row) {
    const std::size_t begin = std::min(matrix.size(), row * shape.columns);
    const std::size_t values = std::min(shape.columns, matrix.size() - begin);
    for (std::size_t j = 0; j < rank; ++j) {
      add_rows<1>(matrix.data() + begin, shape.columns, values, p + j * shape.rows + row, q + j * shape.columns);
    }
  }
}

template <class How>
void apply(std::span<float> matrix, MatrixShape shape, const float* p, const float* q, std::size_t rank) {
  const F32Tag d;
  const std::size_t n = hn::Lanes(d);
  for (std::size_t row = 0; row < shape.rows; ++row) {
    const std::size_t begin = std::min(matrix.size(), row * shape.columns);
    const std::size_t values = std::min(shape.columns, matrix.size() - begin);
    float* const at = matrix.data() + begin;
    std::size_t i = 0;
    const auto sum_at = [&](std::size_t column) HWY_ATTR {
      auto sum = hn::Zero(d);
      for (std::size_t j = 0; j < rank; ++j) {
        sum = hn::Add(sum, hn::Mul(hn::Set(d, p[j * shape.rows + row]), hn::LoadU(d, q + j * shape.columns + column)));
      }
      return sum;
    };
    for (; i + n <= values; i += n) How::to(d, sum_at(i), at + i);
    if (i == values) continue;
    HWY_ALIGN float last[k_columns] = {};
    HWY_ALIGN float tail[k_columns] = {};
    for (std::size_t column = i; column < values; ++column) {
      float sum = 0;
      for (std::size_t j = 0; j < rank; ++j) sum = sum + p[j * shape.rows + row] * q[j * shape.columns + column];
      tail[column - i] = sum;
    }
    std::memcpy(last, at + i, (values - i) * sizeof(float));
    How::to(d, hn::Load(d, tail), last);
    std::memcpy(at + i, last, (values - i) * sizeof(float));
  }
}

}  // namespace

LowRankKernels choose_low_rank_kernels() {
  return {&project, &back_project, &apply<Store>, &apply<Add>, &apply<Subtract>};
}

}  // namespace gradrail::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace gradrail {

HWY_EXPORT(choose_low_rank_kernels);

LowRankKernels low_rank_kernels() { return HWY_DYNAMIC_DISPATCH(choose_low_rank_kernels)(); }

void orthonormalise(std::span<float> p, std::size_t rows) {
  const auto dot = [rows](const float* a, const float* b) {
    double sum = 0;
    for (std::size_t i = 0; i < rows; ++i) sum += double{a[i]} * double{b[i]};
    return sum;
  };
  for (std::size_t at = 0; at + rows <= p.size() && rows != 0; at += rows) {
    float* const column = p.data() + at;
    const double before = std::sqrt(dot(column, column));
    for (std::size_t other = 0; other < at; other += rows) {
      const double along = dot(p.data() + other, column);
      for (std::size_t i = 0; i < rows; ++i) column[i] = static_cast<float>(column[i] - along * p[other + i]);
    }
    const double left = std::sqrt(dot(column, column));
    // What rounding left of a vector that depends on the others is noise.
    const double factor = left <= before * 1e-5 ? 0.0 : 1.0 / left;
    for (std::size_t i = 0; i < rows; ++i) column[i] = static_cast<float>(column[i] * factor);
  }
}

}  // namespace gradrail
#endif

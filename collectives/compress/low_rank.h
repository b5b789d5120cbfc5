// Products of a matrix and a few vectors, as PowerSGD needs them. Pure functions of spans, for any thread.
//
// A matrix is `rows` times `columns`, row by row; its last row may end early, where count ends, and the missing values
// are zeros. P holds `rank` vectors of `rows` values, one after the other, Q as many of `columns` values. Results have
// the same bits on every instruction set: sums along a row are made as arithmetic.h prescribes for a block, sums along
// a column from the first row to the last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace gradrail {

struct MatrixShape {
  std::size_t rows = 0;
  std::size_t columns = 0;
};

struct LowRankKernels {
  // P = M Q
  void (*project)(std::span<const float> matrix, MatrixShape shape, const float* q, std::size_t rank, float* p);
  // Q = M^T P
  void (*back_project)(std::span<const float> matrix, MatrixShape shape, const float* p, std::size_t rank, float* q);
  // M = P Q^T, M += P Q^T, M -= P Q^T
  using Apply = void (*)(std::span<float> matrix, MatrixShape shape, const float* p, const float* q, std::size_t rank);
  Apply store;
  Apply add;
  Apply subtract;
};
[[nodiscard]] LowRankKernels low_rank_kernels();  // for the CPU this process runs on

// Makes the vectors of P orthonormal, one after the other (modified Gram-Schmidt, in double). One that depends on those
// before it becomes zero.
void orthonormalise(std::span<float> p, std::size_t rows);

}  // namespace gradrail

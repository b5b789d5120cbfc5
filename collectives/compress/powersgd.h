// PowerSGD: a gradient, seen as a matrix M, is sent as the product of two narrow ones, P Q^T, found by one step of
// power iteration from where the last step ended.
//
// Source: Vogels, Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization"
// (NeurIPS 2019), algorithm 1 and section 3 (warm start). Wants error feedback (`powersgd:4+ef`).
//
// Two ways to use it:
//  - as a Codec, each rank sends its own factors: encode() makes both, decode adds P Q^T. Factors may not be summed.
//  - in rounds, as in the paper: first() on every rank; the P of all ranks are summed (float32, any allreduce) in
//  place;
//    second(), which makes them orthonormal and computes Q; the Q are summed in place; then
//    apply_rounds() gives the sum over all ranks. All ranks pass the same seed, step and tensor.
//
// Wire: 16 bytes of header (parameter: the rank r, or 0), then u32 rows, u32 columns, f32[r * rows] P and
// f32[r * columns] Q; with parameter 0, which is taken where factors are no smaller, f32[count] the values themselves.
// Fixed size: 24 + 4 * min(r * (rows + columns), count) bytes at most. Without a given shape, rows and columns are
// about the square root of the count.
// Error: none if M has the rank r or less and P spans its columns; the decoded matrix is the projection of M on P's
// vectors. Encoding depends on what was encoded before (warm start).
// NaN, infinity, overflow: all values of the tensor become NaN; reported; the next step starts afresh.
#pragma once

#include <string>
#include <vector>

#include "collectives/compress/codec.h"
#include "collectives/compress/low_rank.h"

namespace gradrail {

class PowerSgd final : public Codec, public Rounds {
 public:
  PowerSgd(std::uint32_t rank, TensorShape shape);

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] CodecTraits traits() const override;
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override;
  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override;

  [[nodiscard]] Rounds* rounds() override { return this; }
  [[nodiscard]] bool suits(std::size_t count) const override { return worth_it(count); }
  // `from` must stay until second(). Errors: unsupported (the count does not fit the shape, or factors would be no
  // smaller: send it dense).
  [[nodiscard]] Result<std::span<float>> first(std::span<const float> from, const Origin& origin) override;
  [[nodiscard]] std::span<float> second() override;
  void apply_rounds(std::span<float> to, int ranks) override;

 private:
  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override;
  [[nodiscard]] MatrixShape shape_of(std::size_t count) const;
  [[nodiscard]] bool worth_it(std::size_t count) const;
  [[nodiscard]] Result<void> begin(std::size_t count, const Origin& origin);

  std::uint32_t rank_;
  TensorShape given_;
  std::string name_;
  LowRankKernels kernels_;
  MatrixShape shape_;
  std::size_t count_ = 0;
  std::vector<float> p_, q_;
  std::span<const float> from_;  // between first() and second()
};

}  // namespace gradrail

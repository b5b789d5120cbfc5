// Data as gradients are, float32 and normally distributed, for calls whose data is encoded, and what the result is to
// be: the sum in float64. As Payload, every rank's data repeats a pattern of prime length, so that what lands in the
// wrong place is seen.
//
// A codec is no exact thing, so a result is right if all ranks have the same bits of it and it is no further from the
// exact one than the codec explains: each of the encodings that add up in it may be off by half as much again as one
// encoding of a rank's data was, by a codec without history.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "collectives/exec/communicator.h"

namespace gradrail {

class Gradient {
 public:
  // Whether there is such data for the call: float32, summed or averaged or gathered.
  [[nodiscard]] static bool fits(const Call& call);
  // The same data on all ranks for the same arguments. The call must fit.
  Gradient(const Call& call, int ranks, std::uint64_t seed);

  // Fills this rank's input.
  void fill(int rank, std::span<std::byte> input) const;

  // A rank's output beside the exact one.
  struct Seen {
    double off_squared = 0;  // sums over elements
    double exact_squared = 0;
    double most_off = 0;      // the largest of one element
    double most_exact = 0;    // likewise, of the exact values
    std::uint64_t bits = 0;   // a hash of the whole output, where all ranks have the same; else 0
    bool non_finite = false;  // some element is no finite number
  };
  [[nodiscard]] Seen look(int rank, std::span<const std::byte> output) const;

  // The relative L2 error of one encoding of this rank's data. Errors: of the codec.
  [[nodiscard]] Result<double> error_of_one(std::string_view codec, int rank) const;
  // The largest relative L2 error of a result that went through so many encodings, of which one makes `of_one`.
  [[nodiscard]] double allowed(double of_one, int encodings) const;

 private:
  static constexpr std::size_t k_period = 65521;  // the largest prime below 2^16

  [[nodiscard]] double exact(std::uint64_t element) const;

  Collective collective_;
  std::uint64_t count_;
  std::size_t period_;
  int ranks_;
  bool averaged_;
  std::vector<std::vector<float>> patterns_;  // by rank
  std::vector<double> sum_;
};

}  // namespace gradrail

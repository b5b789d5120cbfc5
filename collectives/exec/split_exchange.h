// Each source owns a part of the vector: it gets what the others have of it, sums that, and gives the sum to everybody.
// See split_exchange.cc; Ok-Topk is built on it.
#pragma once

#include <vector>

#include "collectives/compress/sparse_sum.h"
#include "collectives/exec/sparse_exchange.h"

namespace gradrail {

class SplitExchange : public SparseExchange {
 public:
  SplitExchange(const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec,
                std::string_view name = "split");

  // Only codecs whose messages are pairs can be split.
  [[nodiscard]] static Result<void> supports(const ExchangeSetting& setting, const Codec& codec);

 protected:
  static constexpr std::uint8_t k_part = 1;  // phase
  enum Form : std::uint8_t { k_pairs, k_dense };

  void lay_out() override;
  [[nodiscard]] std::size_t whole_room(int source) const override;
  void prepare() override;
  [[nodiscard]] Result<void> encoded(const Parcel& message) override;
  [[nodiscard]] std::optional<Parcel> place_of_other(int source, const Parcel& parcel) override;
  [[nodiscard]] Result<void> other_arrived(int source, const Parcel& parcel) override;
  [[nodiscard]] Result<void> read(int source, const Parcel& parcel) override;
  // The sum of this source's part is there: sum_.pairs(), with indices counted from the part's begin.
  [[nodiscard]] virtual Result<void> summed();
  // Whether a part may be any part of the vector, or is the source's share of it.
  [[nodiscard]] virtual bool bounds_move() const { return false; }

  // Sends every source its part of this source's message.
  [[nodiscard]] Result<void> cut(std::span<const std::byte> message);
  [[nodiscard]] std::uint64_t places() const { return sparse_places(setting_.count, traits_.pair_width); }
  [[nodiscard]] std::uint64_t part_places(int source) const { return bounds_[at(source) + 1] - bounds_[at(source)]; }
  [[nodiscard]] std::size_t part_begin(int source) const { return bounds_[at(source)] * traits_.pair_width; }
  [[nodiscard]] std::size_t part_values(int source) const;
  [[nodiscard]] static std::size_t at(int source) { return static_cast<std::size_t>(source); }
  // Room for so many pairs cut into one message for each source, and how far it is used.
  struct Outgoing {
    std::size_t at = 0;
    std::size_t used = 0;
  };
  [[nodiscard]] std::size_t outgoing_bytes(std::size_t pairs) const;
  [[nodiscard]] Parcel write_out(Outgoing& room, std::uint8_t phase, SparseView pairs, std::uint64_t count);

  std::vector<std::uint32_t> bounds_;  // in places, see regions.h
  SparseSum sum_;
  std::vector<std::uint32_t> indices_;  // of one part of this source's message
  std::vector<float> values_;

 private:
  [[nodiscard]] std::size_t part_room() const;
  [[nodiscard]] Result<void> merge();

  std::vector<std::size_t> part_at_;  // for the part of each source's message that is for this source
  std::vector<std::optional<Parcel>> parts_;
  int parts_here_ = 0;
  Outgoing outgoing_;
  std::vector<SparseReader> readers_;
};

}  // namespace gradrail

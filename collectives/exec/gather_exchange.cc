// Everyone's message goes to everyone, who adds them in the order of ranks. For any codec: what travels is what was
// encoded.
//
// Between hosts, long messages of pairs are cut into parts, each of a share of the indices: what has arrived is added
// to its part of the result while the next part is on the wire, and passed on within the host.
//
// Rounds: 1 (2 between hosts with several ranks). Bytes sent per rank of n with a message of m: (n-1) m on one host; of
// H hosts of R ranks m here, (H-1) m to the others, (H-1)(R-1) m passed on.
//
//   0 --m0--> 1, 2, 3    1 --m1--> 0, 2, 3    ...    everyone: m0 + m1 + m2 + m3
#include <algorithm>
#include <cstring>

#include "collectives/compress/regions.h"
#include "collectives/compress/sparse.h"
#include "collectives/exec/sparse_exchange.h"

namespace gradrail {
namespace {

class GatherExchange final : public SparseExchange {
 public:
  GatherExchange(const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec)
      : SparseExchange("gather", setting, means, codec, false) {}

 private:
  void lay_out() override {
    readers_.resize(static_cast<std::size_t>(sources_.count()));
    if (parts() == 1 || sources_.mine() < 0) return;
    indices_.resize(most_pairs_);
    values_.resize(most_pairs_ * traits_.pair_width);
  }
  // Between hosts, where a link is awaited.
  [[nodiscard]] std::size_t parts() const override {
    if (traits_.pair_width == 0 || setting_.ranks <= setting_.ranks_per_host) return 1;
    return std::clamp<std::size_t>(longest_ / k_part_bytes, 1, k_most_parts);
  }
  [[nodiscard]] std::size_t whole_room(int /*source*/) const override {
    if (parts() == 1) return longest_;
    return sparse_max_bytes(most_pairs_, traits_.pair_width) + parts() * (sparse_max_bytes(0) + 64);
  }
  [[nodiscard]] bool wants_zeros() const override { return traits_.sparse && traits_.pair_width == 0; }

  [[nodiscard]] Result<void> encoded(const Parcel& message) override {
    if (parts() == 1) return publish(message);
    const std::size_t width = traits_.pair_width;
    GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(bytes_of(message), setting_.count, codec_.name(), width));
    SparseReader reader(open);
    Parcel parcel;
    parcel.at = whole_at(sources_.mine());
    for (std::size_t part = 0; part < parts(); ++part) {
      const std::uint64_t begin = place_of_part(part);
      std::size_t found = 0;
      if (!reader.take_below(place_of_part(part + 1), [&](std::uint32_t index, const std::byte* values) {
            indices_[found] = static_cast<std::uint32_t>(index - begin);
            std::memcpy(values_.data() + found++ * width, values, width * sizeof(float));
          })) {
        return fail(Code::malformed, codec_.name() + ": made a message that cannot be read");
      }
      const SparseView pairs{std::span(indices_).first(found), std::span(values_).first(found * width), width};
      parcel.form = static_cast<std::uint8_t>(part);
      parcel.bytes = write_sparse(pairs, part_of(part).size(), wire(parcel.at, sparse_max_bytes(found, width)));
      GRADRAIL_TRY(publish(parcel));
      parcel.at += (parcel.bytes + 63) / 64 * 64;
    }
    return {};
  }

  [[nodiscard]] Result<void> read(int source, const Parcel& parcel) override {
    if (traits_.pair_width > 0) {
      const std::size_t values = part_of(parts() == 1 ? 0 : parcel.form).size();
      GRADRAIL_ASSIGN(const SparseMessage open,
                      open_sparse(bytes_of(parcel), values, codec_.name(), traits_.pair_width));
      readers_[static_cast<std::size_t>(source)] = SparseReader(open);
      return {};
    }
    if (source == 0 && !traits_.sparse) return codec_.decode(bytes_of(parcel), out());
    return codec_.decode_add(bytes_of(parcel), out());
  }
  // Pairs of all messages are added to a stretch of the result while it is in cache: memory sees each value once.
  [[nodiscard]] Result<void> part_read(std::size_t part) override {
    const std::size_t width = traits_.pair_width;
    if (width == 0) return {};
    const auto to = part_of(part);
    const std::uint64_t places = sparse_places(to.size(), width), step = std::max<std::size_t>(1, k_stretch / width);
    for (std::uint64_t begin = 0; begin < places; begin += step) {
      const std::size_t first = begin * width, end = std::min<std::size_t>((begin + step) * width, to.size());
      std::fill(to.begin() + static_cast<std::ptrdiff_t>(first), to.begin() + static_cast<std::ptrdiff_t>(end), 0.0f);
      for (SparseReader& reader : readers_) {
        (void)reader.take_below(begin + step, [&](std::uint32_t index, const std::byte* values) {
          const std::size_t at = std::size_t{index} * width;
          for (std::size_t i = at; i < std::min(at + width, to.size()); ++i, values += 4) {
            float value = 0;
            std::memcpy(&value, values, sizeof value);
            to[i] += value;
          }
        });
      }
    }
    for (int s = 0; s < sources_.count(); ++s) {
      if (!readers_[static_cast<std::size_t>(s)].sound()) {
        return fault_of(
            s, {Code::malformed, codec_.name() + ": the indices of a message are damaged", Error::k_no_peer, 0});
      }
    }
    return {};
  }

  [[nodiscard]] std::uint64_t place_of_part(std::size_t part) const {
    return share_begin(sparse_places(setting_.count, traits_.pair_width), parts(), part);
  }
  // Of the result.
  [[nodiscard]] std::span<float> part_of(std::size_t part) const {
    const auto value = [&](std::size_t of) {
      return std::min<std::size_t>(place_of_part(of) * traits_.pair_width, setting_.count);
    };
    return out().subspan(value(part), value(part + 1) - value(part));
  }

  static constexpr std::size_t k_stretch = 32 << 10;      // values
  static constexpr std::size_t k_part_bytes = 128 << 10;  // of a message, about
  static constexpr std::size_t k_most_parts = 16;
  // Asked once: a codec's share of values may change from call to call.
  std::size_t longest_ = codec_.max_bytes(setting_.count);
  std::vector<SparseReader> readers_;
  std::vector<std::uint32_t> indices_;  // of one part of this source's message
  std::vector<float> values_;
};

std::vector<ChannelKey> channels(const ExchangeSetting& setting) { return SparseExchange::channels(setting, false); }

}  // namespace

extern const ExchangeKind k_gather_exchange;
const ExchangeKind k_gather_exchange{"gather", "everyone's encoded data to everyone; any codec",
                                     &SparseExchange::supports, channels, make_exchange<GatherExchange>};

}  // namespace gradrail

// Everyone's message goes to everyone, who adds them in the order of ranks. For any codec: what travels is what was
// encoded.
//
// Rounds: 1 (2 between hosts with several ranks). Bytes sent per rank of n with a message of m: (n-1) m on one host; of
// H hosts of R ranks m here, (H-1) m to the others, (H-1)(R-1) m passed on.
//
//   0 --m0--> 1, 2, 3    1 --m1--> 0, 2, 3    ...    everyone: m0 + m1 + m2 + m3
#include <algorithm>
#include <cstring>

#include "collectives/compress/sparse.h"
#include "collectives/exec/sparse_exchange.h"

namespace gradrail {
namespace {

class GatherExchange final : public SparseExchange {
 public:
  GatherExchange(const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec)
      : SparseExchange("gather", setting, means, codec, false) {}

 private:
  [[nodiscard]] std::size_t whole_room(int /*source*/) const override { return codec_.max_bytes(setting_.count); }
  [[nodiscard]] Result<void> encoded(const Parcel& message) override { return publish(message); }
  void lay_out() override { readers_.resize(static_cast<std::size_t>(sources_.count())); }
  [[nodiscard]] bool wants_zeros() const override { return traits_.sparse && traits_.pair_width == 0; }

  [[nodiscard]] Result<void> read(int source, const Parcel& parcel) override {
    if (traits_.pair_width > 0) {
      GRADRAIL_ASSIGN(const SparseMessage open,
                      open_sparse(bytes_of(parcel), setting_.count, codec_.name(), traits_.pair_width));
      readers_[static_cast<std::size_t>(source)] = SparseReader(open);
      return {};
    }
    if (source == 0 && !traits_.sparse) return codec_.decode(bytes_of(parcel), out());
    return codec_.decode_add(bytes_of(parcel), out());
  }
  // Pairs of all messages are added to a stretch of the result while it is in cache: memory sees each value once.
  [[nodiscard]] Result<void> all_read() override {
    const std::size_t width = traits_.pair_width;
    if (width == 0) return {};
    const auto to = out();
    const std::uint64_t places = sparse_places(setting_.count, width),
                        step = std::max<std::size_t>(1, k_stretch / width);
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

  static constexpr std::size_t k_stretch = 32 << 10;  // values
  std::vector<SparseReader> readers_;
};

std::vector<ChannelKey> channels(const ExchangeSetting& setting) { return SparseExchange::channels(setting, false); }

}  // namespace

Result<std::unique_ptr<ExchangeRun>> make_gather(const ExchangeSetting& setting, const ExchangeMeans& means) {
  GRADRAIL_ASSIGN(Codec* const codec, means.state->at(0));
  auto run = std::make_unique<GatherExchange>(setting, means, *codec);
  GRADRAIL_TRY(run->set_up());
  return run;
}

extern const ExchangeKind k_gather_exchange;
const ExchangeKind k_gather_exchange{"gather", "everyone's encoded data to everyone; any codec",
                                     &SparseExchange::supports, channels, make_gather};

}  // namespace gradrail

// Everyone's message goes to everyone, who adds them in the order of ranks. For any codec: what travels is what was
// encoded.
//
// Rounds: 1 (2 between hosts with several ranks). Bytes sent per rank of n with a message of m: (n-1) m on one host; of
// H hosts of R ranks m here, (H-1) m to the others, (H-1)(R-1) m passed on.
//
//   0 --m0--> 1, 2, 3    1 --m1--> 0, 2, 3    ...    everyone: m0 + m1 + m2 + m3
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
  [[nodiscard]] Result<void> read(int source, const Parcel& parcel) override {
    if (source == 0 && !traits_.sparse) return codec_.decode(bytes_of(parcel), out());
    return codec_.decode_add(bytes_of(parcel), out());
  }
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

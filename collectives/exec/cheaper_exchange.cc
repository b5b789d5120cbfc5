// gather or split, whichever moves fewer bytes; what "auto" means for codecs whose messages have no fixed size.
#include "collectives/compress/exchange_choice.h"
#include "collectives/compress/sparse.h"
#include "collectives/exec/sparse_exchange.h"

namespace gradrail {

extern const ExchangeKind k_gather_exchange;
extern const ExchangeKind k_split_exchange;

namespace {

bool splits(const ExchangeSetting& setting) {
  const auto codec = make_codec(setting.codec);
  if (!codec) return false;
  const std::size_t width = (*codec)->traits().pair_width;
  if (width == 0 || setting.count > 0xFFFFFFFFu) return false;
  // Of blocks, how many are zero is not known; where most are, both are quick.
  SparseLoad load{Sources(setting).count(), setting.count, sparse_max_pairs((*codec)->max_bytes(setting.count), width),
                  width};
  return cheaper_way(load) == SparseWay::split;
}

std::vector<ChannelKey> channels(const ExchangeSetting& setting) {
  return SparseExchange::channels(setting, splits(setting));
}
Result<std::unique_ptr<ExchangeRun>> make(const ExchangeSetting& setting, const ExchangeMeans& means) {
  return (splits(setting) ? k_split_exchange : k_gather_exchange).make(setting, means);
}

}  // namespace

extern const ExchangeKind k_cheaper_exchange;
const ExchangeKind k_cheaper_exchange{"sparse", "gather or split, whichever is expected to move fewer bytes",
                                      &SparseExchange::supports, channels, make};

}  // namespace gradrail

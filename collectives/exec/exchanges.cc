// The one table that names all exchanges of messages whose size depends on the data. A new one is one file in this
// folder, which defines the constant, and one line here: EXCHANGE(k_name_exchange).
#include "collectives/exec/exchange.h"

#define GRADRAIL_EXCHANGES(EXCHANGE) \
  EXCHANGE(k_cheaper_exchange)       \
  EXCHANGE(k_gather_exchange)        \
  EXCHANGE(k_split_exchange)         \
  EXCHANGE(k_ok_topk_exchange)       \
  EXCHANGE(k_rounds_exchange)

namespace gradrail {

#define GRADRAIL_DECLARE(exchange) extern const ExchangeKind exchange;
GRADRAIL_EXCHANGES(GRADRAIL_DECLARE)
#undef GRADRAIL_DECLARE

std::span<const ExchangeKind* const> exchange_kinds() {
#define GRADRAIL_ENTRY(exchange) &exchange,
  // The null at the end keeps an empty table well-formed.
  static constexpr const ExchangeKind* k_kinds[] = {GRADRAIL_EXCHANGES(GRADRAIL_ENTRY) nullptr};
#undef GRADRAIL_ENTRY
  return std::span(k_kinds).first(std::size(k_kinds) - 1);
}

Result<Codec*> CodecState::at(std::size_t index) {
  if (codecs_.size() <= index) codecs_.resize(index + 1);
  if (codecs_[index] == nullptr) {
    GRADRAIL_ASSIGN(codecs_[index], make_codec(codec_, shape_));
  }
  return codecs_[index].get();
}

}  // namespace gradrail

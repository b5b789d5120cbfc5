#include "transports/verbs/wire.h"

namespace gradrail::verbs {
namespace {

template <class Self, class Visit>
void each(Self& self, const Visit& visit) {
  visit(self.version), visit(self.rank), visit(self.lane), visit(self.rails), visit(self.window);
  visit(self.landing), visit(self.landing_key), visit(self.fresh[0]), visit(self.fresh[1]), visit(self.ring_bytes),
      visit(self.eager_bytes);
  visit(self.part_bytes);
}
template <class Self, class Visit>
void each_of_pair(Self& pair, const Visit& visit) {
  visit(pair.rail), visit(pair.ethernet), visit(pair.global), visit(pair.mtu);
  visit(pair.lid), visit(pair.queue_pair), visit(pair.packet_number), visit(pair.gid_high), visit(pair.gid_low);
  visit(pair.cm_address[0]), visit(pair.cm_address[1]), visit(pair.cm_port);
}

}  // namespace

Bytes Introduction::pack() const {
  ByteWriter out;
  const auto put = [&](const auto& field) { out.put_bytes(std::as_bytes(std::span(&field, 1))); };
  each(*this, put);
  put(static_cast<std::uint32_t>(pairs.size()));
  for (const auto& pair : pairs) each_of_pair(pair, put);
  return std::move(out).take();
}

std::optional<Introduction> Introduction::parse(std::span<const std::byte> bytes) {
  ByteReader in(bytes);
  Introduction parsed;
  const auto get = [&](auto& field) { field = in.get<std::remove_reference_t<decltype(field)>>(); };
  each(parsed, get);
  const std::size_t count = in.get<std::uint32_t>();
  if (!in.ok() || count == 0 || count > k_most_pairs) return std::nullopt;
  parsed.pairs.resize(count);
  for (auto& pair : parsed.pairs) each_of_pair(pair, get);
  if (!in.ok() || in.left() > 0) return std::nullopt;
  return parsed;
}

}  // namespace gradrail::verbs

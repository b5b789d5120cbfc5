#include "bench/measure/selection_bytes.h"

namespace gradrail {

void put(ByteWriter& writer, const Selection& selection) {
  writer.put_string(selection.algorithm);
  writer.put(selection.lanes);
  writer.put(selection.pieces);
  writer.put_string(selection.codec);
  writer.put(static_cast<std::uint8_t>(selection.where));
}

Selection get_selection(ByteReader& reader) {
  Selection selection;
  selection.algorithm = reader.get_string();
  selection.lanes = reader.get<int>();
  selection.pieces = reader.get<int>();
  selection.codec = reader.get_string();
  selection.where = reader.get<std::uint8_t>() == 0 ? CodecWhere::everywhere : CodecWhere::between_hosts;
  return selection;
}

void put(ByteWriter& writer, const Pace& pace) {
  writer.put(pace.most_warmup);
  writer.put(pace.estimates);
  writer.put(pace.fewest_samples);
  writer.put(static_cast<std::uint8_t>(pace.refresh));
}

Pace get_pace(ByteReader& reader) {
  Pace pace;
  pace.most_warmup = reader.get<int>();
  pace.estimates = reader.get<int>();
  pace.fewest_samples = reader.get<int>();
  pace.refresh = reader.get<std::uint8_t>() != 0;
  return pace;
}

void put(ByteWriter& writer, const std::vector<Selection>& selections) {
  writer.put(static_cast<std::uint32_t>(selections.size()));
  for (const Selection& selection : selections) put(writer, selection);
}

std::vector<Selection> get_selections(ByteReader& reader) {
  std::vector<Selection> selections;
  const auto count = reader.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && reader.ok(); ++i) selections.push_back(get_selection(reader));
  return selections;
}

}  // namespace gradrail

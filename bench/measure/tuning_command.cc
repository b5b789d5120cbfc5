#include "bench/measure/tuning_command.h"

#include <algorithm>
#include <utility>

#include "bench/measure/selection_bytes.h"

namespace gradrail {

Bytes pack(const TuningCommand& command) {
  ByteWriter writer;
  writer.put(static_cast<std::uint8_t>(command.order));
  writer.put(command.most_time);
  writer.put(command.count);
  writer.put(command.time_per_point);
  put(writer, command.pace);
  writer.put(command.seed);
  put(writer, command.selections);
  writer.put(command.smallest);
  writer.put(command.largest);
  return std::move(writer).take();
}

Result<TuningCommand> unpack_tuning_command(const Bytes& bytes) {
  ByteReader reader(bytes);
  TuningCommand command;
  command.order = static_cast<TuningOrder>(std::min<std::uint8_t>(reader.get<std::uint8_t>(), 2));
  command.most_time = reader.get<double>();
  command.count = reader.get<std::int64_t>();
  command.time_per_point = reader.get<double>();
  command.pace = get_pace(reader);
  command.seed = reader.get<std::uint64_t>();
  command.selections = get_selections(reader);
  command.smallest = reader.get<std::uint64_t>();
  command.largest = reader.get<std::uint64_t>();
  if (!reader.ok()) return fail(Code::malformed, "rank 0's command for tuning is damaged", 0);
  return command;
}

}  // namespace gradrail

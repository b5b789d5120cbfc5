#include <fmt/format.h>

#include "collectives/schedule/render.h"

namespace gradrail {

std::string_view to_string(Op op) {
  switch (op) {
    case Op::send: return "send";
    case Op::recv: return "recv";
    case Op::recv_reduce: return "recv_reduce";
    case Op::reduce: return "reduce";
    case Op::copy: return "copy";
  }
  return "unknown";
}

std::string_view to_string(Store store) {
  switch (store) {
    case Store::in: return "in";
    case Store::out: return "out";
    case Store::scratch: return "scratch";
  }
  return "unknown";
}

std::string to_string(Place place, std::uint32_t chunks) {
  std::string text(to_string(place.store));
  if (place.store == Store::scratch) text += std::to_string(place.plane);
  if (chunks <= 1) return fmt::format("{} {}", text, place.chunk);
  return fmt::format("{} {}..{}", text, place.chunk, place.chunk + std::uint64_t{chunks} - 1);
}

}  // namespace gradrail

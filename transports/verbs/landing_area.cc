#include "transports/verbs/landing_area.h"

namespace gradrail::verbs {

Result<LandingArea> LandingArea::make(const Device& device, std::size_t ring_bytes) {
  const std::size_t bytes = Landing{ring_bytes}.total_bytes();
  LandingArea made;
  GRADRAIL_ASSIGN(made.pages_, Pages::map(bytes));
  GRADRAIL_ASSIGN(ibv_mr* const memory, device.register_memory(made.pages_.data(), bytes));
  made.memory_ = Registered(memory, Deregister{&device.calls()});
  return made;
}

}  // namespace gradrail::verbs

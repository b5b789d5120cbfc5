// The memory of one pipe that its peer writes to, registered; its layout is in wire.h. Owned by the pipe, on its
// thread; the Device must outlive it.
#pragma once

#include "transports/base/pages.h"
#include "transports/verbs/device.h"
#include "transports/verbs/wire.h"

namespace gradrail::verbs {

class LandingArea {
 public:
  // Errors: exhausted, system.
  [[nodiscard]] static Result<LandingArea> make(const Device& device, std::size_t ring_bytes);

  [[nodiscard]] std::byte* data() const { return pages_.data(); }
  [[nodiscard]] std::uint32_t remote_key() const { return memory_->rkey; }

 private:
  Pages pages_;  // goes last
  Registered memory_;
};

}  // namespace gradrail::verbs

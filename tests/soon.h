// How long a test waits for what should happen at once. It is more than any machine or sanitizer needs, so that only
// what never comes fails by it.
#pragma once

#include "transports/base/clock.h"

namespace gradrail {

inline Deadline soon() { return Deadline::after(Seconds(60)); }

}  // namespace gradrail

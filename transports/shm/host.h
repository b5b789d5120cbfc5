// Which ranks can share memory and meet by an abstract unix socket: those of one boot and one network name space.
#pragma once

#include <string>

#include "transports/base/result.h"

namespace gradrail::shm {

// Equal for two processes exactly if they can. Errors: unavailable, where /proc does not tell.
[[nodiscard]] Result<std::string> host_id();

}  // namespace gradrail::shm

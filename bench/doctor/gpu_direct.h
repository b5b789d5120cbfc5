// By which way an RDMA device is expected to reach a GPU's memory, and why not by a better one, from what files tell;
// in the words that the transport uses for what it finds when it tries. Pure.
#pragma once

#include <optional>

#include "bench/doctor/facts.h"
#include "transports/memory_path.h"

namespace gradrail::doctor {

// None where NVIDIA's driver is not loaded, so that there is nothing to expect.
[[nodiscard]] std::optional<PathChoice> expected_gpu_path(const Facts& facts, const RdmaDevice& device);

}  // namespace gradrail::doctor

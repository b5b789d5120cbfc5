#include "transports/memory_path.h"

#include <fmt/format.h>

namespace gradrail {

std::string_view to_string(MemoryPath path) {
  switch (path) {
    case MemoryPath::host: return "host memory";
    case MemoryPath::dma_buf: return "dma-buf";
    case MemoryPath::peer_memory: return "nvidia-peermem";
    case MemoryPath::staged: return "staged through pinned host memory";
    case MemoryPath::staged_slow: return "staged through ordinary host memory";
  }
  return "unknown";
}

std::string to_text(const PathChoice& choice) {
  std::string reasons;
  for (const auto& [path, why] : choice.against)
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ",
                           path == MemoryPath::staged ? "pinned" : to_string(path), why);
  return reasons.empty() ? std::string(to_string(choice.path))
                         : fmt::format("{} ({})", to_string(choice.path), reasons);
}

}  // namespace gradrail

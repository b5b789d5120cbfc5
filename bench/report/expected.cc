#include "bench/report/expected.h"

#include <algorithm>
#include <cctype>

#include "bench/report/summary.h"

namespace gradrail {

namespace {

bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// As a word of its own: "mlx5_1 port 1" is not in "mlx5_1 port 12".
bool names(std::string_view text, std::string_view name) {
  for (auto at = text.find(name); at != text.npos; at = text.find(name, at + 1)) {
    const auto end = at + name.size();
    if ((at == 0 || !in_word(text[at - 1])) && (end == text.size() || !in_word(text[end]))) return true;
  }
  return false;
}

std::size_t occurrences(std::string_view text, std::string_view word) {
  std::size_t count = 0;
  for (auto at = text.find(word); at != text.npos; at = text.find(word, at + 1)) ++count;
  return count;
}

template <class Row>
void set(Row& row, double measured, double expected) {
  if (measured <= 0 || expected <= 0) return;
  row.expected_gbs = expected;
  row.expected_share = measured / expected;
}

}  // namespace

std::int64_t cache_bytes(const Machine& machine) {
  return (machine.l1d_bytes + machine.l2_bytes) * std::max(1, machine.cores) +
         machine.l3_bytes * std::max(1, machine.sockets);
}

std::optional<PathInUse> path_in_use(std::string_view via, std::span<const doctor::Expected> paths) {
  PathInUse out;
  std::size_t known = 0;
  for (const doctor::Expected& path : paths) {
    if (path.path.find(" port ") == path.path.npos || !names(via, path.path)) continue;
    if (known++ == 0) out.limit = path.limit;
    out.name += (out.name.empty() ? "" : " + ") + path.path;
    out.gbs += path.gbs;
  }
  if (known == 0 || known != occurrences(via, " port ")) return std::nullopt;
  return out;
}

void expect(Point& point, const Limits& limits, std::int64_t caches, const std::optional<PathInUse>& rdma) {
  if (!point.time_us || point.library != "gradrail" || is_encoded(point)) return;
  const bool one_a_host = point.topology == std::to_string(point.ranks) + "x1" && point.ranks > 1;
  if (point.transport == "verbs" && rdma && one_a_host) return set(point, point.busbw_gbs, rdma->gbs);
  const auto bound = shared_memory_bound(point, limits, caches);
  if (bound && caches > 0 && !bound->in_cache)
    set(point, point.busbw_gbs, point.busbw_gbs * point.time_us->median / bound->least_us);
}

void expect(P2pPoint& point, double memory_gbs, std::int64_t caches, const std::optional<PathInUse>& rdma) {
  if (!point.time_us) return;
  if (point.transport == "verbs" && rdma)
    return set(point, point.bandwidth_gbs, rdma->gbs * (point.test == "bidirectional" ? 2 : 1));
  const std::int64_t buffers = (point.test == "bidirectional" ? 4 : 2) * point.bytes;
  if (point.transport == "shm" && memory_gbs > 0 && caches > 0 && buffers > caches)
    set(point, point.bandwidth_gbs, memory_gbs / 2);
}

}  // namespace gradrail

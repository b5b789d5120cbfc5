#include <algorithm>
#include <cmath>

#include "collectives/select/selector.h"

namespace gradrail {

namespace {

constexpr std::uint64_t k_small_bytes = 16 << 10;  // below, the number of rounds decides
constexpr int k_few_ranks = 8;
constexpr std::uint64_t k_two_shot_bytes = 32 << 10;         // from here on, of two ranks
constexpr std::uint64_t k_shared_two_shot_bytes = 64 << 10;  // of three to k_few_ranks, which may share cores
constexpr std::uint64_t k_pushed_bytes = 8 << 10;            // from here on, reading and writing each byte once decides
// So long, pushing in pieces of that size is half as fast again as each rank's part in one stream
// (results/measured.md).
constexpr std::uint64_t k_long_pushed_bytes = 128 << 20;
constexpr std::uint64_t k_pushed_piece_bytes = 2 << 20;
constexpr std::uint64_t k_piece_bytes = 256 << 10;  // of a pipelined plan over sockets: sending hides receiving
// Of two shots of plain memory in one host, so that what is copied into shared memory is in cache until it is copied
// out again (collectives/exec/binding.h).
constexpr std::uint64_t k_staged_bytes = 128 << 10;
// Every rank has copies for every other. From so many bytes of all ranks' buffers on, smaller copies were faster where
// ranks are many, likely as they stay in the cache that all share (results/measured.md).
constexpr std::uint64_t k_crowded_bytes = 32 << 20;
constexpr std::uint64_t k_least_staged_bytes = 32 << 10;
constexpr std::uint64_t k_most_two_shot_pieces = 256;

bool pipelines(std::string_view algorithm) {
  return algorithm == "ring" || algorithm == "tree" || algorithm == "chain" || algorithm == "hierarchical";
}

}  // namespace

Selection with_default_tuning(std::string_view algorithm, const Question& question) {
  Selection selection{std::string(algorithm), 1, 1};
  const std::string_view name = algorithm.substr(0, algorithm.find(':'));
  if (name == "two_shot" && question.transport == "shm") {
    const auto ranks = static_cast<std::uint64_t>(std::max(question.ranks, 2));
    const bool crowded = question.bytes >= k_crowded_bytes / ranks;
    const std::uint64_t staged = crowded ? std::max(2 * k_staged_bytes / ranks, k_least_staged_bytes) : k_staged_bytes;
    selection.pieces =
        static_cast<int>(std::clamp<std::uint64_t>(question.bytes / ranks / staged, 1, k_most_two_shot_pieces));
  }
  if (!pipelines(name)) return selection;
  // A ring's block is an n-th of the data; trees and chains pass on all of it.
  const bool divided = name == "ring" || name == "hierarchical";
  const std::uint64_t block =
      divided ? question.bytes / static_cast<std::uint64_t>(question.ranks) : question.bytes / 2;
  const std::uint64_t most = divided ? 8 : 64;
  selection.pieces = static_cast<int>(std::clamp<std::uint64_t>(block / k_piece_bytes, 1, most));
  return selection;
}

Selection known_selection(const Question& question) {
  if (question.collective != Collective::allreduce || question.transport != "shm" || question.ranks < 2 ||
      question.ranks > k_few_ranks || question.ranks_per_host != question.ranks)
    return {};
  // More than two: whatever memory it is, as ranks whose memory differs must choose alike.
  if (question.ranks > 2)
    return question.bytes >= k_shared_two_shot_bytes && question.reached != Reached::unknown
               ? with_default_tuning("two_shot", question)
               : Selection{};
  // Memory that all reach is read once and written once, by each rank a part of it.
  if (question.reached == Reached::yes && question.bytes >= k_pushed_bytes) {
    if (question.bytes < k_long_pushed_bytes) return {"two_shot", 1, 1};
    return {"two_shot", 1,
            static_cast<int>(std::min(question.bytes / 2 / k_pushed_piece_bytes, k_most_two_shot_pieces))};
  }
  // Plain memory too, but that it is copied into shared memory and out of it. What is short all show on a board.
  if (question.reached == Reached::no)
    return question.bytes < k_two_shot_bytes ? Selection{"recursive_doubling", 1, 1}
                                             : with_default_tuning("two_shot", question);
  return {};
}

Selection default_selection(const Question& question) {
  if (Selection known = known_selection(question); !known.algorithm.empty()) return known;
  const bool small = question.bytes <= k_small_bytes;
  const auto name = [&]() -> std::string_view {
    switch (question.collective) {
      case Collective::allreduce:
        // Where ranks share cores every round is a switch between them, and elsewhere a trip: one round wins while
        // its n-1 messages are cheap. Two ranks have one round either way.
        if (small && question.transport == "shm" && question.ranks > 2 && question.ranks <= k_few_ranks)
          return "one_shot";
        if (small) return "recursive_doubling";
        if (question.ranks_per_host > 1 && question.ranks > question.ranks_per_host) return "hierarchical";
        return question.ranks <= k_few_ranks ? "two_shot" : "ring";
      case Collective::reduce_scatter:
      case Collective::all_gather: return question.ranks <= k_few_ranks ? "direct" : "ring";
      case Collective::broadcast:
      case Collective::reduce: return small || question.ranks <= 2 ? "binomial" : "chain";
      case Collective::gather:
      case Collective::scatter: return question.ranks <= k_few_ranks ? "direct" : "binomial";
      case Collective::all_to_all: return "pairwise";
      case Collective::send_recv: return "direct";
    }
    return "ring";
  }();
  return with_default_tuning(name, question);
}

}  // namespace gradrail

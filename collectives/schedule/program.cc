#include "collectives/schedule/program.h"

#include "transports/base/check.h"

namespace gradrail {

namespace {

// a * b / c without overflow; a <= c.
std::uint64_t scaled(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  return static_cast<std::uint64_t>(static_cast<unsigned __int128>(a) * b / c);
}

}  // namespace

std::uint64_t chunk_begin(std::uint64_t total, std::uint32_t grid, std::uint32_t blocks, std::uint32_t align,
                          std::uint32_t chunk) {
  const std::uint32_t pieces = grid / blocks;
  const std::uint32_t block = chunk / pieces;
  const std::uint32_t piece = chunk % pieces;
  const std::uint64_t begin = scaled(block, total, blocks);
  if (piece == 0) return begin;
  const std::uint64_t length = scaled(block + 1, total, blocks) - begin;
  const std::uint64_t offset = scaled(piece, length, pieces);
  return begin + offset / align * align;
}

Window window_of(Store store, const Shape& shape, int rank, std::uint32_t grid) {
  const Window whole{0, grid};
  if (store == Store::scratch) return whole;
  const auto n = static_cast<std::uint32_t>(shape.ranks);
  const auto block = [&] {
    GRADRAIL_CHECK(grid % n == 0);
    return whole.part(static_cast<std::uint32_t>(rank), n);
  };
  const bool input = store == Store::in;
  const bool at_root = rank == shape.root;
  switch (shape.collective) {
    case Collective::allreduce:
    case Collective::all_to_all:
    case Collective::send_recv: return whole;
    case Collective::reduce_scatter: return input ? whole : block();
    case Collective::all_gather: return input ? block() : whole;
    case Collective::broadcast: return !input || at_root ? whole : Window{};
    case Collective::reduce: return input || at_root ? whole : Window{};
    case Collective::gather: return input ? block() : at_root ? whole : Window{};
    case Collective::scatter: return !input ? block() : at_root ? whole : Window{};
  }
  return {};
}

}  // namespace gradrail

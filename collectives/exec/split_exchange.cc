// Split and gather: Renggli et al., "SparCML: high-performance sparse communication for machine learning" (SC 2019),
// section 5.3. Sums travel as pairs, or as all values of the part where so much was filled in that this is smaller.
// Values of one index are added in the order of ranks by the one rank that owns it: the bits are those of gather.
//
// Rounds: 2. Bytes sent per rank of n, of a message of m and sums of s in all: m (n-1)/n + s (n-1)/n.
//
//   m0 = a0 b0 c0 d0     0 gets a1 a2 a3, makes A     0 --A--> 1, 2, 3
//   m1 = a1 b1 c1 d1     1 gets b0 b2 b3, makes B     1 --B--> 0, 2, 3     everyone: A B C D
#include "collectives/exec/split_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "collectives/compress/regions.h"

namespace gradrail {

SplitExchange::SplitExchange(const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec,
                             std::string_view name)
    : SparseExchange(name, setting, means, codec, true), sum_(traits_.pair_width) {
  bounds_.resize(at(sources_.count()) + 1);
  even_bounds(places(), bounds_);
}

Result<void> SplitExchange::supports(const ExchangeSetting& setting, const Codec& codec) {
  GRADRAIL_TRY(SparseExchange::supports(setting, codec));
  if (codec.traits().pair_width == 0) {
    return fail(Code::unsupported,
                fmt::format("{}: messages that are no pairs of index and value cannot be cut into parts; "
                            "topk's and nonzero's can",
                            codec.name()));
  }
  if (setting.count > 0xFFFFFFFFu) {
    return fail(Code::unsupported, fmt::format("{}: a tensor of {} values is too long for 32-bit indices; cut it",
                                               codec.name(), setting.count));
  }
  return {};
}

std::size_t SplitExchange::part_values(int source) const {
  return std::min<std::size_t>(bounds_[at(source) + 1] * traits_.pair_width, setting_.count) -
         std::min<std::size_t>(part_begin(source), setting_.count);
}

std::size_t SplitExchange::part_room() const {
  const std::uint64_t places = bounds_move() || sources_.mine() < 0 ? this->places() : part_places(sources_.mine());
  return sparse_max_bytes(std::min<std::size_t>(most_pairs_, places), traits_.pair_width);
}

// Sums that would be longer as pairs are sent as values.
std::size_t SplitExchange::whole_room(int source) const {
  const std::size_t pairs = std::min<std::size_t>(most_pairs_ * at(sources_.count()), part_places(source));
  return std::min(sparse_max_bytes(pairs, traits_.pair_width),
                  std::max(sparse_max_bytes(0), part_values(source) * sizeof(float)));
}

std::size_t SplitExchange::outgoing_bytes(std::size_t pairs) const {
  return sparse_max_bytes(pairs, traits_.pair_width) + at(sources_.count()) * (sparse_max_bytes(0) + 64);
}

void SplitExchange::lay_out() {
  parts_.resize(at(sources_.count()));
  if (sources_.mine() < 0) return;
  for (int s = 0; s < sources_.count(); ++s) part_at_.push_back(room(part_room()));
  outgoing_.at = room(outgoing_bytes(most_pairs_));
  readers_.resize(at(sources_.count()));
  indices_.resize(most_pairs_);
  values_.resize(most_pairs_ * traits_.pair_width);
  const std::uint64_t places = bounds_move() ? this->places() : part_places(sources_.mine());
  sum_.reserve(std::min<std::size_t>(most_pairs_ * at(sources_.count()), places));
}

void SplitExchange::prepare() {
  std::fill(parts_.begin(), parts_.end(), std::nullopt);
  parts_here_ = 0;
  outgoing_.used = 0;
  if (sources_.mine() >= 0) expect_from_others();
}

Result<void> SplitExchange::encoded(const Parcel& message) { return cut(bytes_of(message)); }

Parcel SplitExchange::write_out(Outgoing& room, std::uint8_t phase, SparseView pairs, std::uint64_t count) {
  Parcel parcel;
  parcel.phase = phase;
  parcel.origin = static_cast<std::uint32_t>(setting_.rank);
  parcel.at = room.at + room.used;
  parcel.bytes = write_sparse(pairs, count, wire(parcel.at, sparse_max_bytes(pairs.size(), pairs.width)));
  room.used += (parcel.bytes + 63) / 64 * 64;
  return parcel;
}

Result<void> SplitExchange::cut(std::span<const std::byte> message) {
  const std::size_t width = traits_.pair_width;
  GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(message, setting_.count, codec_.name(), width));
  SparseReader reader(open);
  const int mine = sources_.mine();
  for (int s = 0; s < sources_.count(); ++s) {
    std::size_t found = 0;
    const std::uint32_t begin = bounds_[at(s)];
    if (!reader.take_below(bounds_[at(s) + 1], [&](std::uint32_t index, const std::byte* values) {
          indices_[found] = index - begin;
          std::memcpy(values_.data() + found++ * width, values, width * sizeof(float));
        })) {
      return fail(Code::malformed, codec_.name() + ": made a message that cannot be read");
    }
    const Parcel part =
        write_out(outgoing_, k_part, {std::span(indices_).first(found), std::span(values_).first(found * width), width},
                  part_values(s));
    if (s == mine) {
      parts_[at(s)] = part;
      ++parts_here_;
    } else {
      send_to(s, part);
    }
  }
  return parts_here_ == sources_.count() ? merge() : Result<void>();
}

std::optional<Parcel> SplitExchange::place_of_other(int source, const Parcel& parcel) {
  if (parcel.phase != k_part || parts_[at(source)]) return std::nullopt;
  Parcel place = parcel;
  place.at = part_at_[at(source)];
  place.bytes = part_room();
  return place;
}

Result<void> SplitExchange::other_arrived(int source, const Parcel& parcel) {
  parts_[at(source)] = parcel;
  return ++parts_here_ == sources_.count() ? merge() : Result<void>();
}

Result<void> SplitExchange::merge() {
  const int mine = sources_.mine();
  for (int s = 0; s < sources_.count(); ++s) {
    const auto open = open_sparse(bytes_of(*parts_[at(s)]), part_values(mine), codec_.name(), traits_.pair_width);
    if (!open) return fault_of(s, open.error());
    readers_[at(s)] = SparseReader(*open);
  }
  if (const auto damaged = sum_.sum(readers_, part_places(mine))) {
    return fault_of(static_cast<int>(*damaged),
                    {Code::malformed, codec_.name() + ": the indices of a message are damaged", Error::k_no_peer, 0});
  }
  return summed();
}

Result<void> SplitExchange::summed() {
  const int mine = sources_.mine();
  const SparseView pairs = sum_.pairs();
  const std::size_t values = part_values(mine), width = traits_.pair_width;
  Parcel parcel;
  parcel.at = whole_at(mine);
  const std::size_t longest = sparse_max_bytes(0) + 4 * pairs.values.size() +
                              std::min<std::size_t>(4 * pairs.size(), (part_places(mine) + 7) / 8);
  if (longest <= whole_room(mine)) {
    parcel.form = k_pairs;
    parcel.bytes = write_sparse(pairs, values, wire(parcel.at, whole_room(mine)));
  } else {
    parcel.form = k_dense;
    parcel.bytes = values * sizeof(float);
    auto* const to = reinterpret_cast<float*>(wire(parcel.at, parcel.bytes).data());
    std::fill_n(to, values, 0.0f);
    for (std::size_t i = 0; i < pairs.size(); ++i) {
      const std::size_t first = pairs.indices[i] * width, some = std::min(width, values - first);
      std::memcpy(to + first, pairs.values.data() + i * width, some * sizeof(float));
    }
  }
  return publish(parcel);
}

Result<void> SplitExchange::read(int source, const Parcel& parcel) {
  const auto to = out().subspan(std::min<std::size_t>(part_begin(source), setting_.count), part_values(source));
  if (parcel.form == k_dense) {
    if (parcel.bytes != to.size_bytes()) {
      return fail(Code::malformed, fmt::format("{}: {} bytes where the sums of {} values are due", codec_.name(),
                                               parcel.bytes, to.size()));
    }
    if (!to.empty()) std::memcpy(to.data(), bytes_of(parcel).data(), parcel.bytes);
    return {};
  }
  if (parcel.form != k_pairs) return fail(Code::malformed, codec_.name() + ": sums in no known form");
  GRADRAIL_ASSIGN(const SparseMessage open,
                  open_sparse(bytes_of(parcel), to.size(), codec_.name(), traits_.pair_width));
  return apply_sparse(open, to, SparseApply::store, codec_.name());
}

namespace {

std::vector<ChannelKey> channels(const ExchangeSetting& setting) { return SparseExchange::channels(setting, true); }

}  // namespace

extern const ExchangeKind k_split_exchange;
const ExchangeKind k_split_exchange{"split", "each rank sums a part of the indices, and the sums go to everyone",
                                    &SplitExchange::supports, channels, make_exchange<SplitExchange>};

}  // namespace gradrail

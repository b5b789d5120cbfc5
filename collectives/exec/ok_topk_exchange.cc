// Ok-Topk: of the sum of all ranks' largest values, only the largest are sent to everyone, about as many as one rank
// has chosen: Li and Hoefler, "Near-optimal sparse allreduce for distributed deep learning" (PPoPP 2022), section 3.
// What a rank had sent and everyone did not get goes back to where its codec keeps what was not sent: with error
// feedback, residuals and result together are all that was ever accumulated, up to roundings.
//
// Of one call, for n ranks with k pairs each:
//   bounds  every k_period calls: all tell all where their pairs would be cut evenly, and take the mean
//   part    each rank's pairs to those who own them, who add them in the order of ranks
//   tally   every k_period calls, or after far too many or few were let through: all tell all some of the sizes of
//   their
//           sums; the threshold is where about k of all sums are not below it
//   count   all tell all how many of their sums that lets through
//   share   where these are uneven: lists are evened out, so that nobody has to send most of it to everyone
//   whole   each rank's list to everyone
// Bytes sent per rank: of k pairs, (n-1)/n for parts, at most one for sharing, and (n-1)/n for lists, times the
// sharing's leftover unevenness of at most 2: below 4 k pairs, whatever n is. Rounds: 3 mostly, 6 at most.
//
// The result is not the sum of what the ranks encoded, so nothing chooses it by itself.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <numeric>

#include "collectives/compress/arithmetic.h"
#include "collectives/compress/regions.h"
#include "collectives/exec/split_exchange.h"
#include "transports/base/bytes.h"

namespace gradrail {
namespace {

class OkTopkExchange final : public SplitExchange {
 public:
  OkTopkExchange(const ExchangeSetting& setting, const ExchangeMeans& means, Codec& codec)
      : SplitExchange(setting, means, codec, "ok_topk") {}

  [[nodiscard]] static Result<void> supports(const ExchangeSetting& setting, const Codec& codec) {
    GRADRAIL_TRY(SplitExchange::supports(setting, codec));
    if (codec.traits().pair_width == 1) return {};
    return fail(Code::unsupported, fmt::format("{}: ok_topk chooses single values, as topk's are", codec.name()));
  }

 private:
  static constexpr std::uint64_t k_period = 32;
  enum Phase : std::uint8_t { k_bounds = k_part + 1, k_tally, k_count, k_share, k_phases };

  // What came of one phase.
  struct Gathered {
    std::vector<std::size_t> at;
    std::size_t room = 0;
    std::vector<std::optional<Parcel>> parcels;
    int here = 0;
  };

  [[nodiscard]] bool bounds_move() const override { return true; }
  void lay_out() override;
  [[nodiscard]] std::size_t whole_room(int /*source*/) const override { return sparse_max_bytes(most_pairs_); }
  void prepare() override;
  [[nodiscard]] Result<void> encoded(const Parcel& message) override;
  [[nodiscard]] std::optional<Parcel> place_of_other(int source, const Parcel& parcel) override;
  [[nodiscard]] Result<void> other_arrived(int source, const Parcel& parcel) override;
  [[nodiscard]] Result<void> summed() override;
  [[nodiscard]] Result<void> read(int source, const Parcel& parcel) override;
  [[nodiscard]] Result<void> all_read() override;

  Gathered& of(int phase) { return gathered_[at(phase) - k_bounds]; }
  // Tells everyone the bytes at this source's own place of the phase.
  [[nodiscard]] Result<void> tell_all(int phase, std::size_t bytes);
  [[nodiscard]] Result<void> came(int phase, int source, const Parcel& parcel);
  [[nodiscard]] Result<void> agree();
  [[nodiscard]] Result<void> weigh();
  [[nodiscard]] Result<void> select();
  [[nodiscard]] Result<void> counted();
  [[nodiscard]] Result<void> share();
  [[nodiscard]] Result<void> shared();
  [[nodiscard]] Result<void> publish_list();
  [[nodiscard]] SparseView list() const {
    return {std::span(list_indices_).first(listed_), std::span(list_values_).first(listed_)};
  }
  [[nodiscard]] tl::unexpected<Error> damaged(int source, std::string_view what) const {
    return fault_of(source, {Code::malformed, fmt::format("{}: {}", codec_.name(), what), Error::k_no_peer, 0});
  }

  Parcel encoded_;
  std::uint64_t calls_ = 0;
  bool asks_bounds_ = false;  // in this call
  bool asks_tally_ = false;
  bool tally_due_ = false;
  std::uint32_t threshold_ = 0;
  std::array<Gathered, k_phases - k_bounds> gathered_;
  Outgoing sharing_;
  std::vector<Weighed> weighed_;
  std::vector<Tally> tallies_;
  std::vector<std::uint32_t> sizes_;
  std::vector<std::uint32_t> proposals_, counts_;
  // This source's own pairs; its list; those of its pairs that nobody got.
  std::vector<std::uint32_t> own_indices_, list_indices_, back_indices_;
  std::vector<float> own_values_, list_values_, back_values_;
  std::size_t own_ = 0, listed_ = 0, back_ = 0;
  std::size_t compared_ = 0;     // of its own pairs, held against the result
  std::uint64_t next_read_ = 0;  // the least index that the result may have next
};

void OkTopkExchange::lay_out() {
  SplitExchange::lay_out();
  const std::size_t n = at(sources_.count());
  own_indices_.resize(most_pairs_);
  own_values_.resize(most_pairs_);
  back_indices_.resize(most_pairs_);
  back_values_.resize(most_pairs_);
  if (sources_.mine() < 0) return;
  const std::array<std::size_t, k_phases - k_bounds> rooms = {(n + 1) * 4, (2 + k_tally_most) * 4, 4,
                                                              sparse_max_bytes(most_pairs_)};
  for (std::size_t phase = 0; phase < rooms.size(); ++phase) {
    gathered_[phase].room = rooms[phase];
    gathered_[phase].parcels.resize(n);
    for (std::size_t s = 0; s < n; ++s) gathered_[phase].at.push_back(room(rooms[phase]));
  }
  sharing_.at = room(outgoing_bytes(most_pairs_));
  weighed_.reserve(n * k_tally_most);
  tallies_.resize(n);
  sizes_.resize(std::max(most_pairs_ * n, n * k_tally_most));
  proposals_.resize(n * (n + 1));
  counts_.resize(n);
  // Shared lists are no longer than the longest was.
  list_indices_.resize(most_pairs_ + n);
  list_values_.resize(most_pairs_ + n);
}

void OkTopkExchange::prepare() {
  SplitExchange::prepare();
  asks_bounds_ = calls_ % k_period == 0;
  asks_tally_ = asks_bounds_ || tally_due_;
  tally_due_ = false;
  ++calls_;
  own_ = listed_ = back_ = compared_ = 0;
  next_read_ = 0;
  sharing_.used = 0;
  for (Gathered& gathered : gathered_) {
    std::fill(gathered.parcels.begin(), gathered.parcels.end(), std::nullopt);
    gathered.here = 0;
  }
  if (sources_.mine() < 0) return;
  expect_from_others();  // counts
  if (asks_bounds_) expect_from_others();
  if (asks_tally_) expect_from_others();
}

Result<void> OkTopkExchange::encoded(const Parcel& message) {
  GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(bytes_of(message), setting_.count, codec_.name()));
  SparseReader reader(open);
  if (!reader.take_below(open.places, [&](std::uint32_t index, const std::byte* value) {
        own_indices_[own_] = index;
        std::memcpy(&own_values_[own_++], value, sizeof(float));
      })) {
    return fail(Code::malformed, codec_.name() + ": made a message that cannot be read");
  }
  if (!asks_bounds_) return cut(bytes_of(message));
  encoded_ = message;
  const std::size_t bytes = bounds_.size() * 4;
  proposals_.resize(bounds_.size());
  propose_bounds(std::span(own_indices_).first(own_), places(), proposals_);
  std::memcpy(wire(of(k_bounds).at[at(sources_.mine())], bytes).data(), proposals_.data(), bytes);
  return tell_all(k_bounds, bytes);
}

Result<void> OkTopkExchange::tell_all(int phase, std::size_t bytes) {
  Parcel parcel;
  parcel.phase = static_cast<std::uint8_t>(phase);
  parcel.origin = static_cast<std::uint32_t>(setting_.rank);
  parcel.at = of(phase).at[at(sources_.mine())];
  parcel.bytes = bytes;
  tell(parcel);
  return came(phase, sources_.mine(), parcel);
}

std::optional<Parcel> OkTopkExchange::place_of_other(int source, const Parcel& parcel) {
  if (parcel.phase < k_bounds) return SplitExchange::place_of_other(source, parcel);
  if (parcel.phase >= k_phases) return std::nullopt;
  if ((parcel.phase == k_bounds && !asks_bounds_) || (parcel.phase == k_tally && !asks_tally_)) return std::nullopt;
  const Gathered& phase = of(parcel.phase);
  if (phase.parcels[at(source)]) return std::nullopt;
  Parcel place = parcel;
  place.at = phase.at[at(source)];
  place.bytes = phase.room;
  return place;
}

Result<void> OkTopkExchange::other_arrived(int source, const Parcel& parcel) {
  if (parcel.phase < k_bounds) return SplitExchange::other_arrived(source, parcel);
  return came(parcel.phase, source, parcel);
}

Result<void> OkTopkExchange::came(int phase, int source, const Parcel& parcel) {
  Gathered& gathered = of(phase);
  gathered.parcels[at(source)] = parcel;
  if (++gathered.here < sources_.count()) return {};
  switch (phase) {
    case k_bounds: return agree();
    case k_tally: return weigh();
    case k_count: return counted();
    default: return shared();
  }
}

Result<void> OkTopkExchange::agree() {
  const std::size_t length = bounds_.size();
  proposals_.resize(at(sources_.count()) * length);
  for (int s = 0; s < sources_.count(); ++s) {
    const Parcel& parcel = *of(k_bounds).parcels[at(s)];
    if (parcel.bytes != 4 * length) return damaged(s, "bounds of another number of parts");
    std::memcpy(proposals_.data() + at(s) * length, bytes_of(parcel).data(), parcel.bytes);
    if (!agree_bounds(std::span(proposals_).subspan(at(s) * length, length), places(), bounds_)) {
      return damaged(s, "bounds that do not ascend, or go beyond the values");
    }
  }
  (void)agree_bounds(proposals_, places(), bounds_);
  return cut(bytes_of(encoded_));
}

Result<void> OkTopkExchange::summed() {
  if (!asks_tally_) return select();
  const SparseView sums = sum_.pairs();
  const auto to = wire(of(k_tally).at[at(sources_.mine())], of(k_tally).room);
  const std::size_t taken = tally_of(sums.values, sizes_);
  const std::array<std::uint32_t, 2> front = {static_cast<std::uint32_t>(sums.size()),
                                              static_cast<std::uint32_t>(own_)};
  std::memcpy(to.data(), front.data(), 8);
  if (taken > 0) std::memcpy(to.data() + 8, sizes_.data(), 4 * taken);
  return tell_all(k_tally, 8 + 4 * taken);
}

Result<void> OkTopkExchange::weigh() {
  std::size_t used = 0;
  for (int s = 0; s < sources_.count(); ++s) {
    ByteReader reader(bytes_of(*of(k_tally).parcels[at(s)]));
    Tally& tally = tallies_[at(s)];
    tally.count = reader.get<std::uint32_t>();
    tally.wanted = reader.get<std::uint32_t>();
    const std::size_t taken = std::min<std::size_t>(tally.count, k_tally_most);
    const auto sizes = reader.get_bytes(4 * taken);
    if (!reader.ok() || reader.left() != 0) return damaged(s, "a tally of another length than it says");
    if (taken > 0) std::memcpy(sizes_.data() + used, sizes.data(), sizes.size());
    tally.sizes = std::span(sizes_).subspan(used, taken);
    used += taken;
  }
  threshold_ = threshold_of(tallies_, weighed_);
  return select();
}

// This source's sums that the threshold lets through, and no more than there is room for: then the largest.
Result<void> OkTopkExchange::select() {
  const SparseView sums = sum_.pairs();
  const std::uint32_t begin = bounds_[at(sources_.mine())];
  std::uint32_t least = threshold_;
  std::size_t through = 0;
  for (const float value : sums.values) through += arithmetic::size_bits(value) >= least ? 1u : 0u;
  std::size_t equal = through;  // of the least size, so many at most
  if (through > most_pairs_) {
    for (std::size_t i = 0; i < sums.size(); ++i) sizes_[i] = arithmetic::size_bits(sums.values[i]);
    const auto last = sizes_.begin() + static_cast<std::ptrdiff_t>(most_pairs_) - 1;
    const auto all = sizes_.begin() + static_cast<std::ptrdiff_t>(sums.size());
    std::nth_element(sizes_.begin(), last, all, std::greater<>());
    least = *last;
    equal = most_pairs_;
    for (const float value : sums.values) equal -= arithmetic::size_bits(value) > least ? 1u : 0u;
  }
  listed_ = 0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const std::uint32_t size = arithmetic::size_bits(sums.values[i]);
    if (size < least || (size == least && equal == 0)) continue;
    equal -= size == least ? 1u : 0u;
    list_indices_[listed_] = begin + sums.indices[i];
    list_values_[listed_++] = sums.values[i];
  }
  const auto count = static_cast<std::uint32_t>(listed_);
  std::memcpy(wire(of(k_count).at[at(sources_.mine())], 4).data(), &count, 4);
  return tell_all(k_count, 4);
}

Result<void> OkTopkExchange::counted() {
  for (int s = 0; s < sources_.count(); ++s) {
    const Parcel& parcel = *of(k_count).parcels[at(s)];
    std::uint32_t count = 0;
    if (parcel.bytes != 4) return damaged(s, "a number of another length");
    std::memcpy(&count, bytes_of(parcel).data(), 4);
    if (count > most_pairs_) return damaged(s, "more pairs than can be");
    counts_[at(s)] = count;
  }
  const std::uint64_t total = std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
  // All know the same of this, so all ask again or none: the threshold has grown too old.
  tally_due_ = total > 2 * most_pairs_ || 2 * total < most_pairs_;
  return is_uneven(counts_) ? share() : publish_list();
}

// What stands in all lists, one behind the other, is cut into pieces of (nearly) the same length.
Result<void> OkTopkExchange::share() {
  expect_from_others();
  const auto n = static_cast<std::uint64_t>(sources_.count());
  const std::uint64_t total = std::accumulate(counts_.begin(), counts_.end(), std::uint64_t{0});
  const std::uint64_t begin = std::accumulate(counts_.begin(), counts_.begin() + sources_.mine(), std::uint64_t{0}),
                      end = begin + listed_;
  std::optional<Parcel> mine;
  for (int s = 0; s < sources_.count(); ++s) {
    const std::uint64_t from = std::clamp(share_begin(total, n, at(s)), begin, end) - begin;
    const std::uint64_t to = std::clamp(share_begin(total, n, at(s) + 1), begin, end) - begin;
    const Parcel piece =
        write_out(sharing_, k_share, {list().indices.subspan(from, to - from), list().values.subspan(from, to - from)},
                  setting_.count);
    if (s == sources_.mine()) {
      mine = piece;
    } else {
      send_to(s, piece);
    }
  }
  return came(k_share, sources_.mine(), *mine);
}

Result<void> OkTopkExchange::shared() {
  listed_ = 0;
  std::uint64_t next = 0;
  for (int s = 0; s < sources_.count(); ++s) {
    const auto open = open_sparse(bytes_of(*of(k_share).parcels[at(s)]), setting_.count, codec_.name());
    if (!open) return fault_of(s, open.error());
    SparseReader reader(*open);
    if (open->pairs > list_indices_.size() - listed_ || (open->pairs > 0 && reader.index() < next)) {
      return damaged(s, "more pairs than its share, or others");
    }
    if (!reader.take_below(open->places, [&](std::uint32_t index, const std::byte* value) {
          list_indices_[listed_] = index;
          std::memcpy(&list_values_[listed_++], value, sizeof(float));
        })) {
      return damaged(s, "the indices of a message are damaged");
    }
    if (listed_ > 0) next = std::uint64_t{list_indices_[listed_ - 1]} + 1;
  }
  if (listed_ > most_pairs_) return damaged(0, "more pairs than can be");
  return publish_list();
}

Result<void> OkTopkExchange::publish_list() {
  Parcel parcel;
  parcel.at = whole_at(sources_.mine());
  parcel.bytes = write_sparse(list(), setting_.count, wire(parcel.at, whole_room(sources_.mine())));
  return publish(parcel);
}

Result<void> OkTopkExchange::read(int /*source*/, const Parcel& parcel) {
  GRADRAIL_ASSIGN(const SparseMessage open, open_sparse(bytes_of(parcel), setting_.count, codec_.name()));
  SparseReader reader(open);
  if (open.pairs > 0 && reader.index() < next_read_) {
    return fail(Code::malformed, codec_.name() + ": sums that are another's");
  }
  const auto to = out();
  const bool sound = reader.take_below(open.places, [&](std::uint32_t index, const std::byte* value) {
    std::memcpy(&to[index], value, sizeof(float));
    for (; compared_ < own_ && own_indices_[compared_] < index; ++compared_, ++back_) {
      back_indices_[back_] = own_indices_[compared_];
      back_values_[back_] = own_values_[compared_];
    }
    if (compared_ < own_ && own_indices_[compared_] == index) ++compared_;
    next_read_ = std::uint64_t{index} + 1;
  });
  if (!sound) return fail(Code::malformed, codec_.name() + ": the indices of a message are damaged");
  return {};
}

Result<void> OkTopkExchange::all_read() {
  for (; compared_ < own_; ++compared_, ++back_) {
    back_indices_[back_] = own_indices_[compared_];
    back_values_[back_] = own_values_[compared_];
  }
  codec_.give_back(std::span(back_indices_).first(back_), std::span(back_values_).first(back_));
  return {};
}

std::vector<ChannelKey> channels(const ExchangeSetting& setting) { return SparseExchange::channels(setting, true); }

}  // namespace

extern const ExchangeKind k_ok_topk_exchange;
const ExchangeKind k_ok_topk_exchange{"ok_topk", "only the largest of all ranks' sums; the rest waits (wants +ef)",
                                      &OkTopkExchange::supports, channels, make_exchange<OkTopkExchange>};

}  // namespace gradrail

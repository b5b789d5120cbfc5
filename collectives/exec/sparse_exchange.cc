#include "collectives/exec/sparse_exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "collectives/compress/sparse.h"
#include "collectives/select/selector.h"

namespace gradrail {
namespace {

constexpr std::size_t k_line = 64;
constexpr std::size_t k_clear_at_once = 256 << 10;  // values
// Parcels to one peer in a run, besides one message of each source.
constexpr std::size_t k_other_parcels = 8;

bool has_several_hosts(const ExchangeSetting& setting) { return setting.ranks > setting.ranks_per_host; }

// How the ranks of a host reduce to its first one.
Result<Program> reduction_of(const ExchangeSetting& setting) {
  Question question;
  question.collective = Collective::reduce;
  question.bytes = setting.count * sizeof(float);
  question.ranks = question.ranks_per_host = setting.ranks_per_host;
  const Selection choice = default_selection(question);
  Shape shape;
  shape.collective = Collective::reduce;
  shape.ranks = shape.ranks_per_host = setting.ranks_per_host;
  shape.in_place = setting.in_place;
  shape.lanes = choice.lanes;
  shape.pieces = choice.pieces;
  GRADRAIL_ASSIGN(const Planner* planner, parse_algorithm(choice.algorithm, shape));
  return plan(*planner, shape, setting.rank % setting.ranks_per_host);
}

// Its channels: neighbours, on the lanes after the first, which is the exchange's own.
ChannelKey of_this_host(const ExchangeSetting& setting, ChannelKey key) {
  return {setting.rank / setting.ranks_per_host * setting.ranks_per_host + key.peer, key.lane + 1};
}

}  // namespace

Sources::Sources(const ExchangeSetting& setting)
    : rank(setting.rank),
      ranks(setting.ranks),
      ranks_per_host(std::max(1, setting.ranks_per_host)),
      leaders(setting.where == CodecWhere::between_hosts && ranks_per_host > 1) {}

int Sources::index_of(int of) const {
  if (!leaders) return of;
  return of % ranks_per_host == 0 ? of / ranks_per_host : -1;
}

int Sources::giver(int from, int to) const {
  if (host_of(from) == host_of(to)) return from;
  const int there = host_of(to) * ranks_per_host + from % ranks_per_host;
  return there == to ? from : there;
}

SparseExchange::SparseExchange(std::string_view name, const ExchangeSetting& setting, const ExchangeMeans& means,
                               Codec& codec, bool among_sources)
    : setting_(setting),
      means_(means),
      codec_(codec),
      traits_(codec.traits()),
      sources_(setting),
      name_(name),
      among_sources_(among_sources) {
  if (traits_.pair_width > 0) most_pairs_ = sparse_max_pairs(codec.max_bytes(setting.count), traits_.pair_width);
}

Result<void> SparseExchange::supports(const ExchangeSetting& setting, const Codec& codec) {
  if (setting.collective != Collective::allreduce) {
    return fail(Code::unsupported,
                fmt::format("{}: messages whose size depends on the data are exchanged for allreduce only, "
                            "not for {}",
                            codec.name(), to_string(setting.collective)));
  }
  if (setting.where == CodecWhere::between_hosts && !has_several_hosts(setting)) {
    return fail(
        Code::unsupported,
        fmt::format("{}: all ranks are on one host, and data was to be encoded between hosts only", codec.name()));
  }
  return {};
}

std::vector<ChannelKey> SparseExchange::channels(const ExchangeSetting& setting, bool among_sources) {
  const Sources sources(setting);
  std::set<ChannelKey> keys;
  const auto talk = [&](int a, int b) {
    if (a == b || (a != setting.rank && b != setting.rank)) return;
    keys.insert({a == setting.rank ? b : a, 0});
  };
  for (int s = 0; s < sources.count(); ++s) {
    const int from = sources.rank_of(s);
    for (int to = 0; to < sources.ranks; ++to) {
      if (to != from) talk(sources.giver(from, to), to);
    }
    for (int t = 0; among_sources && t < s; ++t) talk(from, sources.rank_of(t));
  }
  if (sources.leaders) {
    if (const auto program = reduction_of(setting)) {
      for (const ChannelKey& key : channels_of(*program)) keys.insert(of_this_host(setting, key));
    }
  }
  return {keys.begin(), keys.end()};
}

std::size_t SparseExchange::room(std::size_t bytes) {
  const std::size_t at = wire_bytes_;
  wire_bytes_ += (bytes + k_line - 1) / k_line * k_line;
  return at;
}

Result<void> SparseExchange::set_up() {
  const std::size_t most = static_cast<std::size_t>(sources_.count()) * parts() + k_other_parcels;
  std::set<int> peers;
  for (const ChannelKey& key : channels(setting_, among_sources_)) {
    if (key.lane == 0) peers.insert(key.peer);
  }
  std::size_t fronts = room(Parcels::front_bytes(peers.size(), most));
  for (const int peer : peers) parcels_.add_peer(peer, *means_.channel({peer, 0}), most, fronts);
  if (sources_.mine() >= 0) encoded_at_ = room(codec_.max_bytes(setting_.count));
  wholes_.resize(static_cast<std::size_t>(sources_.count()));
  for (int s = 0; s < sources_.count(); ++s) {
    Whole& whole = wholes_[static_cast<std::size_t>(s)];
    whole.at = room(whole_room(s));
    whole.parts.reserve(parts());
  }
  lay_out();
  return bind_reduction();
}

Result<void> SparseExchange::bind_reduction() {
  if (!sources_.leaders) return {};
  GRADRAIL_ASSIGN(const Program program, reduction_of(setting_));
  reduction_ = bind(program, setting_.count, Type::f32, ReduceOp::sum, {},
                    [&](ChannelKey key) { return means_.channel(of_this_host(setting_, key)); });
  reducing_ = std::make_unique<Execution>(reduction_);
  scratch_at_ = room(reduction_.scratch_bytes);
  return {};
}

std::uint64_t SparseExchange::reduction_traffic() const {
  std::uint64_t sum = 0;
  for (const Channel* channel : reduction_.each_channel) {
    for (const std::uint64_t bytes : channel->endpoint->traffic()) sum += bytes;
  }
  return sum;
}

Ran SparseExchange::ran() const {
  Ran ran;
  ran.algorithm = name_;
  ran.codec = codec_.name();
  ran.requantised = 1;  // what arrives is summed as it is
  return ran;
}

void SparseExchange::start(MemoryView in, MemoryView out, MemoryView wire) {
  in_ = in;
  out_ = out;
  wire_ = wire;
  failed_.reset();
  finished_ = false;
  part_ = 0;
  read_ = 0;
  cleared_ = 0;
  for (Whole& whole : wholes_) {
    whole.used = 0;
    whole.parts.clear();
  }
  started_ = Clock::now();
  const auto n = static_cast<std::uint64_t>(setting_.ranks);
  encoding_ = {};
  encoding_.dense_bytes = 2 * (n - 1) * setting_.count * sizeof(float) / n;
  parcels_.start(wire);
  reduction_traffic_ = reduction_traffic();
  for (int s = 0; s < sources_.count(); ++s) {
    const int from = sources_.rank_of(s);
    if (from != setting_.rank) parcels_.expect(sources_.giver(from, setting_.rank), parts());
  }
  prepare();
  reduced_ = reducing_ == nullptr;
  if (!reduced_) {
    reducing_->start(in, out, {wire.memory, wire.offset + scratch_at_});
  } else {
    begin();
  }
}

void SparseExchange::begin() {
  const std::uint64_t step = means_.state->next_step();
  if (sources_.mine() < 0) return;
  const auto before = Clock::now();
  const auto* const from = reinterpret_cast<const float*>(sources_.leaders ? out_.data() : in_.data());
  const Origin origin{setting_.seed, step, setting_.tensor, static_cast<std::uint32_t>(setting_.rank), 0};
  const auto message =
      codec_.encode({from, setting_.count}, wire(encoded_at_, codec_.max_bytes(setting_.count)), origin);
  if (!message) return end(tl::unexpected<Error>(message.error()));
  encoding_.non_finite = message->non_finite;
  Parcel parcel;
  parcel.origin = static_cast<std::uint32_t>(setting_.rank);
  parcel.at = encoded_at_;
  parcel.bytes = message->bytes;
  trace_.over({"encode", -1, parcel.bytes}, before);
  end(encoded(parcel));
  encoding_.encode += Clock::now() - before;
}

void SparseExchange::end(Result<void> result) {
  if (!result && !failed_) failed_ = std::move(result).error();
}

bool SparseExchange::progress() {
  if (failed_) return false;
  if (!reduced_) {
    bool moved = reducing_->progress();
    // Messages of other hosts are passed on meanwhile.
    moved |= parcels_.progress();
    if (!reducing_->done()) return moved;
    reduced_ = true;
    begin();
    return true;
  }
  bool moved = parcels_.progress();
  if (finished_) return moved;
  moved |= read_arrived();
  // While there is nothing to do but wait, what waiting is for is prepared.
  return moved || clear_some();
}

void SparseExchange::trace(std::vector<StepTime>* times) {
  trace_.into(times);
  if (reducing_ != nullptr) reducing_->trace(times);
}

Execution::Awaited SparseExchange::awaited() const { return reduced_ ? parcels_.awaited() : reducing_->awaited(); }

const Error* SparseExchange::failure() const {
  if (failed_) return &*failed_;
  if (!reduced_) {
    if (const Error* error = reducing_->failure()) return error;
  }
  return parcels_.failure();
}

tl::unexpected<Error> SparseExchange::fault_of(int source, Error error) const {
  error.peer = sources_.rank_of(source);
  return tl::unexpected<Error>(std::move(error).in(fmt::format("rank {} sent", error.peer)));
}

// --- Messages for everybody.

Result<void> SparseExchange::publish(Parcel message) {
  message.phase = k_whole;
  message.origin = static_cast<std::uint32_t>(setting_.rank);
  take(message);
  return {};
}

void SparseExchange::take(const Parcel& part) {
  Whole& whole = wholes_[static_cast<std::size_t>(sources_.index_of(static_cast<int>(part.origin)))];
  whole.parts.push_back(part);
  whole.used += (part.bytes + k_line - 1) / k_line * k_line;
  pass_on(part);
}

void SparseExchange::pass_on(const Parcel& message) {
  const auto from = static_cast<int>(message.origin);
  for (int to = 0; to < setting_.ranks; ++to) {
    if (to != from && to != setting_.rank && sources_.giver(from, to) == setting_.rank) parcels_.send(to, message);
  }
}

void SparseExchange::send_to(int source, const Parcel& parcel) { parcels_.send(sources_.rank_of(source), parcel); }

void SparseExchange::tell(const Parcel& parcel) {
  for (int s = 0; s < sources_.count(); ++s) {
    if (s != sources_.mine()) send_to(s, parcel);
  }
}

void SparseExchange::expect_from_others() {
  for (int s = 0; s < sources_.count(); ++s) {
    if (s != sources_.mine()) parcels_.expect(sources_.rank_of(s), 1);
  }
}

std::optional<Parcel> SparseExchange::place_of(int peer, const Parcel& parcel) {
  if (parcel.origin >= static_cast<std::uint32_t>(setting_.ranks)) return std::nullopt;
  const auto from = static_cast<int>(parcel.origin);
  const int source = sources_.index_of(from);
  if (source < 0 || from == setting_.rank) return std::nullopt;
  if (parcel.phase != k_whole) {
    if (from != peer || sources_.mine() < 0) return std::nullopt;
    return place_of_other(source, parcel);
  }
  const Whole& whole = wholes_[static_cast<std::size_t>(source)];
  const std::size_t next = whole.parts.size(), room = whole_room(source);
  if (sources_.giver(from, setting_.rank) != peer || next == parts()) return std::nullopt;
  if (parts() > 1 && parcel.form != next) return std::nullopt;
  Parcel place = parcel;
  place.at = whole.at + whole.used;
  place.bytes = room - std::min(room, whole.used);
  return place;
}

Result<void> SparseExchange::arrived(int /*peer*/, const Parcel& parcel) {
  const int source = sources_.index_of(static_cast<int>(parcel.origin));
  if (parcel.phase != k_whole) return other_arrived(source, parcel);
  take(parcel);
  return {};
}

std::optional<Parcel> SparseExchange::place_of_other(int /*source*/, const Parcel& /*parcel*/) { return std::nullopt; }
Result<void> SparseExchange::other_arrived(int /*source*/, const Parcel& /*parcel*/) { return {}; }

// --- The result.

bool SparseExchange::clear_some() {
  // Where data is not sparse the first message overwrites everything.
  if (!wants_zeros() || cleared_ == setting_.count) return false;
  const std::size_t some = std::min<std::size_t>(k_clear_at_once, setting_.count - cleared_);
  std::fill_n(out().begin() + static_cast<std::ptrdiff_t>(cleared_), some, 0.0f);
  cleared_ += some;
  return true;
}

void SparseExchange::clear_all() {
  while (clear_some()) {
  }
}

// One part at most, so that the wire gets its turn in between.
bool SparseExchange::read_arrived() {
  bool moved = false;
  for (; read_ < sources_.count(); ++read_) {
    const Whole& whole = wholes_[static_cast<std::size_t>(read_)];
    if (whole.parts.size() <= part_) return moved;
    const auto before = Clock::now();
    clear_all();
    auto taken = read(read_, whole.parts[part_]);
    encoding_.decode += Clock::now() - before;
    trace_.over({"decode", sources_.rank_of(read_), whole.parts[part_].bytes, k_whole}, before);
    moved = true;
    if (!taken) {
      end(fault_of(read_, std::move(taken).error()));
      return moved;
    }
  }
  const auto before = Clock::now();
  end(part_read(part_));
  encoding_.decode += Clock::now() - before;
  read_ = 0;
  if (++part_ == parts() && !failed_) finish();
  return true;
}

void SparseExchange::finish() {
  const auto before = Clock::now();
  clear_all();
  end(all_read());
  if (failed_) return;
  codec_.finish(out());
  const auto now = Clock::now();
  encoding_.decode += now - before;
  encoding_.wire = std::max(Seconds(0), Seconds(now - started_) - encoding_.encode - encoding_.decode);
  encoding_.wire_bytes = parcels_.sent_bytes() + reduction_traffic() - reduction_traffic_;
  finished_ = true;
}

}  // namespace gradrail

#include "transports/verbs/registrations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "transports/base/check.h"

namespace gradrail::verbs {
namespace {

// Each watched range may split a mapping of the process, of which the kernel allows some 65,000.
constexpr std::size_t k_most_unused = 1024;

AddressRange range_of(const void* data, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  return {begin, begin + bytes};
}

}  // namespace

struct Registrations::Entry {
  AddressRange range;
  Gpu* gpu = nullptr;           // whose memory it is, if it is not the host's
  std::vector<Reached> memory;  // one a rail
  Pages pages;                  // the memory, if it was allocated here; outlives its registration
  std::vector<AddressRange> users;
  bool watched = false;
  bool gone = false;  // for nobody who comes from now on

  Entry(AddressRange of, Gpu* whose, std::vector<Reached> registered, Pages own)
      : range(of), gpu(whose), memory(std::move(registered)), pages(std::move(own)) {}
  ~Entry() { memory.clear(); }

  [[nodiscard]] std::size_t bytes() const { return range.end - range.begin; }
  [[nodiscard]] bool vouched_for(const AddressRange& wanted) const {
    if (gone) return false;
    if (watched) return range.contains(wanted);
    return std::any_of(users.begin(), users.end(), [&](const auto& user) { return user.contains(wanted); });
  }
};

std::uint32_t Registrations::Use::local_key(std::size_t rail) const {
  return owner_ == nullptr || how(rail).staged() ? 0 : entry_->memory[rail].memory->lkey;
}
std::uint32_t Registrations::Use::remote_key(std::size_t rail) const {
  return owner_ == nullptr || how(rail).staged() ? 0 : entry_->memory[rail].memory->rkey;
}
const PathChoice& Registrations::Use::how(std::size_t rail) const {
  static const PathChoice k_nothing;
  return owner_ == nullptr ? k_nothing : entry_->memory[rail].how;
}
std::byte* Registrations::Use::allocated() const { return entry_->pages.data(); }

Registrations::Registrations(const std::vector<std::unique_ptr<Device>>& rails, std::size_t most_unused_bytes)
    : rails_(rails), most_unused_bytes_(most_unused_bytes) {}

Registrations::~Registrations() {
  GRADRAIL_CHECK(used_.empty());
  keep_at_most(0);
}

Result<Registrations::Use> Registrations::use(Buffer buffer, Gpu* gpu) {
  if (buffer.size == 0) return Use{};
  const auto range = range_of(buffer.data, buffer.size);
  forget_gone();
  const auto fits = [&](const Entry& entry) { return entry.gpu == gpu && entry.vouched_for(range); };
  if (const auto found = std::find_if(used_.begin(), used_.end(), fits); found != used_.end())
    return again(used_, found, range);
  if (const auto found = std::find_if(unused_.begin(), unused_.end(), fits); found != unused_.end())
    return again(unused_, found, range);
  return make(range, gpu, {});
}

Result<Registrations::Use> Registrations::allocate(std::size_t bytes) {
  const std::size_t wanted = std::max<std::size_t>(bytes, 1);
  // What is much too large would keep memory from others.
  const auto found = std::find_if(unused_.begin(), unused_.end(), [&](const Entry& entry) {
    return entry.pages.data() != nullptr && entry.bytes() >= wanted && entry.bytes() / 2 <= wanted;
  });
  if (found != unused_.end()) {
    std::memset(found->pages.data(), 0, wanted);
    return again(unused_, found, found->range);
  }
  GRADRAIL_ASSIGN(auto pages, Pages::map(wanted));
  const auto range = pages_around(range_of(pages.data(), wanted));
  return make(range, nullptr, std::move(pages));
}

Registrations::Use Registrations::again(Entries& from, Entries::iterator entry, AddressRange range) {
  if (&from == &unused_) {
    counts_.unused_bytes -= entry->bytes();
    used_.splice(used_.begin(), unused_, entry);
  }
  ++counts_.shared;
  entry->users.push_back(range);
  return Use(*this, *entry, range);
}

Result<Registrations::Use> Registrations::make(AddressRange range, Gpu* gpu, Pages pages) {
  auto memory = register_with_rails(range, gpu);
  if (!memory && !unused_.empty()) {
    keep_at_most(0);
    memory = register_with_rails(range, gpu);
  }
  if (!memory) return tl::unexpected<Error>(std::move(memory).error());
  Entry& entry = used_.emplace_front(range, gpu, std::move(*memory), std::move(pages));
  entry.users.push_back(range);
  ++counts_.made;
  return Use(*this, entry, range);
}

Result<std::vector<Reached>> Registrations::register_with_rails(AddressRange range, Gpu* gpu) {
  std::vector<Reached> memory;
  for (const auto& rail : rails_) {
    if (gpu != nullptr) {
      GRADRAIL_ASSIGN(auto reached, gpu->reach(*rail, range));
      memory.push_back(std::move(reached));
      continue;
    }
    GRADRAIL_ASSIGN(ibv_mr* const one,
                    rail->register_memory(reinterpret_cast<void*>(range.begin), range.end - range.begin));
    memory.push_back({Registered(one, Deregister{&rail->calls()}), {}});
  }
  return memory;
}

void Registrations::end(Entry& entry, AddressRange range) {
  const auto same = [&](const AddressRange& user) { return user.begin == range.begin && user.end == range.end; };
  entry.users.erase(std::find_if(entry.users.begin(), entry.users.end(), same));
  const bool own = entry.pages.data() != nullptr;
  const bool plain = !own && entry.gpu == nullptr;
  const bool covered =
      std::any_of(entry.users.begin(), entry.users.end(), [&](const auto& user) { return user.contains(entry.range); });
  // From here on nobody vouches for all of it. It is still there, as the region of this use still lives.
  const bool may_keep = most_unused_bytes_ >= entry.bytes() && !entry.gone;
  if (plain && !covered && !entry.watched && range.contains(entry.range) && may_keep) entry.watched = watch(entry);
  if (!entry.users.empty()) return;

  const auto at = std::find_if(used_.begin(), used_.end(), [&](const Entry& one) { return &one == &entry; });
  unused_.splice(unused_.begin(), used_, at);
  counts_.unused_bytes += entry.bytes();
  if (!may_keep || !(own || entry.watched)) return forget(at);
  keep_at_most(most_unused_bytes_);
}

bool Registrations::watch(Entry& entry) {
  if (!not_kept_.empty()) return false;
  if (lifetimes_ == nullptr) {
    auto started = Lifetimes::start();
    if (!started) {
      not_kept_ = std::move(started).error().message;
      return false;
    }
    lifetimes_ = std::move(*started);
    gone_ = std::make_unique<Lifetimes::Gone>();
  }
  return lifetimes_->watch(entry.range);
}

void Registrations::forget(Entries::iterator entry) {
  counts_.unused_bytes -= entry->bytes();
  if (entry->watched) {
    // Others may lie on the same pages.
    const auto pages = pages_around(entry->range);
    const auto needs = [&](const Entry& other) {
      return &other != &*entry && other.watched && pages_around(other.range).overlaps(pages);
    };
    if (std::none_of(used_.begin(), used_.end(), needs) && std::none_of(unused_.begin(), unused_.end(), needs))
      lifetimes_->unwatch(entry->range);
  }
  unused_.erase(entry);
}

void Registrations::forget_gone() {
  if (lifetimes_ == nullptr || !lifetimes_->take_gone(*gone_)) return;
  for (auto& entry : used_) entry.gone |= entry.watched && gone_->touches(entry.range);
  for (auto entry = unused_.begin(); entry != unused_.end();) {
    const auto one = entry++;
    if (one->watched && gone_->touches(one->range)) forget(one);
  }
}

void Registrations::keep_at_most(std::size_t bytes) {
  while (!unused_.empty() && (counts_.unused_bytes > bytes || unused_.size() > k_most_unused || bytes == 0))
    forget(std::prev(unused_.end()));
}

}  // namespace gradrail::verbs

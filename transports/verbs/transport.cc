#include "transports/verbs/transport.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "transports/base/check.h"
#include "transports/base/epoll.h"
#include "transports/base/pages.h"

namespace gradrail::verbs {
namespace {

constexpr std::size_t k_least_slots = 4;  // a ring of fewer could wait for credit for ever
// Sockets and the device's events are asked every so many calls that found nothing to do.
constexpr unsigned k_ask_every = 128;
constexpr Seconds k_look_around_every{1};
constexpr int k_events = 64;

}  // namespace

VerbsTransport::VerbsTransport(const Settings& settings, Options options, std::vector<std::unique_ptr<Device>> devices,
                               Fd epoll, CudaDriver& driver)
    : settings_(settings),
      options_(std::move(options)),
      devices_(std::move(devices)),
      driver_(driver),
      registrations_(devices_, static_cast<std::size_t>(options_.cache_mib) << 20),
      epoll_(std::move(epoll)),
      ring_bytes_(settings.slot_bytes * settings.slots),
      eager_bytes_(std::min(settings.slot_bytes, k_most_eager_bytes)) {}

Result<std::unique_ptr<Transport>> VerbsTransport::make(const Settings& settings) {
  return make(settings, library_calls(), library_cm_calls());
}

Result<std::unique_ptr<Transport>> VerbsTransport::make(const Settings& settings, Calls& calls, CmCalls* cm_calls,
                                                        CudaDriver& driver) {
  const char* const variable = std::getenv("GRADRAIL_VERBS");
  GRADRAIL_ASSIGN(const auto options,
                  parse_options(!settings.verbs.empty() || variable == nullptr ? settings.verbs : variable));
  if (settings.slot_bytes < k_grain || settings.slot_bytes % k_grain != 0 || settings.slots < k_least_slots ||
      settings.slot_bytes > k_most_ring_bytes / settings.slots)
    return fail(Code::bad_usage,
                fmt::format("{} slots of {} bytes are not possible with verbs; at least {}, of a multiple of {} bytes, "
                            "and {} MiB in all are",
                            settings.slots, settings.slot_bytes, k_least_slots, k_grain, k_most_ring_bytes >> 20));
  if (options.by_cm && cm_calls == nullptr)
    return fail(Code::unavailable,
                "verbs connect=cm: built without librdmacm; install librdmacm-dev and build again, or "
                "leave it out");
  GRADRAIL_ASSIGN(auto devices, Device::open_all(calls, options, settings.rank, settings.listen_host));
  Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return fail_errno("making an epoll set", errno);
  for (const auto& device : devices)
    for (const auto& [fd, who] : {std::pair<int, void*>{calls.event_fd(device->context()), device.get()},
                                  {calls.channel_fd(device->channel()), device->channel()}}) {
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.ptr = who;
      if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0)
        return fail_errno("watching the device's events", errno);
    }
  std::unique_ptr<VerbsTransport> made(
      new VerbsTransport(settings, options, std::move(devices), std::move(epoll), driver));
  for (const auto& device : made->devices_) {
    if (options.srq == 0) break;
    GRADRAIL_ASSIGN(auto shared, SharedReceives::make(*device));
    made->shared_.push_back(std::move(shared));
  }
  if (!options.by_cm) return made;
  GRADRAIL_ASSIGN(made->cm_, CmPort::make(*cm_calls, settings.secret, made->devices_, settings.listen_host));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = made->cm_.get();
  if (::epoll_ctl(made->epoll_.get(), EPOLL_CTL_ADD, made->cm_->fd(), &event) != 0)
    return fail_errno("watching rdma_cm's events", errno);
  return made;
}

VerbsTransport::~VerbsTransport() { GRADRAIL_CHECK(endpoints_.empty()); }

const Traits& VerbsTransport::traits() const {
  static constexpr Traits k_traits{.name = "verbs", .allocates_direct = true, .depth = k_depth};
  return k_traits;
}

std::string VerbsTransport::describe() const {
  std::string out;
  for (const auto& device : devices_) out += fmt::format("{}{}", out.empty() ? "" : " | ", device->describe());
  if (devices_.size() > 1) out += fmt::format(" ({} rails)", devices_.size());
  if (const auto pairs = devices_.size() * static_cast<std::size_t>(options_.pairs); pairs > 1)
    out += fmt::format("; long messages striped over {} queue pairs", pairs);
  if (cm_ != nullptr) out += "; connected by rdma_cm";
  if (options_.srq != 0) out += "; shared receive queues";
  for (const auto& path : gpu_paths_) out += fmt::format("; {}", path);
  if (const auto& why = registrations_.not_kept(); !why.empty())
    out += fmt::format("; plain memory is registered anew each time: {}", why);
  return out;
}

Result<std::unique_ptr<Region>> VerbsTransport::register_memory(Buffer buffer) {
  if (buffer.space != Space::host) return register_gpu_memory(buffer);
  GRADRAIL_ASSIGN(auto use, registrations_.use(buffer));
  return std::make_unique<VerbsRegion>(*this, buffer, std::move(use));
}

Result<std::unique_ptr<Region>> VerbsTransport::register_gpu_memory(Buffer buffer) {
  auto& gpu = gpus_[buffer.device];
  if (gpu == nullptr) {
    GRADRAIL_ASSIGN(gpu, Gpu::open(driver_, buffer.device));
  }
  GRADRAIL_ASSIGN(auto use, registrations_.use(buffer, gpu.get()));
  bool direct = true;
  std::string all;
  for (std::size_t rail = 0; rail < devices_.size() && buffer.size > 0; ++rail) {
    const PathChoice& how = use.how(rail);
    direct &= !how.staged();
    const auto by = fmt::format("by {}: {}", devices_[rail]->name(), to_text(how));
    all += fmt::format("{}{}", all.empty() ? "" : " | ", by);
    const auto words = fmt::format("GPU {} {}", buffer.device, by);
    if (std::find(gpu_paths_.begin(), gpu_paths_.end(), words) == gpu_paths_.end()) gpu_paths_.push_back(words);
  }
  return std::make_unique<VerbsRegion>(*this, buffer, direct, std::move(use), *gpu, std::move(all));
}

Result<std::unique_ptr<Region>> VerbsTransport::allocate(std::size_t bytes) {
  GRADRAIL_ASSIGN(auto use, registrations_.allocate(bytes));
  const Buffer buffer{use.allocated(), bytes};
  return std::make_unique<VerbsRegion>(*this, buffer, std::move(use));
}

void VerbsTransport::enter(VerbsEndpoint& endpoint) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | EPOLLET;
  event.data.ptr = &endpoint;
  GRADRAIL_CHECK(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, endpoint.lifeline(), &event) == 0);
  endpoints_.push_back(&endpoint);
}

void VerbsTransport::leave(VerbsEndpoint& endpoint) {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, endpoint.lifeline(), nullptr);
  std::erase(endpoints_, &endpoint);
}

bool VerbsTransport::progress() {
  bool moved = false;
  for (auto* endpoint : endpoints_)
    if (endpoint->busy()) moved |= endpoint->progress();
  if (!moved && ++idle_ % k_ask_every == 0) ask(Seconds(0));
  return moved;
}

void VerbsTransport::wait(Seconds at_most) {
  if (at_most.count() <= 0) {
    ::sched_yield();
    return;
  }
  bool busy = false;
  for (auto* endpoint : endpoints_)
    if (endpoint->busy()) busy |= endpoint->prepare_to_sleep();
  if (!busy) ask(at_most);
}

void VerbsTransport::ask(Seconds at_most) {
  std::array<epoll_event, k_events> events;
  const int count = wait_for_events(epoll_.get(), events, at_most);
  for (int i = 0; i < count; ++i) {
    void* const who = events[static_cast<std::size_t>(i)].data.ptr;
    const auto of = std::find_if(devices_.begin(), devices_.end(),
                                 [who](const auto& device) { return who == device.get() || who == device->channel(); });
    if (of != devices_.end()) {
      if (who == of->get()) take_events(**of);
      if (who == (*of)->channel()) (*of)->calls().take_notifications((*of)->channel());
    } else if (who == cm_.get()) {
      cm_->take_events();
    } else if (who == this) {
      // Somebody knocks while traffic flows. What fails here fails again, and is told, in connect().
      if (auto taken = introductions_.take_early(); !taken) continue;
    } else {
      static_cast<VerbsEndpoint*>(who)->check_life();
    }
  }
  look_around();
}

void VerbsTransport::look_around() {
  if (Clock::now() - looked_around_ < k_look_around_every) return;
  looked_around_ = Clock::now();
  for (auto* endpoint : endpoints_) endpoint->check_life();
  if (introductions_.listening() && introductions_.pending() > 0)
    if (auto taken = introductions_.take_early(); !taken) return;
}

void VerbsTransport::take_events() {
  for (const auto& device : devices_) take_events(*device);
}

void VerbsTransport::take_events(Device& device) {
  ibv_async_event event{};
  while (device.calls().take_event(device.context(), event)) {
    const auto meaning = meaning_of(event.event_type);
    switch (meaning.reach) {
      case Reach::nothing: break;
      case Reach::port:
        if (event.element.port_num == device.port()) device.note_port(meaning.says);
        break;
      case Reach::pair:
        for (auto* endpoint : endpoints_)
          if (endpoint->has(event.element.qp)) endpoint->on_event(event.event_type, device);
        break;
      case Reach::device:
        for (auto* endpoint : endpoints_)
          if (endpoint->uses(device)) endpoint->on_event(event.event_type, device);
        break;
    }
  }
}

}  // namespace gradrail::verbs

namespace gradrail {

extern const TransportKind k_verbs_transport{
    "verbs", "RDMA: InfiniBand and RoCE devices, by libibverbs",
    []() { return verbs::Device::any(verbs::library_calls()); },
    [](const Settings& settings) { return verbs::VerbsTransport::make(settings); }};

}  // namespace gradrail

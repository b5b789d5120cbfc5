#include "transports/ucx/library.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <ucs/debug/log_def.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace gradrail::ucx {
namespace {

// UCX calls a plain function from the thread that makes a call of it, or from its own.
thread_local std::string complaint_of_thread;

// The default way with what UCX calls fatal, such as a peer that died while its memory was being read, is to end the
// process. The call that failed reports an error besides, and that is how it is handled here.
ucs_log_func_rc_t take_complaint(const char*, unsigned, const char*, ucs_log_level_t level,
                                 const ucs_log_component_config_t*, const char* message, va_list arguments) {
  static const bool loud = std::getenv("UCX_LOG_LEVEL") != nullptr;
  if (loud && level != UCS_LOG_LEVEL_FATAL) return UCS_LOG_FUNC_RC_CONTINUE;
  if (level > UCS_LOG_LEVEL_WARN) return UCS_LOG_FUNC_RC_STOP;
  std::array<char, 512> text{};
  if (std::vsnprintf(text.data(), text.size(), message, arguments) <= 0) return UCS_LOG_FUNC_RC_STOP;
  if (loud) fmt::print(stderr, "UCX: {}\n", text.data());
  // The first one is nearest to the cause.
  if (complaint_of_thread.empty()) complaint_of_thread = text.data();
  return UCS_LOG_FUNC_RC_STOP;
}

void listen_to_complaints() {
  static const bool listening = [] {
    ucs_log_push_handler(take_complaint);
    return true;
  }();
  static_cast<void>(listening);
}

constexpr std::array k_variables{"UCX_TLS", "UCX_NET_DEVICES", "UCX_SHM_DEVICES", "UCX_RNDV_THRESH", "UCX_RNDV_SCHEME"};

std::uint64_t features_for(Purpose purpose) {
  switch (purpose) {
    case Purpose::pipes: return UCP_FEATURE_TAG | UCP_FEATURE_WAKEUP;
    case Purpose::bare_messages: return UCP_FEATURE_TAG;
    case Purpose::bare_memory: break;
  }
  return UCP_FEATURE_RMA;
}

std::string_view because() { return complaint_of_thread.empty() ? "it gives no reason" : complaint(); }

}  // namespace

std::string_view complaint() { return complaint_of_thread; }
void forget_complaints() { complaint_of_thread.clear(); }

std::string text_of(ucs_status_t status) { return ucs_status_string(status); }

std::string version() {
  unsigned major = 0, minor = 0, release = 0;
  ucp_get_version(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

ucs_memory_type_t type_of(Space space) { return space == Space::cuda ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST; }

Result<std::unique_ptr<Worker>> Worker::make(Purpose purpose) {
  listen_to_complaints();
  forget_complaints();
  std::unique_ptr<Worker> worker(new Worker);
  GRADRAIL_TRY(worker->open(purpose));
  GRADRAIL_TRY(worker->look_at_resources());
  forget_complaints();
  return worker;
}

Result<void> Worker::open(Purpose purpose) {
  ucp_config_t* config = nullptr;
  if (ucp_config_read(nullptr, nullptr, &config) != UCS_OK)
    return fail(Code::bad_usage, fmt::format("UCX does not take one of its variables: {}", because()));
  ucp_params_t wish{};
  wish.field_mask = UCP_PARAM_FIELD_FEATURES;
  wish.features = features_for(purpose);
  const auto made = ucp_init(&wish, config, &context_);
  ucp_config_release(config);
  // A name that it does not know is only warned of where others are left; here it is a mistake all the same.
  const bool unknown = complaint().find("is not available") != std::string_view::npos;
  if (made != UCS_OK || unknown)
    return fail(
        std::getenv("UCX_TLS") != nullptr || unknown ? Code::bad_usage : Code::unavailable,
        fmt::format("UCX cannot be used with {}: {} ('ucx_info -d' shows what there is)", settings(), because()));
  ucp_worker_params_t single{};
  single.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  single.thread_mode = purpose == Purpose::pipes ? UCS_THREAD_MODE_SERIALIZED : UCS_THREAD_MODE_SINGLE;
  if (const auto status = ucp_worker_create(context_, &single, &worker_); status != UCS_OK)
    return fail(Code::system, fmt::format("making a worker of UCX: {}; {}", text_of(status), because()));
  if (purpose == Purpose::pipes)
    if (const auto status = ucp_worker_get_efd(worker_, &event_fd_); status != UCS_OK)
      return fail(Code::system, fmt::format("UCX cannot be waited for: {}", text_of(status)));
  ucp_address_t* address = nullptr;
  std::size_t size = 0;
  if (const auto status = ucp_worker_get_address(worker_, &address, &size); status != UCS_OK)
    return fail(Code::system, fmt::format("UCX gives no address: {}; {}", text_of(status), because()));
  const auto* const bytes = reinterpret_cast<const std::byte*>(address);
  address_.assign(bytes, bytes + size);
  ucp_worker_release_address(worker_, address);
  return {};
}

Result<void> Worker::look_at_resources() {
  ucp_context_attr_t attributes{};
  attributes.field_mask = UCP_ATTR_FIELD_MEMORY_TYPES;
  if (ucp_context_query(context_, &attributes) == UCS_OK) memory_types_ = attributes.memory_types;
  // "#      resource 4  :  md 3  dev 3  flags -- posix/memory"; there is no other way to ask.
  const auto text = printed([&](FILE* stream) { ucp_context_print_info(context_, stream); });
  std::string_view rest = text;
  while (!rest.empty()) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find(" resource ") == std::string_view::npos) continue;
    const auto name = line.substr(line.rfind(' ') + 1);
    if (!resources_.empty()) resources_ += ", ";
    resources_ += name;
    shares_memory_ = shares_memory_ || name.starts_with("posix/") || name.starts_with("sysv/");
  }
  return {};
}

Worker::~Worker() {
  if (worker_ != nullptr) ucp_worker_destroy(worker_);
  if (context_ != nullptr) ucp_cleanup(context_);
}

std::string Worker::settings() const {
  std::string out;
  for (const char* name : k_variables)
    if (const char* value = std::getenv(name)) out += fmt::format("{}{}={}", out.empty() ? "" : " ", name, value);
  return out.empty() ? "UCX_TLS unset" : out;
}

Result<ucp_mem_h> Worker::map(const Buffer& buffer) const {
  const auto type = type_of(buffer.space);
  if ((memory_types_ & UCS_BIT(type)) == 0)
    return fail(
        Code::unsupported,
        fmt::format("UCX {} here was built without CUDA, so it moves host memory only; use a UCX that has CUDA, "
                    "or another transport",
                    version()));
  ucp_mem_map_params_t wish{};
  wish.field_mask =
      UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
  wish.address = buffer.data;
  wish.length = buffer.size;
  wish.memory_type = type;
  return map(wish);
}

Result<ucp_mem_h> Worker::allocate(std::size_t bytes) const {
  ucp_mem_map_params_t wish{};
  wish.field_mask = UCP_MEM_MAP_PARAM_FIELD_LENGTH | UCP_MEM_MAP_PARAM_FIELD_FLAGS;
  wish.length = bytes;
  wish.flags = UCP_MEM_MAP_ALLOCATE;
  return map(wish);
}

std::byte* Worker::address_of(ucp_mem_h handle) {
  ucp_mem_attr_t attributes{};
  attributes.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS;
  return ucp_mem_query(handle, &attributes) == UCS_OK ? static_cast<std::byte*>(attributes.address) : nullptr;
}

Result<ucp_mem_h> Worker::map(const ucp_mem_map_params_t& wish) const {
  forget_complaints();
  ucp_mem_h handle = nullptr;
  const auto status = ucp_mem_map(context_, &wish, &handle);
  if (status == UCS_OK) return handle;
  rlimit limit{};
  ::getrlimit(RLIMIT_MEMLOCK, &limit);
  if (limit.rlim_cur != RLIM_INFINITY)
    return fail(Code::exhausted,
                fmt::format("UCX could not register {} bytes ({}), and locked memory is limited to {} KiB; raise it "
                            "(ulimit -l unlimited, or memlock in /etc/security/limits.conf)",
                            wish.length, because(), limit.rlim_cur >> 10));
  return fail(Code::system,
              fmt::format("UCX could not register {} bytes: {}; {}", wish.length, text_of(status), because()));
}

}  // namespace gradrail::ucx

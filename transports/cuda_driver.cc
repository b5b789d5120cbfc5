#include "transports/cuda_driver.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>
#include <mutex>
#include <vector>

namespace gradrail {
namespace {

// As the driver's binary interface has them since CUDA 11.7; cuda.h is not needed.
using Device = int;
using Context = struct ContextOfDriver*;
using Stream = struct StreamOfDriver*;
using Event = struct EventOfDriver*;
using Address = unsigned long long;

constexpr int k_invalid_value = 1;
constexpr int k_not_ready = 600;
constexpr int k_not_found = 500;
constexpr int k_attribute_writes_ordering = 118;
constexpr int k_attribute_dma_buf = 124;
constexpr int k_pointer_memory_type = 2, k_pointer_sync_memops = 6, k_pointer_is_managed = 8, k_pointer_ordinal = 9;
constexpr int k_memory_of_a_gpu = 2;
constexpr int k_handle_dma_buf = 1;
constexpr int k_ordered_for_owner = 100;
constexpr unsigned k_pin_for_all_contexts = 1;
constexpr unsigned k_stream_not_blocking = 1;
constexpr unsigned k_event_without_timing = 2;

struct Library {
  int (*init)(unsigned) = nullptr;
  int (*error_string)(int, const char**) = nullptr;
  int (*device_count)(int*) = nullptr;
  int (*device_get)(Device*, int) = nullptr;
  int (*device_attribute)(int*, int, Device) = nullptr;
  int (*primary_retain)(Context*, Device) = nullptr;
  int (*push)(Context) = nullptr;
  int (*pop)(Context*) = nullptr;
  int (*allocate)(Address*, std::size_t) = nullptr;
  int (*release)(Address) = nullptr;
  int (*range_handle)(void*, Address, std::size_t, int, unsigned long long) = nullptr;  // CUDA 11.7
  int (*pointer_attribute)(void*, int, Address) = nullptr;
  int (*set_pointer_attribute)(const void*, int, Address) = nullptr;
  int (*flush)(int, int) = nullptr;  // CUDA 11.3
  int (*host_register)(void*, std::size_t, unsigned) = nullptr;
  int (*host_unregister)(void*) = nullptr;
  int (*copy)(Address, Address, std::size_t, Stream) = nullptr;
  int (*stream_create)(Stream*, unsigned) = nullptr;
  int (*stream_wait)(Stream) = nullptr;
  int (*stream_destroy)(Stream) = nullptr;
  int (*event_create)(Event*, unsigned) = nullptr;
  int (*event_record)(Event, Stream) = nullptr;
  int (*event_query)(Event) = nullptr;
  int (*event_destroy)(Event) = nullptr;
};

template <class Function>
bool find(void* library, Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(::dlsym(library, name));
  return function != nullptr;
}

// A primary context that is current while this lives.
class Current {
 public:
  Current(const Library& library, Context context) : library_(library), error_(library.push(context)) {}
  ~Current() {
    Context was = nullptr;
    if (error_ == 0) static_cast<void>(library_.pop(&was));
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  [[nodiscard]] int error() const { return error_; }

 private:
  const Library& library_;
  int error_;
};

class LibraryQueue final : public CopyQueue {
 public:
  LibraryQueue(const Library& library, Context context) : library_(library), context_(context) {}
  ~LibraryQueue() override {
    const Current current(library_, context_);
    if (stream_ != nullptr) {
      static_cast<void>(library_.stream_wait(stream_));
      static_cast<void>(library_.stream_destroy(stream_));
    }
    for (const Event event : events_)
      if (event != nullptr) static_cast<void>(library_.event_destroy(event));
  }
  [[nodiscard]] int create() {
    const Current current(library_, context_);
    int error = current.error();
    if (error == 0) error = library_.stream_create(&stream_, k_stream_not_blocking);
    for (Event& event : events_)
      if (error == 0) error = library_.event_create(&event, k_event_without_timing);
    return error;
  }
  int start(void* to, const void* from, std::size_t bytes) override {
    const Current current(library_, context_);
    int error = current.error();
    if (error == 0)
      error =
          library_.copy(reinterpret_cast<std::uintptr_t>(to), reinterpret_cast<std::uintptr_t>(from), bytes, stream_);
    if (error == 0) error = library_.event_record(events_[started_ % k_most], stream_);
    if (error == 0) ++started_;
    return error;
  }
  int poll(std::uint64_t& ended) override {
    while (ended_ < started_) {
      const int error = library_.event_query(events_[ended_ % k_most]);
      if (error == k_not_ready) break;
      if (error != 0) return error;
      ++ended_;
    }
    ended = ended_;
    return 0;
  }

 private:
  const Library& library_;
  Context context_;
  Stream stream_ = nullptr;
  std::array<Event, k_most> events_{};
  std::uint64_t started_ = 0;
  std::uint64_t ended_ = 0;
};

class LibraryDriver final : public CudaDriver {
 public:
  LibraryDriver() { missing_ = load(); }

  std::string missing() override { return missing_; }
  std::string words(int error) override {
    const char* text = nullptr;
    if (library_.error_string == nullptr || library_.error_string(error, &text) != 0 || text == nullptr)
      return fmt::format("CUDA error {}", error);
    return fmt::format("{} (CUDA error {})", text, error);
  }
  int count(int& gpus) override { return library_.device_count(&gpus); }

  int allocate(int gpu, std::size_t bytes, std::byte*& data) override {
    Address address = 0;
    const int error = within(gpu, [&] { return library_.allocate(&address, bytes); });
    if (error == 0) data = reinterpret_cast<std::byte*>(static_cast<std::uintptr_t>(address));
    return error;
  }
  void release(int gpu, std::byte* data) override {
    static_cast<void>(within(gpu, [&] { return library_.release(reinterpret_cast<std::uintptr_t>(data)); }));
  }

  int owns(int gpu, const std::byte* data, bool& owns) override {
    const auto address = reinterpret_cast<std::uintptr_t>(data);
    int kind = 0, ordinal = -1;
    bool managed = false;
    owns = false;
    int error = library_.pointer_attribute(&kind, k_pointer_memory_type, address);
    if (error == 0) error = library_.pointer_attribute(&ordinal, k_pointer_ordinal, address);
    if (error == 0) error = library_.pointer_attribute(&managed, k_pointer_is_managed, address);
    if (error == k_invalid_value) return 0;  // of no GPU
    owns = error == 0 && kind == k_memory_of_a_gpu && ordinal == gpu && !managed;
    return error;
  }

  int exports_dma_buf(int gpu, bool& exports) override {
    int value = 0;
    const int error = library_.range_handle == nullptr ? 0 : attribute(gpu, k_attribute_dma_buf, value);
    exports = value != 0;
    return error;
  }
  int export_dma_buf(int gpu, const std::byte* begin, std::size_t bytes, int& fd) override {
    if (library_.range_handle == nullptr) return k_not_found;
    return within(gpu, [&] {
      return library_.range_handle(&fd, reinterpret_cast<std::uintptr_t>(begin), bytes, k_handle_dma_buf, 0);
    });
  }
  int order_copies(int gpu, const std::byte* data) override {
    const unsigned on = 1;
    return within(gpu, [&] {
      return library_.set_pointer_attribute(&on, k_pointer_sync_memops, reinterpret_cast<std::uintptr_t>(data));
    });
  }
  int needs_flush(int gpu, bool& needs) override {
    int ordering = 0;
    const int error = attribute(gpu, k_attribute_writes_ordering, ordering);
    needs = library_.flush != nullptr && ordering < k_ordered_for_owner;
    return error;
  }
  int flush(int gpu) override {
    return within(gpu, [&] { return library_.flush(0, k_ordered_for_owner); });
  }

  int pin(int gpu, std::byte* data, std::size_t bytes) override {
    return within(gpu, [&] { return library_.host_register(data, bytes, k_pin_for_all_contexts); });
  }
  void unpin(int gpu, std::byte* data) override {
    static_cast<void>(within(gpu, [&] { return library_.host_unregister(data); }));
  }
  std::unique_ptr<CopyQueue> make_queue(int gpu, int& error) override {
    Context context = nullptr;
    error = context_of(gpu, context);
    if (error != 0) return nullptr;
    auto queue = std::make_unique<LibraryQueue>(library_, context);
    error = queue->create();
    if (error != 0) return nullptr;
    return queue;
  }

 private:
  std::string load() {
    void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      const char* const why = ::dlerror();
      return fmt::format("NVIDIA's driver is not installed here ({})", why == nullptr ? "libcuda.so.1" : why);
    }
    auto& l = library_;
    const bool found =
        find(library, l.init, "cuInit") && find(library, l.error_string, "cuGetErrorString") &&
        find(library, l.device_count, "cuDeviceGetCount") && find(library, l.device_get, "cuDeviceGet") &&
        find(library, l.device_attribute, "cuDeviceGetAttribute") &&
        find(library, l.primary_retain, "cuDevicePrimaryCtxRetain") && find(library, l.push, "cuCtxPushCurrent_v2") &&
        find(library, l.pop, "cuCtxPopCurrent_v2") && find(library, l.allocate, "cuMemAlloc_v2") &&
        find(library, l.release, "cuMemFree_v2") && find(library, l.pointer_attribute, "cuPointerGetAttribute") &&
        find(library, l.set_pointer_attribute, "cuPointerSetAttribute") &&
        find(library, l.host_register, "cuMemHostRegister_v2") &&
        find(library, l.host_unregister, "cuMemHostUnregister") && find(library, l.copy, "cuMemcpyAsync") &&
        find(library, l.stream_create, "cuStreamCreate") && find(library, l.stream_wait, "cuStreamSynchronize") &&
        find(library, l.stream_destroy, "cuStreamDestroy_v2") && find(library, l.event_create, "cuEventCreate") &&
        find(library, l.event_record, "cuEventRecord") && find(library, l.event_query, "cuEventQuery") &&
        find(library, l.event_destroy, "cuEventDestroy_v2");
    if (!found) return "libcuda.so.1 is too old; install a driver for CUDA 11 or later";
    static_cast<void>(find(library, l.range_handle, "cuMemGetHandleForAddressRange"));
    static_cast<void>(find(library, l.flush, "cuFlushGPUDirectRDMAWrites"));
    const int error = l.init(0);
    return error == 0 ? std::string() : fmt::format("NVIDIA's driver does not start: {}", words(error));
  }

  int attribute(int gpu, int which, int& value) {
    Device device = 0;
    const int error = library_.device_get(&device, gpu);
    return error != 0 ? error : library_.device_attribute(&value, which, device);
  }
  // Retained once, for the life of the process.
  int context_of(int gpu, Context& context) {
    const std::lock_guard lock(mutex_);
    const auto at = static_cast<std::size_t>(gpu);
    if (at < contexts_.size() && contexts_[at] != nullptr) return context = contexts_[at], 0;
    Device device = 0;
    int error = library_.device_get(&device, gpu);
    if (error == 0) error = library_.primary_retain(&context, device);
    if (error != 0) return error;
    if (at >= contexts_.size()) contexts_.resize(at + 1);
    contexts_[at] = context;
    return 0;
  }
  template <class Call>
  int within(int gpu, const Call& call) {
    Context context = nullptr;
    if (const int error = context_of(gpu, context); error != 0) return error;
    const Current current(library_, context);
    return current.error() != 0 ? current.error() : call();
  }

  Library library_;
  std::string missing_;
  std::mutex mutex_;
  std::vector<Context> contexts_;
};

}  // namespace

CudaDriver& cuda_driver() {
  static LibraryDriver driver;
  return driver;
}

Result<void> find_gpu(CudaDriver& driver, int ordinal) {
  if (const auto missing = driver.missing(); !missing.empty())
    return fail(Code::unavailable, fmt::format("memory of GPU {} cannot be moved: {}", ordinal, missing));
  int gpus = 0;
  if (const int error = driver.count(gpus); error != 0)
    return fail(Code::unavailable, fmt::format("the GPUs cannot be counted: {}", driver.words(error)));
  if (ordinal < 0 || ordinal >= gpus)
    return fail(Code::unavailable,
                fmt::format("there is no GPU {}; CUDA sees {} here (CUDA_VISIBLE_DEVICES hides some)", ordinal, gpus));
  return {};
}

Result<std::unique_ptr<CopyQueue>> make_copy_queue(CudaDriver& driver, int gpu) {
  int error = 0;
  auto queue = driver.make_queue(gpu, error);
  if (queue == nullptr)
    return fail(Code::unavailable, fmt::format("GPU {} gave no stream for copies: {}", gpu, driver.words(error)));
  return queue;
}

tl::unexpected<Error> copy_failed(CudaDriver& driver, int gpu, int error) {
  return fail(Code::system, fmt::format("a copy between GPU {} and the host failed: {}", gpu, driver.words(error)));
}

}  // namespace gradrail

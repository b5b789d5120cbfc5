// A libcuda.so.1 of a host that has no GPU: the calls that transports/cuda_driver.cc makes, over two GPUs whose memory
// is memory of the host that nobody may touch. At the address that programs see, every access is a fault; only copies
// get at the bytes, by another mapping of them, and take a few looks to end. Nothing is exported as dma-buf.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>

namespace {

constexpr int k_invalid_value = 1, k_out_of_memory = 2, k_not_ready = 600;
constexpr int k_gpus = 2;
constexpr int k_looks = 3;

struct Memory {
  int gpu;
  std::size_t bytes;
  char* where;  // the bytes themselves
};
std::mutex lock;
std::map<std::uintptr_t, Memory> memories;
thread_local int current = 0;

// The memory that an address lies in, and where in it; the end where it lies in none.
auto find(std::uintptr_t address) {
  auto one = memories.upper_bound(address);
  if (one == memories.begin()) return memories.end();
  --one;
  return address < one->first + one->second.bytes ? one : memories.end();
}
char* bytes_at(unsigned long long address) {
  const auto one = find(address);
  return one == memories.end() ? reinterpret_cast<char*>(address) : one->second.where + (address - one->first);
}

// Copies happen as late as they may.
struct Stream {
  struct Copy {
    unsigned long long to, from;
    std::size_t bytes;
  };
  std::deque<Copy> waiting;
  std::uint64_t started = 0, ended = 0;

  void run(std::uint64_t until) {
    const std::lock_guard guard(lock);
    for (; ended < until; ++ended, waiting.pop_front()) {
      const Copy& copy = waiting.front();
      std::memcpy(bytes_at(copy.to), bytes_at(copy.from), copy.bytes);
    }
  }
};
struct Event {
  Stream* stream = nullptr;
  std::uint64_t copies = 0;
  int looks = 0;
};
char contexts[k_gpus];

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuGetErrorString(int error, const char** text) {
  *text = error == k_out_of_memory ? "out of memory" : "an error of the made-up driver";
  return 0;
}
int cuDeviceGetCount(int* count) { return *count = k_gpus, 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetAttribute(int* value, int, int) { return *value = 0, 0; }
int cuDevicePrimaryCtxRetain(void** context, int device) { return *context = &contexts[device], 0; }
int cuCtxPushCurrent_v2(void* context) {
  current = static_cast<int>(static_cast<char*>(context) - contexts);
  return 0;
}
int cuCtxPopCurrent_v2(void**) { return 0; }

int cuMemAlloc_v2(unsigned long long* address, std::size_t bytes) {
  const int fd = ::memfd_create("gpu", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(bytes)) != 0) return k_out_of_memory;
  void* const seen = ::mmap(nullptr, bytes, PROT_NONE, MAP_SHARED, fd, 0);
  void* const where = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  ::close(fd);
  if (seen == MAP_FAILED || where == MAP_FAILED) return k_out_of_memory;
  *address = reinterpret_cast<std::uintptr_t>(seen);
  const std::lock_guard guard(lock);
  memories[*address] = {current, bytes, static_cast<char*>(where)};
  return 0;
}
int cuMemFree_v2(unsigned long long address) {
  const std::lock_guard guard(lock);
  const auto one = memories.find(address);
  if (one == memories.end()) return k_invalid_value;
  ::munmap(reinterpret_cast<void*>(one->first), one->second.bytes);
  ::munmap(one->second.where, one->second.bytes);
  memories.erase(one);
  return 0;
}
int cuPointerGetAttribute(void* value, int attribute, unsigned long long address) {
  constexpr int k_memory_type = 2, k_is_managed = 8, k_ordinal = 9, k_of_a_gpu = 2;
  const std::lock_guard guard(lock);
  const auto one = find(address);
  if (one == memories.end()) return k_invalid_value;
  if (attribute == k_memory_type) *static_cast<int*>(value) = k_of_a_gpu;
  if (attribute == k_ordinal) *static_cast<int*>(value) = one->second.gpu;
  if (attribute == k_is_managed) *static_cast<bool*>(value) = false;
  return 0;
}
int cuPointerSetAttribute(const void*, int, unsigned long long) { return 0; }
int cuMemHostRegister_v2(void*, std::size_t, unsigned) { return 0; }
int cuMemHostUnregister(void*) { return 0; }

int cuMemcpyAsync(unsigned long long to, unsigned long long from, std::size_t bytes, Stream* stream) {
  stream->waiting.push_back({to, from, bytes});
  ++stream->started;
  return 0;
}
int cuStreamCreate(Stream** stream, unsigned) { return *stream = new Stream, 0; }
int cuStreamSynchronize(Stream* stream) { return stream->run(stream->started), 0; }
int cuStreamDestroy_v2(Stream* stream) {
  delete stream;
  return 0;
}
int cuEventCreate(Event** event, unsigned) { return *event = new Event, 0; }
int cuEventRecord(Event* event, Stream* stream) {
  *event = {stream, stream->started, k_looks};
  return 0;
}
int cuEventQuery(Event* event) {
  if (event->looks > 0 && --event->looks > 0) return k_not_ready;
  if (event->stream != nullptr) event->stream->run(event->copies);
  return 0;
}
int cuEventDestroy_v2(Event* event) {
  delete event;
  return 0;
}
}

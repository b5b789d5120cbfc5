#include "transports/verbs/gpu.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "transports/base/fd.h"
#include "transports/base/pages.h"

namespace gradrail::verbs {

Result<std::unique_ptr<Gpu>> Gpu::open(CudaDriver& driver, int ordinal) {
  GRADRAIL_TRY(find_gpu(driver, ordinal));
  std::unique_ptr<Gpu> gpu(new Gpu(driver, ordinal));
  if (const int error = driver.needs_flush(ordinal, gpu->needs_flush_); error != 0)
    return fail(Code::unavailable, fmt::format("GPU {} cannot be asked: {}", ordinal, driver.words(error)));
  // Whether it can be done at all is told with the path, before a pipe depends on it.
  GRADRAIL_ASSIGN(const auto page, Pages::map(1));
  const Pin trial(*gpu, page.data(), 4096);
  return gpu;
}

Result<Reached> Gpu::reach(const Device& device, AddressRange range) {
  bool owns = false;
  if (const int error = driver_.owns(ordinal_, reinterpret_cast<const std::byte*>(range.begin), owns); error != 0)
    return fail(Code::system, fmt::format("GPU {} cannot be asked: {}", ordinal_, driver_.words(error)));
  if (!owns)
    return fail(Code::bad_usage, fmt::format("a buffer that is said to lie on GPU {} is not its own memory; managed "
                                             "memory and that of the host are not moved as a GPU's",
                                             ordinal_));
  Reached out;
  const MemoryPath only = device.options().gpu;
  using Way = ibv_mr* (Gpu::*)(const Device&, AddressRange, std::string&);
  for (const auto& [path, way] : {std::pair<MemoryPath, Way>{MemoryPath::dma_buf, &Gpu::by_dma_buf},
                                  {MemoryPath::peer_memory, &Gpu::by_peer_memory}}) {
    std::string why = "the verbs setting gpu asks for another way";
    if (only == MemoryPath::host || only == path)
      out.memory = Registered((this->*way)(device, range, why), Deregister{&device.calls()});
    if (out.memory != nullptr) {
      out.how.path = path;
      // Where this fails, only copies that the program starts and does not wait for are concerned.
      static_cast<void>(driver_.order_copies(ordinal_, reinterpret_cast<const std::byte*>(range.begin)));
      return out;
    }
    if (only == path)
      return fail(Code::unavailable, fmt::format("{} does not reach GPU {} by {}: {}; leave the verbs setting gpu out",
                                                 device.where(), ordinal_, to_string(path), why));
    out.how.against.push_back({path, std::move(why)});
  }
  out.how.path = not_pinned_.empty() ? MemoryPath::staged : MemoryPath::staged_slow;
  if (!not_pinned_.empty()) out.how.against.push_back({MemoryPath::staged, not_pinned_});
  return out;
}

ibv_mr* Gpu::by_dma_buf(const Device& device, AddressRange range, std::string& why) {
  bool exports = false;
  if (const int error = driver_.exports_dma_buf(ordinal_, exports); error != 0) {
    why = driver_.words(error);
    return nullptr;
  }
  if (!exports) {
    why = "NVIDIA's driver does not export it; that takes the open kernel modules, Linux 5.12 and CUDA 11.7 or later";
    return nullptr;
  }
  const auto pages = pages_around(range);
  int descriptor = -1;
  if (const int error = driver_.export_dma_buf(ordinal_, reinterpret_cast<const std::byte*>(pages.begin),
                                               pages.end - pages.begin, descriptor);
      error != 0) {
    why = fmt::format("exporting it failed: {}", driver_.words(error));
    return nullptr;
  }
  const Fd fd(descriptor);
  ibv_mr* const memory = device.calls().reg_dmabuf_mr(device.domain(), range.begin - pages.begin,
                                                      range.end - range.begin, range.begin, fd.get(), k_region_access);
  if (memory == nullptr)
    why = errno == EOPNOTSUPP || errno == EPROTONOSUPPORT
              ? fmt::format("the driver of {} takes none", device.name())
              : fmt::format("{} could not register it: {}", device.name(), std::strerror(errno));
  return memory;
}

ibv_mr* Gpu::by_peer_memory(const Device& device, AddressRange range, std::string& why) {
  ibv_mr* const memory = device.calls().reg_mr(device.domain(), reinterpret_cast<void*>(range.begin),
                                               range.end - range.begin, k_region_access);
  if (memory == nullptr)
    why = errno == EFAULT ? std::string("the kernel does not know the address; modprobe nvidia_peermem")
          : errno == ENOMEM
              ? std::string("no memory left for it; the GPU's BAR1 may be full (nvidia-smi -q), or memlock too small")
              : fmt::format("{} could not register it: {}", device.name(), std::strerror(errno));
  return memory;
}

Gpu::Pin::Pin(Gpu& gpu, std::byte* data, std::size_t bytes) : gpu_(gpu), data_(data) {
  const int error = gpu.driver_.pin(gpu.ordinal_, data, bytes);
  if (error == 0) return;
  data_ = nullptr;
  gpu.not_pinned_ = fmt::format("locking host memory for GPU {} failed: {}; look at memlock (ulimit -l)", gpu.ordinal_,
                                gpu.driver_.words(error));
}

Gpu::Pin::~Pin() {
  if (data_ != nullptr) gpu_.driver_.unpin(gpu_.ordinal_, data_);
}

}  // namespace gradrail::verbs

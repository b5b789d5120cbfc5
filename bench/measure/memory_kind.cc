#include "bench/measure/memory_kind.h"

#include <fmt/format.h>
#include <sched.h>

#include <charconv>
#include <cstring>

#include "transports/base/clock.h"
#include "transports/base/pages.h"
#include "transports/staged/staged.h"

namespace gradrail {

namespace {

constexpr int k_most_gpus = 1024;    // of a host; for what people type
constexpr Seconds k_copy_takes{60};  // at most, far beyond what any does

}  // namespace

std::string_view to_string(MemoryKind kind) {
  switch (kind) {
    case MemoryKind::host: return "host";
    case MemoryKind::huge: return "huge";
    case MemoryKind::cuda: break;
  }
  return "cuda";
}

Result<MemoryWish> parse_memory(const std::string& text) {
  if (text == "host") return MemoryWish{};
  if (text == "huge") return MemoryWish{MemoryKind::huge};
  MemoryWish wish{MemoryKind::cuda};
  if (text == "cuda") return wish;
  constexpr std::string_view k_start = "cuda:";
  if (text.starts_with(k_start)) {
    const auto read = std::from_chars(text.data() + k_start.size(), text.data() + text.size(), wish.gpu);
    if (read.ec == std::errc() && read.ptr == text.data() + text.size() && wish.gpu >= 0 && wish.gpu < k_most_gpus)
      return wish;
  }
  return fail(Code::bad_usage,
              fmt::format("--memory is host, huge, cuda or cuda:DEVICE (a number from 0), not '{}'", text));
}

std::string to_text(const MemoryWish& wish) {
  return wish.gpu < 0 ? std::string(to_string(wish.kind)) : fmt::format("{}:{}", to_string(wish.kind), wish.gpu);
}

Result<MemoryWish> with_gpu(MemoryWish wish, std::size_t nth, CudaDriver& driver) {
  if (wish.kind != MemoryKind::cuda) return wish;
  if (wish.gpu < 0) {
    int gpus = 0;
    const bool counted = driver.missing().empty() && driver.count(gpus) == 0 && gpus > 0;
    wish.gpu = counted ? static_cast<int>(nth % static_cast<std::size_t>(gpus)) : 0;
  }
  GRADRAIL_TRY(find_gpu(driver, wish.gpu));
  return wish;
}

Result<std::unique_ptr<Transport>> reaching(std::unique_ptr<Transport> transport, const MemoryWish& wish,
                                            CudaDriver& driver) {
  if (wish.kind != MemoryKind::cuda) return transport;
  GRADRAIL_ASSIGN(const auto trial, OwnedMemory::make(wish, 1, driver));
  std::string why;
  {
    const auto taken = transport->register_memory(trial.buffer());
    if (!taken && taken.error().code != Code::unsupported) return tl::unexpected<Error>(taken.error());
    if (!taken) why = taken.error().message.substr(0, taken.error().message.find(';'));  // without what to do
  }
  if (why.empty()) return transport;
  return make_staged(std::move(transport), driver, std::move(why));
}

Result<OwnedMemory> OwnedMemory::make(const MemoryWish& wish, std::size_t bytes, CudaDriver& driver) {
  OwnedMemory out;
  out.driver_ = &driver;
  out.buffer_.size = bytes;
  switch (wish.kind) {
    case MemoryKind::host: out.data_ = {new std::byte[bytes](), [](std::byte* data) { delete[] data; }}; break;
    case MemoryKind::huge: {
      GRADRAIL_ASSIGN(auto pages, Pages::map_huge(bytes));
      std::byte* const data = pages.data();
      out.data_ = {data, [owner = std::make_shared<Pages>(std::move(pages))](std::byte*) {}};
      break;
    }
    case MemoryKind::cuda: {
      GRADRAIL_TRY(find_gpu(driver, wish.gpu));
      std::byte* data = nullptr;
      if (const int error = driver.allocate(wish.gpu, bytes, data); error != 0)
        return fail(Code::exhausted,
                    fmt::format("GPU {} gave no {} bytes of memory: {}", wish.gpu, bytes, driver.words(error)));
      out.data_ = {data, [&driver, gpu = wish.gpu](std::byte* of) { driver.release(gpu, of); }};
      out.buffer_.space = Space::cuda;
      out.buffer_.device = wish.gpu;
      GRADRAIL_ASSIGN(out.copies_, make_copy_queue(driver, wish.gpu));
      break;
    }
  }
  out.buffer_.data = out.data_.get();
  return out;
}

Result<void> OwnedMemory::put(std::span<const std::byte> bytes) {
  return copy(buffer_.data, bytes.data(), bytes.size());
}
Result<void> OwnedMemory::get(std::span<std::byte> bytes) { return copy(bytes.data(), buffer_.data, bytes.size()); }

Result<void> OwnedMemory::copy(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return {};
  if (copies_ == nullptr) {
    std::memcpy(to, from, bytes);
    return {};
  }
  const auto deadline = Deadline::after(k_copy_takes);
  std::uint64_t before = 0, ended = 0;
  int error = copies_->poll(before);
  if (error == 0) error = copies_->start(to, from, bytes);
  while (error == 0 && ended <= before && !deadline.passed()) {
    error = copies_->poll(ended);
    if (ended <= before) ::sched_yield();
  }
  if (error != 0) return copy_failed(*driver_, buffer_.device, error);
  if (ended <= before)
    return fail(Code::system,
                fmt::format("a copy of {} bytes between GPU {} and the host does not end", bytes, buffer_.device));
  return {};
}

}  // namespace gradrail

// UCX in use by one rank: a context, its worker, and what UCX found on this machine. Owned by a transport; endpoints
// and memory handles made from it go first. One thread.
//
// What may be used is the user's to say, by UCX's own variables (UCX_TLS, UCX_NET_DEVICES, ...). UCX complains to
// standard error; here its last complaint is kept instead, and becomes part of our sentence, unless UCX_LOG_LEVEL is
// set.
#pragma once

#include <ucp/api/ucp.h>

#include <memory>
#include <string>
#include <string_view>

#include "transports/base/bytes.h"
#include "transports/base/result.h"
#include "transports/memory.h"

namespace gradrail::ucx {

[[nodiscard]] std::string text_of(ucs_status_t status);
// UCX's version, "1.13.1".
[[nodiscard]] std::string version();

// What a worker is asked for: all that pipes need, or no more than ucx_perftest asks for to measure messages with tags,
// or operations on memory; such a worker is polled only, by the thread that made it.
enum class Purpose : std::uint8_t { pipes, bare_messages, bare_memory };

class Worker {
 public:
  // Errors: bad_usage (a variable of UCX that it does not take), unavailable (nothing to go over), system.
  [[nodiscard]] static Result<std::unique_ptr<Worker>> make(Purpose purpose = Purpose::pipes);
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  ~Worker();

  [[nodiscard]] ucp_worker_h id() const { return worker_; }
  [[nodiscard]] ucp_context_h context() const { return context_; }
  // What peers connect to.
  [[nodiscard]] const Bytes& address() const { return address_; }
  // "self/memory, tcp/eth0, posix/memory": transports and devices that may be used.
  [[nodiscard]] const std::string& resources() const { return resources_; }
  // Whether shared memory is among them.
  [[nodiscard]] bool shares_memory() const { return shares_memory_; }
  // What the user said: "UCX_TLS=tcp", or that nothing was said.
  [[nodiscard]] std::string settings() const;

  // Moves everything that can be moved; true if anything did. Callbacks run in it.
  bool progress() { return ucp_worker_progress(worker_) != 0; }
  // Readable when something happens after arm() returned true; false: something may have happened already. For pipes.
  [[nodiscard]] int event_fd() const { return event_fd_; }
  [[nodiscard]] bool arm() { return ucp_worker_arm(worker_) == UCS_OK; }

  // Errors: unsupported (memory of a device that this UCX does not know), exhausted, system.
  [[nodiscard]] Result<ucp_mem_h> map(const Buffer& buffer) const;
  // Memory of the host as UCX makes it (UCX_ALLOC_PRIO), mapped. Errors as map().
  [[nodiscard]] Result<ucp_mem_h> allocate(std::size_t bytes) const;
  [[nodiscard]] static std::byte* address_of(ucp_mem_h handle);
  void unmap(ucp_mem_h handle) const { ucp_mem_unmap(context_, handle); }

 private:
  Worker() = default;
  [[nodiscard]] Result<void> open(Purpose purpose);
  [[nodiscard]] Result<ucp_mem_h> map(const ucp_mem_map_params_t& wish) const;
  [[nodiscard]] Result<void> look_at_resources();

  ucp_context_h context_ = nullptr;
  ucp_worker_h worker_ = nullptr;
  int event_fd_ = -1;
  std::uint64_t memory_types_ = 0;
  Bytes address_;
  std::string resources_;
  bool shares_memory_ = false;
};

[[nodiscard]] ucs_memory_type_t type_of(Space space);

// What a print function of UCX writes, by a function that is given the stream.
template <class Print>
[[nodiscard]] std::string printed(const Print& print) {
  char* text = nullptr;
  std::size_t size = 0;
  FILE* const stream = ::open_memstream(&text, &size);
  if (stream == nullptr) return {};
  print(stream);
  ::fclose(stream);
  std::string out(text, size);
  ::free(text);
  return out;
}

// The last thing that UCX complained of on this thread since forget_complaints(), or empty.
[[nodiscard]] std::string_view complaint();
void forget_complaints();

}  // namespace gradrail::ucx

// One RDMA device in use: opened, with a protection domain, and the choice of port, GID and MTU with the reasons for
// it. Owned by a transport; everything made from it must go first. One thread.
//
// Choice of a GID on RoCE: the RoCE v2 entry that is the address this rank listens on; else the first RoCE v2 entry
// with an IPv4 address; else one with a routable IPv6 address; else a link-local one; RoCE v1 last, as it does not
// cross routers. InfiniBand is addressed by LID, and needs no GID unless one is asked for.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "transports/base/result.h"
#include "transports/verbs/calls.h"
#include "transports/verbs/options.h"

namespace gradrail::verbs {

struct GidChoice {
  int index = 0;
  ibv_gid gid{};
  bool global = false;  // packets carry it
  std::string why;      // "RoCE v2, the first with an IPv4 address"
};
// Of the entries of one port; `wanted`: an index, or -1; `kind`: empty, or as in Options. Errors: unavailable,
// bad_usage (no such index or kind), each saying what there is.
[[nodiscard]] Result<GidChoice> choose_gid(std::span<const ibv_gid_entry> entries, int link_layer, int wanted,
                                           std::string_view listen_host, std::string_view device,
                                           std::string_view kind = {});
[[nodiscard]] std::string to_text(const ibv_gid& gid);
[[nodiscard]] int bytes_of(ibv_mtu mtu);

inline constexpr int k_region_access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE;

struct Deregister {
  Calls* calls = nullptr;
  void operator()(ibv_mr* memory) const { calls->dereg_mr(memory); }
};
using Registered = std::unique_ptr<ibv_mr, Deregister>;

class Device {
 public:
  // Those that a rank uses, one a rail: of n devices, rank r takes options.rails ones from the (r x rails)-th on, in a
  // circle. Errors: unavailable (no device, no active port, no GID), bad_usage (a wish that cannot be), system.
  [[nodiscard]] static Result<std::vector<std::unique_ptr<Device>>> open_all(Calls& calls, const Options& options,
                                                                             int rank, std::string_view listen_host);
  // Whether any device has an active port, or why none can be used.
  [[nodiscard]] static Result<void> any(Calls& calls);
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  ~Device();

  [[nodiscard]] Calls& calls() const { return calls_; }
  [[nodiscard]] ibv_context* context() const { return context_; }
  [[nodiscard]] ibv_pd* domain() const { return domain_; }
  [[nodiscard]] ibv_comp_channel* channel() const { return channel_; }
  [[nodiscard]] const Options& options() const { return options_; }
  [[nodiscard]] int port() const { return port_; }
  [[nodiscard]] const ibv_port_attr& port_attributes() const { return port_attributes_; }
  [[nodiscard]] const ibv_device_attr& attributes() const { return attributes_; }
  [[nodiscard]] const GidChoice& gid() const { return gid_; }
  [[nodiscard]] ibv_mtu mtu() const { return mtu_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  // "mlx5_0 port 1"
  [[nodiscard]] std::string where() const;
  // One line for people: what is used, and why.
  [[nodiscard]] std::string describe() const;

  // What happened to the port that explains failures; empty if nothing did.
  [[nodiscard]] std::string_view port_note() const { return port_note_; }
  void note_port(std::string_view what) { port_note_ = what; }

  // Errors: exhausted with what to do about locked memory, bad_usage, system.
  [[nodiscard]] Result<ibv_mr*> register_memory(void* address, std::size_t bytes, int access = k_region_access) const;

 private:
  Device(Calls& calls, Options options, std::string name)
      : calls_(calls), options_(std::move(options)), name_(std::move(name)) {}
  [[nodiscard]] static Result<std::unique_ptr<Device>> open(Calls& calls, const Options& options,
                                                            const std::string& name, std::string_view listen_host);
  [[nodiscard]] Result<void> choose(std::string_view listen_host);

  Calls& calls_;
  Options options_;
  std::string name_;
  ibv_context* context_ = nullptr;
  ibv_pd* domain_ = nullptr;
  ibv_comp_channel* channel_ = nullptr;
  ibv_device_attr attributes_{};
  int port_ = 0;
  ibv_port_attr port_attributes_{};
  GidChoice gid_;
  ibv_mtu mtu_ = IBV_MTU_1024;
  std::string_view port_note_;
};

}  // namespace gradrail::verbs

// Whatever a peer sends instead of parcels must end in an error or in waiting for more, and never in anything else: one
// rank of a job of two runs an exchange, and the bytes of the other come from here. The first byte picks the exchange,
// the second how many values there are; the rest is what the peer sends. It runs twice, so that what one call leaves
// behind meets the next one; a run that ends well must have read just what it was to read.
//
// With libFuzzer: configure with clang and -DGRADRAIL_FUZZ=ON, then build/NAME/tests/parcels_fuzz
// tests/fuzz/parcels_corpus. In ctest the kept corpus is replayed (parcels_replay_test.cc).
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "collectives/exec/exchange.h"

namespace gradrail {

int fuzz_parcels(const std::uint8_t* data, std::size_t size);

namespace {

class NoTransport final : public Transport {
 public:
  [[nodiscard]] const Traits& traits() const override { return traits_; }
  [[nodiscard]] Result<Address> listen() override { return Address(); }
  [[nodiscard]] Result<std::vector<std::unique_ptr<Endpoint>>> connect(std::span<const Peer>, Deadline) override {
    return std::vector<std::unique_ptr<Endpoint>>();
  }
  [[nodiscard]] Result<std::unique_ptr<Region>> register_memory(Buffer) override { return std::unique_ptr<Region>(); }
  [[nodiscard]] Result<std::unique_ptr<Region>> allocate(std::size_t) override { return std::unique_ptr<Region>(); }
  bool progress() override { return false; }
  void wait(Seconds) override {}

 private:
  Traits traits_{.name = "none"};
};

// Receives from a script, and says of everything it is given to send that it was sent.
class Scripted final : public Endpoint {
 public:
  Scripted(const Transport& owner, std::span<const std::byte> script) : Endpoint(1, 0), owner_(owner), left_(script) {}

  [[nodiscard]] Result<void> send(Slice source) override {
    if (!source.within(owner_)) std::abort();
    sent.insert(sent.end(), source.data(), source.data() + source.size);
    ++sends_done_;
    return {};
  }
  [[nodiscard]] Result<void> recv(Slice destination) override {
    if (!destination.within(owner_)) std::abort();
    if (stuck_ || destination.size > left_.size()) {
      stuck_ = true;  // what is not there never comes, nor does what is behind it
      return {};
    }
    if (destination.size > 0) std::memcpy(destination.data(), left_.data(), destination.size);
    left_ = left_.subspan(destination.size);
    ++recvs_done_;
    return {};
  }
  [[nodiscard]] Result<void> recv_in_place(std::size_t) override { std::abort(); }
  [[nodiscard]] std::span<const std::byte> readable() override { return {}; }
  void consume(std::size_t) override {}

  std::vector<std::byte> sent;

 private:
  const Transport& owner_;
  std::span<const std::byte> left_;
  bool stuck_ = false;
};

struct Case {
  const char* exchange;
  const char* codec;
  std::uint64_t values;  // for each unit of the second byte
};
constexpr Case k_cases[] = {
    {"gather", "topk:0.1", 7}, {"gather", "nonzero:8", 7},    {"gather", "int8", 7},           {"split", "topk:0.1", 7},
    {"split", "nonzero:8", 7}, {"ok_topk", "topk:0.1+ef", 7}, {"gather", "nonzero:256", 1024},  // in parts
};

}  // namespace

int fuzz_parcels(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const Case& which = k_cases[data[0] % std::size(k_cases)];
  ExchangeSetting setting;
  setting.ranks = 2;
  setting.count = data[1] * which.values;
  setting.codec = which.codec;
  const ExchangeKind* kind = nullptr;
  for (const ExchangeKind* one : exchange_kinds()) {
    if (one->name == which.exchange) kind = one;
  }

  const NoTransport transport;
  Channel channel;
  channel.depth = 16;
  auto endpoint =
      std::make_unique<Scripted>(transport, std::span(reinterpret_cast<const std::byte*>(data) + 2, size - 2));
  channel.endpoint = std::move(endpoint);
  ExchangeMeans means;
  means.channel = [&](ChannelKey) { return &channel; };
  means.state = std::make_shared<CodecState>(setting.codec);
  auto made = kind->make(setting, means);
  if (!made) std::abort();
  ExchangeRun& run = **made;

  const auto memory_of = [&](std::vector<std::byte>& bytes) {
    const Buffer buffer{bytes.data(), bytes.size()};
    return Memory(buffer, {std::make_unique<Region>(transport, buffer, false), nullptr});
  };
  std::vector<std::byte> in(setting.count * sizeof(float)), out(in.size()), wire(run.wire_bytes());
  for (std::size_t i = 0; i < setting.count; ++i) {
    const auto value = static_cast<float>(i % 64 < 40 ? i % 17 : 0);
    std::memcpy(in.data() + i * sizeof value, &value, sizeof value);
  }
  const Memory from = memory_of(in), to = memory_of(out), scratch = memory_of(wire);
  for (int call = 0; call < 2; ++call) {
    run.start({&from, 0}, {&to, 0}, {&scratch, 0});
    while (!run.done() && run.failure() == nullptr && run.progress()) {
    }
    if (!run.done() || run.failure() != nullptr) return 0;
    if (!channel.idle()) std::abort();
  }
  return 0;
}

}  // namespace gradrail

#ifdef GRADRAIL_LIBFUZZER
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return gradrail::fuzz_parcels(data, size);
}
#endif

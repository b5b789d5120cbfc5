#include "tests/contract/transport_job.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "transports/local/hub.h"

namespace gradrail::testing {
namespace {

std::byte pattern(std::uint64_t seed, std::size_t at) {
  const std::uint64_t mixed = (at / 8 + seed * 0x9e37'79b9'7f4a'7c15ULL) * 0xbf58'476d'1ce4'e5b9ULL;
  return static_cast<std::byte>(mixed >> (8 + at % 8 * 7));
}

}  // namespace

void fill(std::span<std::byte> bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = pattern(seed, i);
}

std::ptrdiff_t first_wrong(std::span<const std::byte> bytes, std::uint64_t seed, std::size_t from) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != pattern(seed, from + i)) return static_cast<std::ptrdiff_t>(i);
  }
  return -1;
}

Job::Job(std::string_view transport, const JobOptions& options) {
  const auto hub = std::make_shared<LocalHub>();
  const auto secret = Secret::random();
  if (!secret) {
    ADD_FAILURE() << secret.error().message;
    return;
  }
  std::vector<Address> addresses;
  for (int rank = 0; rank < options.ranks; ++rank) {
    Settings settings = options.settings;
    settings.rank = rank;
    settings.ranks = options.ranks;
    settings.secret = *secret;
    settings.hub = hub;
    auto made = make_transport(transport, settings);
    if (!made) {
      ADD_FAILURE() << made.error().message;
      return;
    }
    if (options.wrap) *made = options.wrap(rank, std::move(*made));
    auto address = (*made)->listen();
    if (!address) {
      ADD_FAILURE() << address.error().message;
      return;
    }
    ranks_.push_back({std::move(*made), {}});
    addresses.push_back(std::move(*address));
  }
  std::vector<std::optional<Error>> errors(ranks_.size());
  std::vector<std::thread> threads;
  for (int rank = 0; rank < options.ranks; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<Peer> peers;
      for (int lane = 0; lane < options.lanes; ++lane) {
        for (int peer = 0; peer < options.ranks; ++peer) {
          if (peer == rank) continue;
          peers.push_back({.rank = peer, .lane = lane, .host = "here", .address = addresses[std::size_t(peer)]});
        }
      }
      auto& self = ranks_[std::size_t(rank)];
      auto made = self.transport->connect(peers, Deadline::after(Seconds(20)));
      if (!made) {
        errors[std::size_t(rank)] = made.error();
        return;
      }
      for (std::size_t i = 0; i < peers.size(); ++i)
        self.endpoints[{peers[i].rank, peers[i].lane}] = std::move((*made)[i]);
    });
  }
  for (auto& thread : threads) thread.join();
  ok_ = true;
  for (const auto& error : errors) {
    if (!error) continue;
    ADD_FAILURE() << error->message;
    ok_ = false;
  }
}

Job::~Job() {
  for (auto& rank : ranks_) rank.endpoints.clear();
}

Endpoint& Job::endpoint(int rank, int peer, int lane) {
  return *ranks_[static_cast<std::size_t>(rank)].endpoints.at({peer, lane});
}

void Job::close(int rank) { ranks_[static_cast<std::size_t>(rank)].endpoints.clear(); }

bool Job::progress() {
  bool moved = false;
  for (auto& rank : ranks_) moved |= rank.transport->progress();
  return moved;
}

bool Job::drive(const std::function<bool()>& done) {
  const auto deadline = Deadline::after(Seconds(30));
  while (!done()) {
    if (!progress()) ranks_[0].transport->wait(Seconds(0));
    if (!deadline.passed()) continue;
    ADD_FAILURE() << "not done within 30 s";
    for (auto& rank : ranks_) {
      for (auto& [key, endpoint] : rank.endpoints) {
        if (const Error* failure = endpoint->failure()) ADD_FAILURE() << failure->message;
      }
    }
    return false;
  }
  return true;
}

Memory::Memory(Transport& transport, Kind kind, std::size_t bytes) : size_(bytes) {
  if (kind == Kind::plain) own_.resize(std::max<std::size_t>(bytes, 1));
  auto made = kind == Kind::plain ? transport.register_memory({own_.data(), bytes}) : transport.allocate(bytes);
  if (!made) ADD_FAILURE() << made.error().message;
  region_ = std::move(made).value();
}

}  // namespace gradrail::testing

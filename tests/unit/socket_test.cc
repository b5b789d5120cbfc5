// Sockets with deadlines, and the handshake against everything a stranger may do.
#include "transports/socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <thread>

#include "tests/soon.h"
#include "transports/handshake.h"

namespace gradrail {
namespace {

using testing::HasSubstr;

Deadline at_once() { return Deadline::after(Seconds(0.02)); }

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span(text)); }
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

struct Pair {
  Fd a, b;
  Pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    a = Fd(fds[0]);
    b = Fd(fds[1]);
  }
};

Secret some_secret() { return Secret::from_text("a secret that is long enough").value(); }
Secret other_secret() { return Secret::from_text("another one, just as long").value(); }

TEST(Socket, KnowsTheLoopbackDevice) {
  const auto listener = listen_tcp("127.0.0.1", 0);
  const auto everywhere = listen_tcp("0.0.0.0", 0);
  ASSERT_TRUE(listener && everywhere);
  EXPECT_TRUE(on_loopback(listener->get()));
  EXPECT_FALSE(on_loopback(everywhere->get()));
  EXPECT_FALSE(on_loopback(Pair().a.get()));
}

TEST(Socket, ConnectsAndCarriesFrames) {
  auto listener = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(listener) << listener.error().message;
  const int port = local_port(listener->get()).value();
  EXPECT_GT(port, 0);
  EXPECT_EQ(local_host(listener->get()).value(), "127.0.0.1");
  auto client = connect_tcp("127.0.0.1", port, soon(), OnRefused::fail);
  ASSERT_TRUE(client) << client.error().message;
  auto server = accept_connection(listener->get(), soon());
  ASSERT_TRUE(server) << server.error().message;

  const std::string large(3 << 20, 'x');  // more than one growth step, more than the socket's buffers
  std::thread sender([&] {
    EXPECT_TRUE(send_frame(client->get(), bytes_of("hello"), soon()));
    EXPECT_TRUE(send_frame(client->get(), {}, soon()));
    EXPECT_TRUE(send_frame(client->get(), bytes_of(large), soon()));
  });
  EXPECT_EQ(text_of(receive_frame(server->get(), 5, soon()).value()), "hello");
  EXPECT_EQ(text_of(receive_frame(server->get(), 0, soon()).value()), "");
  EXPECT_EQ(text_of(receive_frame(server->get(), large.size(), soon()).value()), large);
  sender.join();
  client->reset();
  const auto end = receive_frame(server->get(), 5, soon());
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, Code::peer_gone);
}

TEST(Socket, NamesAPortInUse) {
  auto first = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(first);
  const int port = local_port(first->get()).value();
  const auto second = listen_tcp("127.0.0.1", port);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Code::unavailable);
  EXPECT_THAT(second.error().message, HasSubstr("port " + std::to_string(port) + " on 127.0.0.1 is in use"));
}

TEST(Socket, RefusesWhatIsNoAddress) {
  EXPECT_EQ(listen_tcp("127.0.0.1", 65536).error().code, Code::bad_usage);
  EXPECT_EQ(listen_tcp("127.0.0.1", -1).error().code, Code::bad_usage);
  EXPECT_EQ(listen_tcp("no such host!", 0).error().code, Code::bad_usage);
  EXPECT_EQ(listen_tcp("192.0.2.1", 0).error().code, Code::unavailable);  // an address of documentation: RFC 5737
}

TEST(Socket, ConnectingRetriesOnlyWhenAsked) {
  auto taken = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(taken);
  const int port = local_port(taken->get()).value();
  taken->reset();
  EXPECT_EQ(connect_tcp("127.0.0.1", port, soon(), OnRefused::fail).error().code, Code::refused);
  EXPECT_EQ(connect_tcp("127.0.0.1", port, at_once(), OnRefused::retry).error().code, Code::timed_out);

  Result<Fd> late = fail(Code::system, "not yet");
  std::thread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    late = listen_tcp("127.0.0.1", port);
  });
  EXPECT_TRUE(connect_tcp("127.0.0.1", port, soon(), OnRefused::retry));
  opener.join();
}

TEST(Socket, EveryWaitEnds) {
  auto listener = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(listener);
  EXPECT_EQ(accept_connection(listener->get(), at_once()).error().code, Code::timed_out);
  Pair pair;
  EXPECT_EQ(receive_frame(pair.a.get(), 100, at_once()).error().code, Code::timed_out);
  const Bytes much(8 << 20);
  EXPECT_EQ(send_all(pair.a.get(), much, at_once()).error().code, Code::timed_out);
}

TEST(Socket, RefusesHugeFramesBeforeTheirBytesCome) {
  Pair pair;
  const std::uint32_t claim = 0xffffffff;
  ASSERT_TRUE(send_all(pair.a.get(), std::as_bytes(std::span(&claim, 1)), soon()));
  const auto refused = receive_frame(pair.b.get(), 1000, soon());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::malformed);
  EXPECT_THAT(refused.error().message, HasSubstr("4294967295"));
}

TEST(Socket, SendingToAClosedEndIsAnErrorNotASignal) {
  Pair pair;
  pair.b.reset();
  EXPECT_EQ(send_all(pair.a.get(), bytes_of("x"), soon()).error().code, Code::peer_gone);
}

struct Proven {
  Result<void> client, server;
};

Proven prove_both(const Secret& client, const Secret& server, std::string_view client_purpose,
                  std::string_view server_purpose) {
  Pair pair;
  Proven out;
  std::thread thread([&] {
    out.server = prove(pair.b.get(), server, Role::server, server_purpose, soon());
    pair.b.reset();
  });
  out.client = prove(pair.a.get(), client, Role::client, client_purpose, soon());
  thread.join();
  return out;
}

TEST(Proof, HoldsForTheSameSecretAndPurposeOnly) {
  const auto same = prove_both(some_secret(), some_secret(), "test", "test");
  EXPECT_TRUE(same.client && same.server);
  for (const auto& wrong : {prove_both(some_secret(), other_secret(), "test", "test"),
                            prove_both(some_secret(), some_secret(), "test", "text")}) {
    ASSERT_FALSE(wrong.client || wrong.server);
    EXPECT_EQ(wrong.client.error().code, Code::refused);
    EXPECT_EQ(wrong.server.error().code, Code::refused);
    EXPECT_THAT(wrong.client.error().message, HasSubstr("secret"));
  }
}

TEST(Proof, ServersAreNotBelievedEither) {
  Pair pair;
  std::thread impostor([&] {  // answers the greeting, and the client's digest with the client's own
    std::array<std::byte, 24> greeting;
    std::array<std::byte, 32> digest;
    EXPECT_TRUE(receive_all(pair.b.get(), greeting, soon()));
    EXPECT_TRUE(send_all(pair.b.get(), greeting, soon()));
    EXPECT_TRUE(receive_all(pair.b.get(), digest, soon()));
    EXPECT_TRUE(send_all(pair.b.get(), digest, soon()));
  });
  const auto refused = prove(pair.a.get(), some_secret(), Role::client, "test", soon());
  impostor.join();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Code::refused);
}

TEST(Proof, EndsForOneWhoSitsThere) {
  Pair pair;
  EXPECT_EQ(prove(pair.a.get(), some_secret(), Role::client, "test", at_once()).error().code, Code::timed_out);
  EXPECT_EQ(prove(pair.b.get(), some_secret(), Role::server, "test", at_once()).error().code, Code::timed_out);
}

TEST(Proof, LeavesWhatFollowsInTheSocket) {
  Pair pair;
  std::thread thread([&] {
    EXPECT_TRUE(prove(pair.b.get(), some_secret(), Role::server, "test", soon()));
    EXPECT_TRUE(send_frame(pair.b.get(), bytes_of("next"), soon()));
  });
  EXPECT_TRUE(prove(pair.a.get(), some_secret(), Role::client, "test", soon()));
  EXPECT_EQ(text_of(receive_frame(pair.a.get(), 10, soon()).value()), "next");
  thread.join();
}

class Door : public testing::Test {
 protected:
  Acceptor acceptor(Acceptor::Options options) {
    options.purpose = "test";
    auto listener = listen_tcp("127.0.0.1", 0);
    EXPECT_TRUE(listener);
    port_ = local_port(listener->get()).value();
    return Acceptor::make(std::move(*listener), some_secret(), std::move(options)).value();
  }
  Fd stranger(std::string_view says = {}) {
    auto fd = connect_tcp("127.0.0.1", port_, soon(), OnRefused::fail);
    EXPECT_TRUE(fd) << fd.error().message;
    EXPECT_TRUE(send_all(fd->get(), bytes_of(says), soon()));
    return std::move(*fd);
  }
  // A real peer says `hello` and comes in within the deadline, whatever else is going on.
  void expect_served(Acceptor& door, std::string_view hello) {
    Result<Fd> peer = fail(Code::system, "not yet");
    std::thread thread([&] { peer = dial("127.0.0.1", port_, some_secret(), "test", bytes_of(hello), soon()); });
    const auto accepted = door.accept(soon());
    thread.join();
    ASSERT_TRUE(accepted) << accepted.error().message;
    EXPECT_EQ(text_of(accepted->hello), hello);
    ASSERT_TRUE(peer) << peer.error().message;
    EXPECT_TRUE(send_frame(peer->get(), bytes_of("after"), soon()));
    EXPECT_EQ(text_of(receive_frame(accepted->fd.get(), 10, soon()).value()), "after");
  }
  void expect_drops(Acceptor& door, std::size_t count) {
    const auto until = soon();
    while (door.dropped() < count && !until.passed()) EXPECT_FALSE(door.accept(at_once()));
    EXPECT_EQ(door.dropped(), count);
  }
  int port_ = 0;
};

TEST_F(Door, ServesPeersAndHasNoSizeZeroTrouble) {
  auto door = acceptor({});
  expect_served(door, "rank 3");
  expect_served(door, "");
  EXPECT_EQ(door.dropped(), 0u);
  EXPECT_EQ(door.pending(), 0u);
}

TEST_F(Door, SilentOnesDelayNobodyAndAreDroppedInTime) {
  auto door = acceptor({.purpose = "", .time_limit = Seconds(0.5)});
  std::vector<Fd> strangers;
  for (int i = 0; i < 20; ++i) strangers.push_back(stranger());
  expect_served(door, "me");
  expect_drops(door, strangers.size());
  EXPECT_EQ(door.dropped(), strangers.size());
  EXPECT_EQ(door.pending(), 0u);
}

TEST_F(Door, AboveTheCapTheOldestSilentOneGoes) {
  auto door = acceptor({.purpose = "", .most_pending = 8});
  const auto polite = stranger("grdrail1................");  // said something: stays
  EXPECT_FALSE(door.accept(at_once()));
  std::vector<Fd> strangers;
  for (int i = 0; i < 200; ++i) strangers.push_back(stranger());
  expect_drops(door, 193);
  EXPECT_EQ(door.pending(), 8u);
  std::array<std::byte, 24> greeting;
  EXPECT_TRUE(receive_all(polite.get(), greeting, soon()));
  pollfd still_open{polite.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&still_open, 1, 0), 0);
  expect_served(door, "me");
}

TEST_F(Door, GarbageIsDroppedAtOnce) {
  auto door = acceptor({});
  const auto web = stranger("GET / HTTP/1.1\r\nHost: rank0\r\n\r\n");
  const auto noise = stranger(std::string(100000, '\xff'));
  stranger("grdra");  // gone in the middle of its greeting
  expect_served(door, "me");
  expect_drops(door, 3);
  EXPECT_EQ(door.pending(), 0u);
}

TEST_F(Door, AWrongSecretIsDroppedAndTold) {
  auto door = acceptor({});
  Result<Fd> peer = fail(Code::system, "not yet");
  std::thread thread([&] { peer = dial("127.0.0.1", port_, other_secret(), "test", bytes_of("rank 1"), soon()); });
  while (door.dropped() == 0) EXPECT_FALSE(door.accept(at_once()));
  thread.join();
  ASSERT_FALSE(peer);
  EXPECT_EQ(peer.error().code, Code::refused);
  EXPECT_THAT(peer.error().message, HasSubstr("port " + std::to_string(port_)));
  expect_served(door, "me");
}

TEST_F(Door, HugeHellosAreDroppedEvenOfThoseWhoKnowTheSecret) {
  auto door = acceptor({.purpose = "", .most_hello_bytes = 16});
  Result<Fd> peer = fail(Code::system, "not yet");
  std::thread thread(
      [&] { peer = dial("127.0.0.1", port_, some_secret(), "test", bytes_of(std::string(17, 'x')), soon()); });
  while (door.dropped() == 0) EXPECT_FALSE(door.accept(at_once()));
  thread.join();
  expect_served(door, std::string(16, 'x'));
}

TEST_F(Door, ADialTriesAgainWhenItWasDroppedUnheard) {
  auto listener = listen_tcp("127.0.0.1", 0);
  ASSERT_TRUE(listener);
  port_ = local_port(listener->get()).value();
  Result<Fd> peer = fail(Code::system, "not yet");
  std::thread thread([&] { peer = dial("127.0.0.1", port_, some_secret(), "test", bytes_of("me"), soon()); });
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(accept_connection(listener->get(), soon()));  // and closes it unheard
  auto door = Acceptor::make(std::move(*listener), some_secret(), {.purpose = "test"});
  ASSERT_TRUE(door);
  const auto accepted = door->accept(soon());
  thread.join();
  ASSERT_TRUE(accepted) << accepted.error().message;
  EXPECT_EQ(text_of(accepted->hello), "me");
  EXPECT_TRUE(peer) << peer.error().message;
}

}  // namespace
}  // namespace gradrail

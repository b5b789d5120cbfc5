#include "transports/shm/lifeline.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace gradrail::shm {

Result<bool> send_note(int socket, const Note& note, int pass_fd) {
  Note copy = note;
  iovec part{&copy, sizeof copy};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (pass_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(head), &pass_fd, sizeof pass_fd);
  }
  for (;;) {
    const auto sent = ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == sizeof note) return true;
    if (sent < 0 && errno == EINTR) continue;
    // ETOOMANYREFS: too many descriptors in flight, which ends when the peer reads.
    if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS)) return false;
    return fail(Code::peer_gone, "the connection ended", Error::k_no_peer, sent < 0 ? errno : 0);
  }
}

Result<std::optional<ReceivedNote>> receive_note(int socket) {
  ReceivedNote received;
  iovec part{&received.note, sizeof received.note};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do got = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
  if (got <= 0) return fail(Code::peer_gone, "the connection ended", Error::k_no_peer, got < 0 ? errno : 0);
  if (const cmsghdr* head = CMSG_FIRSTHDR(&message);
      head != nullptr && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
    int fd = -1;
    std::memcpy(&fd, CMSG_DATA(head), sizeof fd);
    received.fd = Fd(fd);
  }
  if (got != sizeof received.note) return fail(Code::malformed, "a note of another size came over the connection");
  return received;
}

}  // namespace gradrail::shm

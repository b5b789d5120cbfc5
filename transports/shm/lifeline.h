// The unix socket that stays open as long as a pipe does. Its end says that the peer died or closed; until then it
// carries short notes, some with a memfd: the pipe itself, regions when they are first used, regions that are no more.
// Notes are of one size and sent whole or not at all; nothing here blocks. Owned by the endpoint, used by its thread.
#pragma once

#include <cstdint>
#include <optional>

#include "transports/base/fd.h"
#include "transports/base/result.h"

namespace gradrail::shm {

enum class NoteKind : std::uint32_t { pipe = 1, ready, attach, region, forget, board };

struct Note {
  NoteKind kind = NoteKind::ready;
  std::uint32_t region =
      0;                    // region, forget: its number; ready, attach: 1 if the sender can read the receiver's memory
  std::uint64_t bytes = 0;  // region, pipe, board: size of the memory that comes along
  std::uint64_t token = 0;  // pipe, ready: the sender's transport, as in its address
  std::int64_t pid = 0;     // pipe, ready
  std::uint64_t probe = 0;  // pipe, ready: where the token lies in the sender's memory, 0 if it is not to be read
};
static_assert(sizeof(Note) == 40);

struct ReceivedNote {
  Note note;
  Fd fd;
};

// False if the socket is full: nothing was sent. Errors: peer_gone.
[[nodiscard]] Result<bool> send_note(int socket, const Note& note, int pass_fd = -1);
// Empty if none is there. Errors: peer_gone at the end of the connection; malformed.
[[nodiscard]] Result<std::optional<ReceivedNote>> receive_note(int socket);

}  // namespace gradrail::shm

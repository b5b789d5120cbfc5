#include "transports/base/lifetimes.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

namespace gradrail {

AddressRange pages_around(AddressRange range) {
  static const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  return {range.begin / page * page, (range.end + page - 1) / page * page};
}

bool Lifetimes::Gone::touches(const AddressRange& range) const {
  return all || std::any_of(ranges.begin(), ranges.begin() + static_cast<std::ptrdiff_t>(count),
                            [&](const AddressRange& one) { return one.overlaps(range); });
}

Result<std::unique_ptr<Lifetimes>> Lifetimes::start() {
  const auto no = [](std::string_view what) {
    const int error = errno;
    auto failure = fail_errno(fmt::format("the kernel does not tell when memory is given back ({})", what), error);
    failure.value().code = Code::unavailable;
    return failure;
  };
  Fd faults(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY)));
  if (!faults) return no("userfaultfd");
  uffdio_api wish{};
  wish.api = UFFD_API;
  wish.features = UFFD_FEATURE_EVENT_UNMAP | UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_REMAP;
  if (::ioctl(faults.get(), UFFDIO_API, &wish) != 0) return no("userfaultfd's events");
  Fd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) return no("eventfd");
  std::unique_ptr<Lifetimes> self(new Lifetimes(std::move(faults), std::move(stop)));
  // Signals are for the program's own threads.
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  self->thread_ = std::thread([&one = *self] { one.listen(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return self;
}

Lifetimes::~Lifetimes() {
  const std::uint64_t one = 1;
  if (::write(stop_.get(), &one, sizeof one) == sizeof one) thread_.join();
}

void Lifetimes::listen() {
  pollfd wait[2] = {{faults_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
  for (;;) {
    if (::poll(wait, 2, -1) < 0 && errno != EINTR) return;
    if (wait[1].revents != 0) return;
    const std::lock_guard lock(mutex_);
    uffd_msg message;
    while (::read(faults_.get(), &message, sizeof message) == sizeof message) {
      if (message.event == UFFD_EVENT_REMAP)
        note({message.arg.remap.from, message.arg.remap.from + message.arg.remap.len});
      else if (message.event == UFFD_EVENT_UNMAP || message.event == UFFD_EVENT_REMOVE)
        note({message.arg.remove.start, message.arg.remove.end});
    }
  }
}

void Lifetimes::note(AddressRange range) {
  if (gone_.count == Gone::k_most)
    gone_.all = true;
  else
    gone_.ranges[gone_.count++] = range;
}

bool Lifetimes::watch(AddressRange range) {
  const auto pages = pages_around(range);
  uffdio_register wish{};
  wish.range = {pages.begin, pages.end - pages.begin};
  wish.mode = UFFDIO_REGISTER_MODE_WP;
  return ::ioctl(faults_.get(), UFFDIO_REGISTER, &wish) == 0;
}

void Lifetimes::unwatch(AddressRange range) {
  const auto pages = pages_around(range);
  uffdio_range wish{pages.begin, pages.end - pages.begin};
  static_cast<void>(::ioctl(faults_.get(), UFFDIO_UNREGISTER, &wish));  // what is not mapped is not watched either
}

bool Lifetimes::take_gone(Gone& gone) {
  const std::lock_guard lock(mutex_);
  if (gone_.count == 0) return false;
  std::copy_n(gone_.ranges.begin(), gone_.count, gone.ranges.begin());
  gone.count = gone_.count;
  gone.all = gone_.all;
  gone_.count = 0;
  gone_.all = false;
  return true;
}

}  // namespace gradrail

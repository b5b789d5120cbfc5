#include "transports/base/check.h"

#include <cstdio>
#include <cstdlib>

namespace gradrail {

void check_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "gradrail: internal error: %s does not hold at %s:%d; please report this\n", expression, file,
               line);
  std::abort();
}

}  // namespace gradrail

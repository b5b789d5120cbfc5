// Which instruction sets the kernels are compiled for; include before any header of Highway. Every set costs build
// time, so those that hardly any machine has as its best are left out.
#pragma once

// CPUs with SSSE3 and without SSE4.1 were sold for about a year.
#define HWY_DISABLED_TARGETS HWY_SSSE3
// The portable fallback, for CPUs with none of the others. Highway avoids it with GCC before 12.3, which may miscompile
// products' high halves (GCC bug 106322). The kernels take none, and the tests run all of them on this target too.
#define HWY_BROKEN_EMU128 0

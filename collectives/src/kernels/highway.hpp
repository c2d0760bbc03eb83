#pragma once

// Every kernel unit includes this before Highway. The scalar forms are compiled, too: they are the reference that the
// tests hold all other instruction sets against. Vectors of unknown size cannot be kept in arrays, so those
// instruction sets fall back to a fixed-size one.
#define HWY_COMPILE_ALL_ATTAINABLE
// One instruction set per vector width is enough for these kernels: those between give no speed that can be measured,
// and each costs half a minute of compilation.
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

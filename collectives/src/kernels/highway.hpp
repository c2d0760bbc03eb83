#pragma once

// Every kernel unit includes this before Highway. The scalar forms are compiled, too: they are the reference that the
// tests hold all other instruction sets against. Left out are vectors of unknown size, which cannot be kept in arrays,
// and sets that add nothing here over the next smaller one: each costs seconds of compile time per unit.
#define HWY_COMPILE_ALL_ATTAINABLE
#define HWY_DISABLED_TARGETS (HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV | HWY_SSE4 | HWY_AVX3_DL)

// The largest of some numbers, and where it is.
#pragma once
#include "common.h"

struct Best {
  float value;
  unsigned index;
};

// The larger, of equals the first; what is not a number is never larger.
__device__ __forceinline__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

// The best of a warp's, in every lane.
__device__ __forceinline__ Best warp_best(Best mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    Best other;
    other.value = __shfl_xor_sync(ALL_LANES, mine.value, step);
    other.index = __shfl_xor_sync(ALL_LANES, mine.index, step);
    mine = better(mine, other);
  }
  return mine;
}

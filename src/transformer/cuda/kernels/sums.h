// Sums of several values over the lanes of a warp at once.
#pragma once
#include "common.h"

// Adds up N values over LANES lanes, dividing the values among the lanes on the way: N - 1 shuffles instead of N log LANES.
// A lane ends with HELD sums in values[0 ..], those from index(lane) on.
template <int N, int LANES>
struct Sums {
  static constexpr int HELD = N > LANES ? N / LANES : 1;
  __device__ __forceinline__ static void add_up(float (&values)[N]) {
    int count = N;
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) {
      if (count == 1) {
        values[0] += __shfl_xor_sync(ALL_LANES, values[0], step);
        continue;
      }
      count /= 2;
      const bool upper = threadIdx.x & step;
#pragma unroll
      for (int i = 0; i < N / 2; i++) {
        if (i >= count) break;
        const float given = upper ? values[i] : values[i + count];
        const float kept = upper ? values[i + count] : values[i];
        values[i] = kept + __shfl_xor_sync(ALL_LANES, given, step);
      }
    }
  }
  // Lanes that hold the same sums: one of them writes.
  static constexpr int SAME = N < LANES ? LANES / N : 1;
  __device__ __forceinline__ static int index(int lane) { return lane / SAME * HELD; }
};

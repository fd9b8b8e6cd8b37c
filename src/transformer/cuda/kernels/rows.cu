// Rows picked out of a matrix, and the largest of each row. last_rows moves 2 * batch * c numbers; argmax reads n * v.
#include "common.h"

// Row b of out [batch, c] is row b * tokens + tokens - 1 of x.
template <int N>
__device__ __forceinline__ void copy_last(const real* x, real* out, int batch, int tokens, int c) {
  over_rows<N>(batch, c, [&](int b, int i) {
    float row[N];
    load(x + (i64(b) * tokens + tokens - 1) * c + i, row);
    store(out + i64(b) * c + i, row);
  });
}

KERNEL last_rows(const real* x, real* out, int batch, int tokens, int c) {
  if (c % WIDTH == 0 && aligned(x) && aligned(out)) copy_last<WIDTH>(x, out, batch, tokens, c);
  else copy_last<1>(x, out, batch, tokens, c);
}

struct Best {
  float value;
  unsigned index;
};

__device__ __forceinline__ Best better(Best a, Best b) {
  return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
}

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

// out[r] = the index of the largest number of row r of x [n, v], the first of equals. A block a row.
KERNEL argmax(const real* x, unsigned* out, int n, int v) {
  __shared__ Best parts[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int r = blockIdx.x; r < n; r += gridDim.x) {
    const real* row = x + i64(r) * v;
    Best mine = {-INFINITE, unsigned(v) - 1};
    const int vectors = aligned(row) ? v / WIDTH : 0;
    for (int i = threadIdx.x; i < vectors; i += blockDim.x) {
      float numbers[WIDTH];
      load(row + i64(i) * WIDTH, numbers);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) mine = better(mine, {numbers[j], unsigned(i * WIDTH + j)});
    }
    for (int i = vectors * WIDTH + threadIdx.x; i < v; i += blockDim.x) mine = better(mine, {to_float(row[i]), unsigned(i)});
    mine = warp_best(mine);
    if (lane == 0) parts[warp] = mine;
    __syncthreads();
    if (warp == 0) {
      mine = warp_best(lane < blockDim.x / 32 ? parts[lane] : Best{-INFINITE, unsigned(v) - 1});
      if (lane == 0) out[r] = mine.index;
    }
    __syncthreads();
  }
}

EXPORT(last_rows)
EXPORT(argmax)

// Rows picked out of a matrix, and the largest of each row. last_rows moves 2 * batch * c elements; argmax reads n * v.
//
// One multiprocessor takes at most 64 bytes a clock from the L2 cache: 128,256 logits in bf16, one row, are 4000 clocks of
// it, 2.2 us at 1.8 GHz. Shared among 32 blocks it is under a tenth of that, and what a launch takes is left.
#include "best.h"

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

// The best of a block's threads, for thread 0.
__device__ __forceinline__ Best block_best(Best mine) {
  __shared__ Best parts[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  __syncthreads();  // an earlier call may still be reading
  mine = warp_best(mine);
  if (lane == 0) parts[warp] = mine;
  __syncthreads();
  return warp_best(lane < blockDim.x / 32 ? parts[lane] : parts[0]);
}

// out[r] = the index of the largest number of row r of x [n, v], the first of equals. Grid: (parts, n or fewer). Each block
// has a part of a row; the last one of a row that is done goes through their results, which stand in `values` and `indices`
// [n, parts]. `finished` [n] is zero before and after. What equals leave open is settled by the index, not by who comes first.
KERNEL argmax(const real* x, float* values, unsigned* indices, unsigned* finished, unsigned* out, int n, int v) {
  __shared__ bool is_last;
  const unsigned parts = gridDim.x;
  // Whole vectors, so that a part of an aligned row is aligned.
  const int share = (v / WIDTH + int(parts)) / int(parts) * WIDTH;
  const int begin = min(v, int(blockIdx.x) * share), end = min(v, begin + share);
  for (int r = blockIdx.y; r < n; r += gridDim.y) {
    const real* row = x + i64(r) * v;
    Best mine = {-INFINITE, unsigned(v) - 1};
    const int wide = aligned(row) ? begin + (end - begin) / WIDTH * WIDTH : begin;
    for (int i = begin + int(threadIdx.x) * WIDTH; i < wide; i += int(blockDim.x) * WIDTH) {
      float elements[WIDTH];
      load(row + i, elements);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) mine = better(mine, {elements[j], unsigned(i + j)});
    }
    for (int i = wide + int(threadIdx.x); i < end; i += int(blockDim.x)) mine = better(mine, {to_float(row[i]), unsigned(i)});
    mine = block_best(mine);
    if (threadIdx.x == 0) {
      const i64 at = i64(r) * parts + blockIdx.x;
      __stcg(&values[at], mine.value);
      __stcg(&indices[at], mine.index);
      // Before it is counted, the result is there for whoever comes last.
      __threadfence();
      is_last = atomicAdd(&finished[r], 1u) == parts - 1;
    }
    __syncthreads();
    if (is_last) {
      if (threadIdx.x == 0) finished[r] = 0;
      __threadfence();
      mine = {-INFINITE, unsigned(v) - 1};
      for (unsigned i = threadIdx.x; i < parts; i += blockDim.x) {
        const i64 at = i64(r) * parts + i;
        mine = better(mine, {__ldcg(&values[at]), __ldcg(&indices[at])});
      }
      mine = block_best(mine);
      if (threadIdx.x == 0) out[r] = mine.index;
    }
  }
}

EXPORT(last_rows)
EXPORT(argmax)

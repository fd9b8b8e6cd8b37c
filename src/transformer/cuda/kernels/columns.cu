// Sums over the rows of a matrix: gradients of biases. x [n, m] is read once (2 n m bytes with bf16), a few rows of f32 are
// written and read again, n m additions: bound by memory.
//
// A block takes a tile of columns, 16 bytes a lane, and a share of the rows; its warps take every eighth row and add up in
// shared memory. Partial sums of the blocks are added by a second kernel, in their order.
#include "common.h"

constexpr int WARPS = 8;

// partial [gridDim.y, m]: row y holds the sums over rows [y * rows_per_block, (y + 1) * rows_per_block) of x.
template <int N>
__device__ __forceinline__ void sum_tile(const real* x, float* partial, int n, int m, int rows_per_block) {
  __shared__ float parts[WARPS][32 * WIDTH + 1];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const i64 tile = i64(blockIdx.x) * 32 * N, column = tile + lane * N;
  const i64 first = i64(blockIdx.y) * rows_per_block;
  const i64 end = min(first + rows_per_block, i64(n));
  float sum[N] = {};
  if (column < m) {
#pragma unroll 4
    for (i64 r = first + warp; r < end; r += WARPS) {
      float v[N];
      load(x + r * m + column, v);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += v[j];
    }
  }
#pragma unroll
  for (int j = 0; j < N; j++) parts[warp][lane * N + j] = sum[j];
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * N && tile + i < m; i += blockDim.x) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += parts[w][i];
    partial[i64(blockIdx.y) * m + tile + i] = total;
  }
}

// Threads: 256. Grid: tiles of 32 * WIDTH columns (32 where m is no multiple of WIDTH, which `wide` tells), shares of rows.
KERNEL column_sums(const real* x, float* partial, int n, int m, int rows_per_block, int wide) {
  if (wide) sum_tile<WIDTH>(x, partial, n, m, rows_per_block);
  else sum_tile<1>(x, partial, n, m, rows_per_block);
}

// out [m] = the sum of the `blocks` rows of partial. Threads: 1024. Grid: m / 32.
KERNEL sum_partials(const float* partial, float* out, int blocks, int m) {
  const i64 first = i64(blockIdx.x) * 32;
  const float sum = sum_of_columns(partial, blocks, m, first, [&](int r) { return r * i64(m); });
  if (threadIdx.x < 32 && first + threadIdx.x < m) out[first + threadIdx.x] = sum;
}

EXPORT(column_sums)
EXPORT(sum_partials)

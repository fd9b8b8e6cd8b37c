// Products of groups of rows in f32 arithmetic, whatever the format, the shape and the device; grouped_mma.cu is the fast path.
//
// A block has a tile of 64 x 64 results, a thread 4 x 4 of them; factors pass through shared memory 16 of the inner dimension at a
// time: 16 multiply-adds for 8 numbers read from shared memory.
#include "grouped.h"

constexpr int TILE = 64, DEEP = 16, EACH = 4;

// A thread's part of a tile.
struct Sums {
  float of[EACH][EACH] = {};

  __device__ __forceinline__ static int row() { return threadIdx.x / (TILE / EACH) * EACH; }
  __device__ __forceinline__ static int column() { return threadIdx.x % (TILE / EACH) * EACH; }
};

// Copies a(i, j) for i < TILE, j < DEEP into shared memory, neighbouring threads at neighbours of what lies together.
template <bool ALONG_TILE, class Of>
__device__ __forceinline__ void stage(float (&to)[DEEP][TILE + EACH], Of a) {
#pragma unroll
  for (int n = threadIdx.x; n < TILE * DEEP; n += 256) {
    const int i = ALONG_TILE ? n % TILE : n / DEEP, j = ALONG_TILE ? n / TILE : n % DEEP;
    to[j][i] = a(i, j);
  }
}

// sums += a b^T over `inner`, a(i, j) and b(i, j) being row i of the tile at place j of the inner dimension, both zero outside. What
// lies together in memory is the tile's side (A_SIDE, B_SIDE) or the inner dimension.
template <bool A_SIDE, bool B_SIDE, class A, class B>
__device__ __forceinline__ void multiply(Sums& sums, int inner, A a, B b) {
  __shared__ float left[DEEP][TILE + EACH], right[DEEP][TILE + EACH];
  for (int from = 0; from < inner; from += DEEP) {
    stage<A_SIDE>(left, [&](int i, int j) { return from + j < inner ? a(i, from + j) : 0.0f; });
    stage<B_SIDE>(right, [&](int i, int j) { return from + j < inner ? b(i, from + j) : 0.0f; });
    __syncthreads();
#pragma unroll
    for (int j = 0; j < DEEP; j++) {
#pragma unroll
      for (int r = 0; r < EACH; r++) {
#pragma unroll
        for (int c = 0; c < EACH; c++) sums.of[r][c] += left[j][Sums::row() + r] * right[j][Sums::column() + c];
      }
    }
    __syncthreads();
  }
}

// Calls f(row, column, sum) for a thread's results inside `rows` x `columns`.
template <class F>
__device__ __forceinline__ void each_result(const Sums& sums, int rows, int columns, F f) {
#pragma unroll
  for (int r = 0; r < EACH; r++) {
#pragma unroll
    for (int c = 0; c < EACH; c++) {
      if (Sums::row() + r < rows && Sums::column() + c < columns) f(Sums::row() + r, Sums::column() + c, sums.of[r][c]);
    }
  }
}

// out [rows, m] = x w[e]^T + bias[e], x being each row's, or, with `tokens`, its token's. Grid: stretch_of_block; 256 threads.
KERNEL grouped_linear(const real* x, const int* tokens, const real* w, const real* bias, real* out, const int* starts, const int2* tiles,
                      int most, int k, int m) {
  const Stretch s = stretch_of_block<TILE, TILE>(starts, tiles, most, m);
  if (s.expert < 0) return;
  const real* own = w + i64(s.expert) * m * k;
  Sums sums;
  multiply<false, false>(
      sums, k,
      [&](int i, int j) { return i < s.count ? to_float(x[i64(tokens ? tokens[s.first + i] : s.first + i) * k + j]) : 0.0f; },
      [&](int i, int j) { return s.column + i < m ? to_float(own[i64(s.column + i) * k + j]) : 0.0f; });
  each_result(sums, s.count, m - s.column, [&](int row, int column, float sum) {
    if (bias) sum += to_float(bias[i64(s.expert) * m + s.column + column]);
    out[i64(s.first + row) * m + s.column + column] = from_float<real>(sum);
  });
}

// dx [rows, k] = dout w[e], dout being each row's, or, with `tokens`, its token's. Grid: stretch_of_block; 256 threads.
KERNEL grouped_input(const real* dout, const int* tokens, const real* w, real* dx, const int* starts, const int2* tiles, int most, int k,
                     int m) {
  const Stretch s = stretch_of_block<TILE, TILE>(starts, tiles, most, k);
  if (s.expert < 0) return;
  const real* own = w + i64(s.expert) * m * k;
  Sums sums;
  multiply<false, true>(
      sums, m,
      [&](int i, int j) { return i < s.count ? to_float(dout[i64(tokens ? tokens[s.first + i] : s.first + i) * m + j]) : 0.0f; },
      [&](int i, int j) { return s.column + i < k ? to_float(own[i64(j) * k + s.column + i]) : 0.0f; });
  each_result(sums, s.count, k - s.column, [&](int row, int column, float sum) {
    dx[i64(s.first + row) * k + s.column + column] = from_float<real>(sum);
  });
}

// dw [E, m, k] = dout^T x over each expert's rows, zero where it has none; dout and x are each row's, or, with `of_dout` or `of_x`, its
// token's. Grid: (tiles of k, tiles of m, E); 256 threads.
KERNEL grouped_weight(const real* dout, const int* of_dout, const real* x, const int* of_x, float* dw, const int* starts, int k, int m) {
  let_next_begin();
  wait_for_before();
  const int first = starts[blockIdx.z], count = starts[blockIdx.z + 1] - first;
  const int column = int(blockIdx.x) * TILE, row = int(blockIdx.y) * TILE;
  Sums sums;
  multiply<true, true>(
      sums, count,
      [&](int i, int j) { return row + i < m ? to_float(dout[i64(of_dout ? of_dout[first + j] : first + j) * m + row + i]) : 0.0f; },
      [&](int i, int j) { return column + i < k ? to_float(x[i64(of_x ? of_x[first + j] : first + j) * k + column + i]) : 0.0f; });
  float* to = dw + (i64(blockIdx.z) * m + row) * k + column;
  each_result(sums, m - row, k - column, [&](int r, int c, float sum) { to[i64(r) * k + c] = sum; });
}

EXPORT(grouped_linear)
EXPORT(grouped_input)
EXPORT(grouped_weight)

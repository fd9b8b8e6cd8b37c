// What attention through latents moves about: blocks of heads from one layout to another, and the cache [B, capacity, R + P] of latents
// and rotated keys, a row a position.
//
// Bytes: each element read and written once; no FLOPs but the sums over heads.
#include "common.h"

// Where equal blocks lie: how far apart those of neighbouring rows and heads are.
struct Layout {
  i64 row, head;
};

template <bool WIDE>
__device__ __forceinline__ void copy_each(const real* from, real* to, int n, int heads, int len, Layout of, Layout as) {
  constexpr int N = WIDE ? WIDTH : 1;
  const int pieces = len / N;
  const i64 all = i64(n) * heads * pieces, step = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const int column = int(i % pieces) * N, head = int(i / pieces % heads);
    const i64 row = i / pieces / heads;
    const real* source = from + row * of.row + head * of.head + column;
    real* place = to + row * as.row + head * as.head + column;
    if constexpr (WIDE) *reinterpret_cast<uint4*>(place) = *reinterpret_cast<const uint4*>(source);
    else *place = *source;
  }
}

template <int N>
__device__ __forceinline__ void sum_each(const real* from, real* to, int n, int heads, int len, Layout of, Layout as) {
  const int pieces = len / N;
  const i64 all = i64(n) * pieces, step = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const int column = int(i % pieces) * N;
    const i64 row = i / pieces;
    float sum[N] = {};
#pragma unroll 4
    for (int head = 0; head < heads; head++) {
      float x[N];
      load(from + row * of.row + head * of.head + column, x);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += x[j];
    }
    store(to + row * as.row + column, sum);
  }
}

// A block of `len` elements of each of n rows and `heads` heads, copied; or, `sums`, their sum over the heads, in their order.
KERNEL copy_blocks(const real* from, real* to, int n, int heads, int len, i64 from_row, i64 from_head, i64 to_row, i64 to_head,
                   int sums) {
  const Layout of = {from_row, from_head}, as = {to_row, to_head};
  const i64 all = len | of.row | of.head | as.row | as.head;
  const bool wide = all % WIDTH == 0 && aligned(from) && aligned(to);
  if (sums) {
    if (wide) sum_each<WIDTH>(from, to, n, heads, len, of, as);
    else sum_each<1>(from, to, n, heads, len, of, as);
  } else {
    if (wide) copy_each<true>(from, to, n, heads, len, of, as);
    else copy_each<false>(from, to, n, heads, len, of, as);
  }
}

// Row r of latent [rows, R] and rotated [rows, P], `tokens` of each sequence, goes to position *first + r % tokens of its sequence.
KERNEL latent_append(const real* latent, const real* rotated, real* cache, int rows, int tokens, int rank, int rope, int capacity,
                     const int* first) {
  const int start = *first, width = rank + rope;
  const bool wide = rank % WIDTH == 0 && rope % WIDTH == 0 && aligned(latent) && aligned(rotated) && aligned(cache);
  const int a_piece = wide ? WIDTH : 1, pieces = width / a_piece;
  const i64 all = i64(rows) * pieces, step = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const int column = int(i % pieces) * a_piece;
    const i64 row = i / pieces;
    const real* from = column < rank ? latent + row * rank + column : rotated + row * rope + column - rank;
    real* to = cache + (row / tokens * capacity + start + row % tokens) * width + column;
    if (wide) *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else *to = *from;
  }
}

EXPORT(copy_blocks)
EXPORT(latent_append)

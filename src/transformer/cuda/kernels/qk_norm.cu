// RMSNorm of queries and keys where they lie in the rows of queries, keys and values: of every head by itself, or of all heads of
// queries and all of keys. What is normed at once is a stretch; a row has its stretches of queries, then those of keys.
//
// Bytes per number of queries and keys, bf16 (f32 twice as many): qk_norm reads and writes it, 4, and 2 more where it is kept;
// qk_norm_backward reads x and the gradient and writes that, 6; qk_norm_gains reads both, 4. Some 5 FLOPs each: bound by memory. A
// stretch is gone over twice, the second time from the cache that the first has left it in: 16 KB of bf16 at the most for 8192 numbers.
//
// A stretch is a warp's where heads are normed by themselves, else a block's. All sums are in an order that the launch alone decides.
#include "common.h"

// Where stretches lie. A row of queries, keys and values is `width` long, and begins with `normed` elements in stretches.
struct Stretches {
  int n, heads, kv_heads, head_dim;
  bool whole;

  __device__ __forceinline__ i64 width() const { return i64(heads + 2 * kv_heads) * head_dim; }
  __device__ __forceinline__ int normed() const { return (heads + kv_heads) * head_dim; }
  __device__ __forceinline__ int count() const { return whole ? 2 : heads + kv_heads; }
  // Of stretch s of a row: whether it is of keys, where it starts, and its length.
  __device__ __forceinline__ bool of_keys(int s) const { return s >= (whole ? 1 : heads); }
  __device__ __forceinline__ int start(int s) const { return whole ? s * heads * head_dim : s * head_dim; }
  __device__ __forceinline__ int length(int s) const { return whole ? (s ? kv_heads : heads) * head_dim : head_dim; }
};

// A stretch's team: a warp, or the block. f(column) for every N-th column of a stretch that is this member's.
template <int N, bool WHOLE>
struct Team {
  __device__ __forceinline__ float sum(float x) const { return WHOLE ? block_sum(x) : warp_sum(x); }
  __device__ __forceinline__ int me() const { return WHOLE ? threadIdx.x : threadIdx.x % 32; }
  template <class F>
  __device__ __forceinline__ void over(int length, F f) const {
    const int members = WHOLE ? blockDim.x : 32;
#pragma unroll 2
    for (int i = me() * N; i < length; i += members * N) f(i);
  }
  // f(row, stretch) for every stretch that is this team's.
  template <class F>
  __device__ __forceinline__ void over_stretches(const Stretches& d, F f) const {
    const unsigned teams = WHOLE ? 1 : blockDim.x / 32, mine = WHOLE ? 0 : threadIdx.x / 32;
    const i64 all = i64(d.n) * d.count();
    for (i64 item = i64(blockIdx.x) * teams + mine; item < all; item += i64(gridDim.x) * teams) {
      f(int(item / d.count()), int(item % d.count()));
    }
  }
};

// qkv [n, (H + 2 KV) D]: every stretch becomes x rstd (offset + gain), in place. Where they are kept, x goes to `kept` [n, (H + KV) D]
// and rstd to `stats` [n, stretches].
template <int N, bool WHOLE>
__device__ __forceinline__ void norm_stretches(real* qkv, const real* of_queries, const real* of_keys, real* kept, float* stats,
                                               const Stretches& d, float eps, float offset) {
  const Team<N, WHOLE> team;
  team.over_stretches(d, [&](int row, int s) {
    const int length = d.length(s);
    real* x = qkv + row * d.width() + d.start(s);
    const real* gain = d.of_keys(s) ? of_keys : of_queries;
    float squares = 0.0f;
    team.over(length, [&](int i) {
      float v[N];
      load(x + i, v);
      if (kept) store(kept + i64(row) * d.normed() + d.start(s) + i, v);
#pragma unroll
      for (int k = 0; k < N; k++) squares += v[k] * v[k];
    });
    const float rstd = rsqrtf(team.sum(squares) / float(length) + eps);
    team.over(length, [&](int i) {
      float v[N], g[N];
      load(x + i, v);
      load(gain + i, g);
#pragma unroll
      for (int k = 0; k < N; k++) v[k] *= rstd * (offset + g[k]);
      store(x + i, v);
    });
    if (kept && team.me() == 0) stats[i64(row) * d.count() + s] = rstd;
  });
}

__device__ __forceinline__ bool wide_stretches(int head_dim, const void* a, const void* b, const void* c, const void* d) {
  return head_dim % WIDTH == 0 && aligned(a) && aligned(b) && aligned(c) && aligned(d);
}

// Threads: a multiple of 32. `kept` and `stats` are both null or neither.
KERNEL __launch_bounds__(512, 1) qk_norm(real* qkv, const real* of_queries, const real* of_keys, real* kept, float* stats, int n,
                                         int heads, int kv_heads, int head_dim, int whole, float eps, float offset) {
  const Stretches d = {n, heads, kv_heads, head_dim, whole != 0};
  const bool wide = wide_stretches(head_dim, qkv, of_queries, of_keys, kept);
  if (wide && whole) norm_stretches<WIDTH, true>(qkv, of_queries, of_keys, kept, stats, d, eps, offset);
  else if (wide) norm_stretches<WIDTH, false>(qkv, of_queries, of_keys, kept, stats, d, eps, offset);
  else if (whole) norm_stretches<1, true>(qkv, of_queries, of_keys, kept, stats, d, eps, offset);
  else norm_stretches<1, false>(qkv, of_queries, of_keys, kept, stats, d, eps, offset);
}

// dqkv: of every stretch the gradient g of what came of it becomes that of x: rstd (h - hat mean(h hat)), h = g (offset + gain),
// hat = x rstd.
template <int N, bool WHOLE>
__device__ __forceinline__ void backward_stretches(const real* x, const float* stats, const real* of_queries, const real* of_keys,
                                                   real* dqkv, const Stretches& d, float offset) {
  const Team<N, WHOLE> team;
  team.over_stretches(d, [&](int row, int s) {
    const int length = d.length(s);
    const real* before = x + i64(row) * d.normed() + d.start(s);
    real* gradient = dqkv + row * d.width() + d.start(s);
    const real* gain = d.of_keys(s) ? of_keys : of_queries;
    const float rstd = stats[i64(row) * d.count() + s];
    // h and hat of the columns from i on.
    const auto get = [&](int i, float (&h)[N], float (&hat)[N]) {
      float w[N];
      load(before + i, hat);
      load(gradient + i, h);
      load(gain + i, w);
#pragma unroll
      for (int k = 0; k < N; k++) h[k] *= offset + w[k], hat[k] *= rstd;
    };
    float along = 0.0f;
    team.over(length, [&](int i) {
      float h[N], hat[N];
      get(i, h, hat);
#pragma unroll
      for (int k = 0; k < N; k++) along += h[k] * hat[k];
    });
    along = team.sum(along) / float(length);
    team.over(length, [&](int i) {
      float h[N], hat[N];
      get(i, h, hat);
#pragma unroll
      for (int k = 0; k < N; k++) h[k] = rstd * (h[k] - hat[k] * along);
      store(gradient + i, h);
    });
  });
}

// Threads: a multiple of 32.
KERNEL __launch_bounds__(512, 1) qk_norm_backward(const real* x, const float* stats, const real* of_queries, const real* of_keys,
                                                  real* dqkv, int n, int heads, int kv_heads, int head_dim, int whole,
                                                  float offset) {
  const Stretches d = {n, heads, kv_heads, head_dim, whole != 0};
  const bool wide = wide_stretches(head_dim, x, of_queries, of_keys, dqkv);
  if (wide && whole) backward_stretches<WIDTH, true>(x, stats, of_queries, of_keys, dqkv, d, offset);
  else if (wide) backward_stretches<WIDTH, false>(x, stats, of_queries, of_keys, dqkv, d, offset);
  else if (whole) backward_stretches<1, true>(x, stats, of_queries, of_keys, dqkv, d, offset);
  else backward_stretches<1, false>(x, stats, of_queries, of_keys, dqkv, d, offset);
}

constexpr int WARPS = 8;

// partial [gridDim.y, (H + KV) D]: row y holds, column by column, the sums of g hat over rows [y * rows_per_block, (y + 1) *
// rows_per_block).
template <int N>
__device__ __forceinline__ void sum_gains(const real* x, const float* stats, const real* dqkv, float* partial, const Stretches& d,
                                          int rows_per_block) {
  __shared__ float parts[WARPS][32 * WIDTH + 1];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, normed = d.normed();
  const int tile = blockIdx.x * 32 * N, column = tile + lane * N, queries = d.heads * d.head_dim;
  const int stretch = d.whole ? column >= queries : column / d.head_dim;
  const i64 first = i64(blockIdx.y) * rows_per_block, end = min(first + rows_per_block, i64(d.n));
  float sum[N] = {};
  if (column < normed) {
#pragma unroll 4
    for (i64 r = first + warp; r < end; r += WARPS) {
      const float rstd = stats[r * d.count() + stretch];
      float v[N], g[N];
      load(x + r * normed + column, v);
      load(dqkv + r * d.width() + column, g);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += g[j] * (v[j] * rstd);
    }
  }
#pragma unroll
  for (int j = 0; j < N; j++) parts[warp][lane * N + j] = sum[j];
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * N && tile + i < normed; i += blockDim.x) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += parts[w][i];
    partial[i64(blockIdx.y) * normed + tile + i] = total;
  }
}

// Threads: 256. Grid: tiles of 32 * WIDTH columns (32 where head_dim is no multiple of WIDTH, which `wide` tells), shares of rows.
// To be run before qk_norm_backward, which replaces what it reads.
KERNEL qk_norm_gains(const real* x, const float* stats, const real* dqkv, float* partial, int n, int heads, int kv_heads,
                     int head_dim, int whole, int rows_per_block, int wide) {
  const Stretches d = {n, heads, kv_heads, head_dim, whole != 0};
  if (wide) sum_gains<WIDTH>(x, stats, dqkv, partial, d, rows_per_block);
  else sum_gains<1>(x, stats, dqkv, partial, d, rows_per_block);
}

// Gradients of the gains from the `shares` rows of partial: of queries in the blocks of y = 0, of keys in those of y = 1. Where a gain
// is every head's, heads are added up too. Threads: 1024. Grid: columns of a gain / 32, 2.
KERNEL qk_norm_gains_sum(const float* partial, float* of_queries, float* of_keys, int shares, int heads, int kv_heads,
                         int head_dim, int whole) {
  const int of_these = blockIdx.y ? kv_heads : heads, normed = (heads + kv_heads) * head_dim;
  const int length = whole ? of_these * head_dim : head_dim, times = whole ? 1 : of_these;
  const float* from = partial + (blockIdx.y ? heads * head_dim : 0);
  const i64 first = i64(blockIdx.x) * 32;
  const float sum = sum_of_columns(from, shares * times, length, first, [&](int r) {
    return i64(r / times) * normed + r % times * head_dim;
  });
  float* to = blockIdx.y ? of_keys : of_queries;
  if (threadIdx.x < 32 && first + threadIdx.x < length) to[first + threadIdx.x] = sum;
}

EXPORT(qk_norm)
EXPORT(qk_norm_backward)
EXPORT(qk_norm_gains)
EXPORT(qk_norm_gains_sum)

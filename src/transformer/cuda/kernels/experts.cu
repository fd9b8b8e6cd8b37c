// Layers of experts, what is around their products: tokens grouped by the experts that they go to, what experts say put together, and
// what of the backward pass goes row by row. The products of the groups are in grouped.cu and grouped_mma.cu.
//
// Kernels begin early (common.h) and read nothing before they have waited.
//
// A row is a token in one of its K slots; rows of an expert lie together, in the order of the tokens. Nothing of it is known to the
// host: launches are as large as any routing could need, so that a captured step is right for every other one.
#include "common.h"

// The bit set of lanes with the same expert; all lanes call, and those not `here` match none.
__device__ __forceinline__ unsigned same_expert(unsigned expert, bool here, int bits) {
  unsigned same = __ballot_sync(ALL_LANES, here);
  for (int bit = 0; bit < bits; bit++) {
    const bool one = expert >> bit & 1;
    const unsigned ones = __ballot_sync(ALL_LANES, one);
    same &= one ? ones : ~ones;
  }
  return same;
}

// The sum of `mine` over the threads before this one; all of a block of 1024 call.
__device__ __forceinline__ int sum_before(int mine) {
  __shared__ int of_warps[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int sum = mine;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int of_lower = __shfl_up_sync(ALL_LANES, sum, step);
    if (lane >= step) sum += of_lower;
  }
  __syncthreads();  // an earlier call may still be reading
  if (lane == 31) of_warps[warp] = sum;
  __syncthreads();
  sum -= mine;
  for (int w = 0; w < warp; w++) sum += of_warps[w];
  return sum;
}

// From chosen [rows], the expert of each place (token * K + slot): starts [E + 1], rows of expert e are starts[e] .. starts[e + 1];
// by row, `order` its place and `tokens` its token; by place, `places` its row. tiles [most]: stretches of up to `tile_rows` rows of one
// expert each, as (expert, first row), expert -1 past the last.
//
// One block of 1024 threads, E <= 512, 32 E words of shared memory. A warp takes a stretch of the places, counts their experts, and
// puts each behind those of the warps before it and its own before it: one pass of a sort by digits, as in embedding.cu.
KERNEL __launch_bounds__(1024, 1)
    group_rows(const unsigned* chosen, int* starts, int* order, int* tokens, int* places, int2* tiles, int rows, int k,
               int experts, int tile_rows, int most) {
  SHARED_BUFFER(int, counts);
  let_next_begin();
  wait_for_before();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int each = (rows + 1023) / 1024 * 32;
  const int first = min(warp * each, rows), end = min(first + each, rows);
  const auto expert_at = [&](int place) { return min(chosen[place], unsigned(experts - 1)); };
  for (int i = threadIdx.x; i < 32 * experts; i += 1024) counts[i] = 0;
  __syncthreads();
#pragma unroll 4
  for (int i = first + lane; i < end; i += 32) atomicAdd(&counts[warp * experts + expert_at(i)], 1);
  __syncthreads();
  const int own = threadIdx.x;
  int count = 0;
  if (own < experts) {
    for (int w = 0; w < 32; w++) count += counts[w * experts + own];
  }
  const int start = sum_before(count), own_tiles = (count + tile_rows - 1) / tile_rows, tile = sum_before(own_tiles);
  if (own < experts) {
    starts[own] = start;
    for (int i = 0; i < own_tiles; i++) tiles[tile + i] = make_int2(own, start + i * tile_rows);
    int before = start;
    for (int w = 0; w < 32; w++) {
      const int of_warp = counts[w * experts + own];
      counts[w * experts + own] = before;
      before += of_warp;
    }
  }
  // The thread after the last expert knows the sums over all.
  if (own == experts) starts[experts] = start;
  const int used = sum_before(own == 1023 ? 0 : own_tiles);
  __shared__ int all_tiles;
  if (own == 1023) all_tiles = used;
  __syncthreads();
  for (int i = all_tiles + own; i < most; i += 1024) tiles[i] = make_int2(-1, 0);
  int bits = 0;
  while (1 << bits < experts) bits++;
#pragma unroll 2
  for (int from = first; from < end; from += 32) {
    const int place = from + lane;
    const bool here = place < end;
    const unsigned expert = here ? expert_at(place) : 0, same = same_expert(expert, here, bits);
    const int before = __popc(same & ((1u << lane) - 1u));
    const int next = here ? counts[warp * experts + expert] : 0;
    __syncwarp();
    if (here && before == 0) counts[warp * experts + expert] = next + __popc(same);
    if (here) {
      order[next + before] = place;
      tokens[next + before] = place / k;
      places[place] = next + before;
    }
    __syncwarp();
  }
}

// out [n, c]: of each token the sum over its K slots, in their order, of the rows [n K, c] that are theirs, each times its weight.
template <int N>
__device__ __forceinline__ void combine_rows(const real* rows, const int* places, const float* weights, real* out, int n, int c, int k) {
  over_rows<N>(n, c, [&](int token, int i) {
    float sum[N] = {};
    for (int slot = 0; slot < k; slot++) {
      const i64 place = i64(token) * k + slot;
      const float by = weights ? weights[place] : 1.0f;
      float row[N];
      load(rows + i64(places[place]) * c + i, row);
#pragma unroll
      for (int j = 0; j < N; j++) sum[j] += by * row[j];
    }
    store(out + i64(token) * c + i, sum);
  });
}

KERNEL combine(const real* rows, const int* places, const float* weights, real* out, int n, int c, int k) {
  let_next_begin();
  wait_for_before();
  if (c % WIDTH == 0 && aligned(rows) && aligned(out)) combine_rows<WIDTH>(rows, places, weights, out, n, c, k);
  else combine_rows<1>(rows, places, weights, out, n, c, k);
}

// The sum of a [len] b [len], in every lane.
template <int N>
__device__ __forceinline__ float warp_dot(const real* a, const real* b, int len) {
  float sum = 0.0f;
#pragma unroll 4
  for (int i = threadIdx.x % 32 * N; i < len; i += 32 * N) {
    float x[N], y[N];
    load(a + i, x);
    load(b + i, y);
#pragma unroll
    for (int j = 0; j < N; j++) sum += x[j] * y[j];
  }
  return warp_sum(sum);
}
template <int N>
__device__ __forceinline__ void warp_scale(real* x, int len, float by) {
#pragma unroll 4
  for (int i = threadIdx.x % 32 * N; i < len; i += 32 * N) {
    float row[N];
    load(x + i, row);
#pragma unroll
    for (int j = 0; j < N; j++) row[j] *= by;
    store(x + i, row);
  }
}

// With what an expert says, act w^T + bias, weighted by p: the gradient of p is that of the result along what is said, act dact + bias
// dout, dact being the gradient before it is weighted; that of the argument and of the weights takes p with it. dweights [n K]
// is written by place; act and dact [n K, f], by row, are multiplied by the weight of their place. A warp a row.
template <int F, int C>
__device__ __forceinline__ void weigh_rows(const int* order, const unsigned* chosen, const float* weights, const real* bias,
                                           const real* dout, real* act, real* dact, float* dweights, int rows, int k, int f,
                                           int c) {
  const int warps = gridDim.x * (blockDim.x / 32);
  for (int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < rows; row += warps) {
    const int place = order[row];
    float along = warp_dot<F>(act + i64(row) * f, dact + i64(row) * f, f);
    if (bias) along += warp_dot<C>(bias + i64(chosen[place]) * c, dout + i64(place / k) * c, c);
    if (threadIdx.x % 32 == 0) dweights[place] = along;
    warp_scale<F>(act + i64(row) * f, f, weights[place]);
    warp_scale<F>(dact + i64(row) * f, f, weights[place]);
  }
}

KERNEL weigh(const int* order, const unsigned* chosen, const float* weights, const real* bias, const real* dout, real* act, real* dact,
             float* dweights, int rows, int k, int f, int c) {
  let_next_begin();
  wait_for_before();
  const bool wide = f % WIDTH == 0 && c % WIDTH == 0 && aligned(act) && aligned(dact) && aligned(bias) && aligned(dout);
  if (wide) weigh_rows<WIDTH, WIDTH>(order, chosen, weights, bias, dout, act, dact, dweights, rows, k, f, c);
  else weigh_rows<1, 1>(order, chosen, weights, bias, dout, act, dact, dweights, rows, k, f, c);
}

// out [E, m]: the sums over each expert's rows of x, its row or, with `tokens`, its token's, times the weight of its place where there
// are weights. Grid: (tiles of 32 columns, E); 256 threads: a warp takes every eighth row.
KERNEL group_sums(const real* x, const int* starts, const int* tokens, const int* order, const float* weights, float* out, int m) {
  __shared__ float parts[8][32];
  let_next_begin();
  wait_for_before();
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, column = int(blockIdx.x) * 32 + lane;
  const int first = starts[blockIdx.y], end = starts[blockIdx.y + 1];
  float sum = 0.0f;
  if (column < m) {
#pragma unroll 4
    for (int row = first + warp; row < end; row += 8) {
      const float by = weights ? weights[order[row]] : 1.0f;
      sum += by * to_float(x[i64(tokens ? tokens[row] : row) * m + column]);
    }
  }
  parts[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && column < m) {
    float total = 0.0f;
#pragma unroll
    for (int w = 0; w < 8; w++) total += parts[w][lane];
    out[i64(blockIdx.y) * m + column] = total;
  }
}

EXPORT(group_rows)
EXPORT(combine)
EXPORT(weigh)
EXPORT(group_sums)

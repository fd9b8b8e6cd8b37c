// Attention of a few queries a sequence over a cache of latents [B, capacity, R + P], which all heads share: what a decoding step does.
// Keys and values of a head are products of the latents, w [H (nope + value), R] the weight: instead of making them, a query is
// multiplied by the part of the weight that makes keys, and meets the latents themselves; values are made of the weighted latents
// (DeepSeek-AI 2024, section 2.1.2). Three launches:
//
//   latent_absorb  queries [n, H (P + nope)] -> [n, H, R + P]: n H nope R multiply-adds, the weight read once for 8 rows
//   latent_attend  scores and weighted latents: n H length (2 R + P) multiply-adds, in f32 arithmetic; the cache is read once for
//                  8 heads. The context is divided among blocks, by the capacity and not by the length: a captured step stays right
//   latent_values  the parts of the context put together, and values of them: n H R value multiply-adds
//
// Bytes: length (R + P) reals a sequence from memory, and as much from the L2 cache for every further 8 heads; the weight, once for 8
// rows. Of 128 heads and R = 512, 3.5 us a layer on an H200 are the weight's 17 MB; and at 4,096 positions 0.56 G multiply-adds, as
// much at 30 TFLOP/s: as long as there are few sequences the arithmetic is not what is waited for.
#include "sums.h"

constexpr float LOG2_E = 1.4426950408889634f;

// Warps of a block, rows that share what is read of the weight, and elements of a head without positions at the most.
constexpr int WARPS = 8, ROWS = 8, MOST_NOPE = 256;

// Heads that share what is read of the cache, positions of a tile, and those of a warp at a time.
constexpr int GROUP = WARPS, TILE = 64, AT_ONCE = 4;

// Parts of the context, at the most.
constexpr int MOST_SPLITS = 64;

// Outputs of a block of latent_values.
constexpr int OUTPUTS = 64;

// Columns of the weight, N a lane, of `count` rows of queries, whose elements without positions are in `q` [R, MOST_NOPE].
template <int N, int R>
__device__ __forceinline__ void absorb(const float* q, float* parts, const real* w, float* to, i64 row_stride, int count, int rank,
                                       int nope) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = int(blockIdx.x) * 32 * N, column = first + lane * N;
  float sums[R][N] = {};
  if (column < rank) {
#pragma unroll 4
    for (int j = warp; j < nope; j += WARPS) {
      float x[N];
      load(w + i64(j) * rank + column, x);
#pragma unroll
      for (int r = 0; r < R; r++) {
#pragma unroll
        for (int i = 0; i < N; i++) sums[r][i] += q[r * MOST_NOPE + j] * x[i];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; r++) {
    if (r >= count) break;
    store(parts + warp * 32 * WIDTH + lane * N, sums[r]);
    __syncthreads();
    for (int i = threadIdx.x; i < 32 * N && first + i < rank; i += WARPS * 32) {
      float total = 0.0f;
#pragma unroll
      for (int p = 0; p < WARPS; p++) total += parts[p * 32 * WIDTH + i];
      to[r * row_stride + first + i] = total;
    }
    __syncthreads();
  }
}

// absorbed [rows, H, R + P] f32: of each head's query, times `scale`, what it comes to along the latents, and its rotated part. Grid:
// (tiles of 32 vectors of columns, H, tiles of 8 rows), 256 threads.
KERNEL __launch_bounds__(256, 2) latent_absorb(const real* queries, const real* w, float* absorbed, int rows, int heads, int rank,
                                               int rope, int nope, int value, float scale) {
  __shared__ float q[ROWS * MOST_NOPE];
  __shared__ float4 of_warps[WARPS * 32 * WIDTH / 4];
  float* parts = reinterpret_cast<float*>(of_warps);
  const int head = blockIdx.y, first = blockIdx.z * ROWS, count = min(ROWS, rows - first);
  const int head_dim = rope + nope, width = rank + rope;
  const real* of_head = queries + (i64(first) * heads + head) * head_dim;
  float* to = absorbed + (i64(first) * heads + head) * width;
  const i64 query_stride = i64(heads) * head_dim, row_stride = i64(heads) * width;
  for (int i = threadIdx.x; i < ROWS * nope; i += WARPS * 32) {
    const int r = i / nope, j = i % nope;
    q[r * MOST_NOPE + j] = r < count ? to_float(of_head[r * query_stride + rope + j]) * scale : 0.0f;
  }
  if (blockIdx.x == 0) {
    for (int i = threadIdx.x; i < count * rope; i += WARPS * 32) {
      const int r = i / rope, j = i % rope;
      to[r * row_stride + rank + j] = to_float(of_head[r * query_stride + j]) * scale;
    }
  }
  __syncthreads();
  const real* of_keys = w + i64(head) * (nope + value) * rank;
  // As the grid is made for.
  const bool wide = rank % WIDTH == 0;
  if (wide && count == 1) absorb<WIDTH, 1>(q, parts, of_keys, to, row_stride, count, rank, nope);
  else if (wide) absorb<WIDTH, ROWS>(q, parts, of_keys, to, row_stride, count, rank, nope);
  else absorb<1, ROWS>(q, parts, of_keys, to, row_stride, count, rank, nope);
}

// N elements that a lane takes of a row at a time; C times 512 columns of the latents.
template <int N, int C>
__device__ __forceinline__ void attend(const float* absorbed, const real* cache, float* partial, int heads, int tokens, int rank,
                                       int rope, int capacity, const int* first) {
  SHARED_BUFFER(float, queries);
  __shared__ float4 of_tile[TILE * GROUP / 4];
  float(*scores)[GROUP] = reinterpret_cast<float(*)[GROUP]>(of_tile);
  __shared__ float shrinks[GROUP];
  const int row = blockIdx.x, head = int(blockIdx.y) * GROUP, counted = min(GROUP, heads - head);
  const int splits = gridDim.z, split = blockIdx.z, width = rank + rope;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int length = *first + row % tokens + 1;
  const int share = ((length + splits - 1) / splits + TILE - 1) / TILE * TILE;
  const int begin = split * share, end = min(length, begin + share);
  const i64 part = (i64(row) * heads + head) * splits + split;
  float* statistics = partial + i64(gridDim.x) * heads * splits * rank;
  if (begin >= end) {
    if (int(threadIdx.x) < counted) {
      const i64 own = part + i64(threadIdx.x) * splits;
      statistics[2 * own] = -INFINITE, statistics[2 * own + 1] = 0.0f;
    }
    return;
  }
  const float* from = absorbed + (i64(row) * heads + head) * width;
  for (int i = threadIdx.x; i < GROUP * width; i += WARPS * 32) queries[i] = i < counted * width ? from[i] : 0.0f;
  const real* of_sequence = cache + i64(row / tokens) * capacity * width;
  // Of the head of this warp's number.
  float largest = -INFINITE, total = 0.0f;
  float sums[C][GROUP][2] = {};
  __syncthreads();
  for (int at = begin; at < end; at += TILE) {
    for (int p = 0; p < TILE / WARPS; p += AT_ONCE) {
      const int place = warp * (TILE / WARPS) + p, position = at + place;
      const real* keys = of_sequence + i64(position) * width;
      float s[GROUP * AT_ONCE] = {};
#pragma unroll 2
      for (int column = lane * N; column < width; column += 32 * N) {
        float k[AT_ONCE][N];
#pragma unroll
        for (int u = 0; u < AT_ONCE; u++) {
          if (position + u < end) {
            load(keys + i64(u) * width + column, k[u]);
          } else {
#pragma unroll
            for (int j = 0; j < N; j++) k[u][j] = 0.0f;
          }
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) {
          float q[N];
          load(queries + g * width + column, q);
#pragma unroll
          for (int u = 0; u < AT_ONCE; u++) {
#pragma unroll
            for (int j = 0; j < N; j++) s[g * AT_ONCE + u] += q[j] * k[u][j];
          }
        }
      }
      // Every lane has one of the 32 sums.
      Sums<GROUP * AT_ONCE, 32>::add_up(s);
      scores[place + lane % AT_ONCE][lane / AT_ONCE] = position + lane % AT_ONCE < end ? s[0] : -INFINITE;
    }
    __syncthreads();
    float low = scores[lane][warp], high = scores[lane + 32][warp];
    const float most = fmaxf(largest, warp_max(fmaxf(low, high))), offset = most == -INFINITE ? 0.0f : most;
    const float shrink = exp2f(largest - offset);
    low = exp2f(low - offset), high = exp2f(high - offset);
    scores[lane][warp] = low, scores[lane + 32][warp] = high;
    total = total * shrink + warp_sum(low + high);
    largest = most;
    if (lane == 0) shrinks[warp] = shrink;
    __syncthreads();
#pragma unroll
    for (int g = 0; g < GROUP; g++) {
      const float by = shrinks[g];
#pragma unroll
      for (int c = 0; c < C; c++) sums[c][g][0] *= by, sums[c][g][1] *= by;
    }
    const int count = min(TILE, end - at);
    const real* latents = of_sequence + i64(at) * width;
#pragma unroll 4
    for (int i = 0; i < count; i++) {
      float p[GROUP];
      load(scores[i], p);
#pragma unroll
      for (int c = 0; c < C; c++) {
        const int column = c * 2 * WARPS * 32 + 2 * int(threadIdx.x);
        if (column >= rank) break;
        float x[2] = {};
        if constexpr (N == 2) {
          load(latents + i64(i) * width + column, x);
        } else {
          x[0] = to_float(latents[i64(i) * width + column]);
          if (column + 1 < rank) x[1] = to_float(latents[i64(i) * width + column + 1]);
        }
#pragma unroll
        for (int g = 0; g < GROUP; g++) sums[c][g][0] += p[g] * x[0], sums[c][g][1] += p[g] * x[1];
      }
    }
    // The next tile's scores take their place.
    __syncthreads();
  }
#pragma unroll
  for (int g = 0; g < GROUP; g++) {
    if (g >= counted) break;
    float* to = partial + (part + i64(g) * splits) * rank;
#pragma unroll
    for (int c = 0; c < C; c++) {
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const int column = c * 2 * WARPS * 32 + 2 * int(threadIdx.x) + j;
        if (column < rank) to[column] = sums[c][g][j];
      }
    }
  }
  if (warp < counted && lane == 0) {
    const i64 own = part + i64(warp) * splits;
    statistics[2 * own] = largest, statistics[2 * own + 1] = total;
  }
}

// partial: for each row, head and part of the context the latents weighted by 2^(score - largest), [rows, H, splits, R], then the
// largest score and the sum of the weights, [rows, H, splits, 2]; absorbed queries as above, in multiples of ln 2. Row r is the query at
// position *first + r % tokens of its sequence and sees all up to it. Grid: (rows, tiles of 8 heads, splits), 256 threads; shared
// memory for 8 heads' queries. By latents of up to 512 columns, and of 2048.
#define ATTEND(C)                                                                                                          \
  KERNEL __launch_bounds__(256, C == 1 ? 2 : 1) latent_attend_##C(const float* absorbed, const real* cache, float* partial, \
                                                                  int heads, int tokens, int rank, int rope,               \
                                                                  int capacity, const int* first) {                        \
    if (rank % 2 == 0 && rope % 2 == 0)                                                                                    \
      attend<2, C>(absorbed, cache, partial, heads, tokens, rank, rope, capacity, first);                                  \
    else                                                                                                                   \
      attend<1, C>(absorbed, cache, partial, heads, tokens, rank, rope, capacity, first);                                  \
  }
ATTEND(1)
ATTEND(4)

// Of `latents` [R, rank] and rows of the weight, an output a warp and turn.
template <int N, int R>
__device__ __forceinline__ void make_values(const float* latents, const real* w, real* out, i64 row_stride, int count, int rank,
                                            int value) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int past = min(int(blockIdx.x + 1) * OUTPUTS, value);
  for (int output = int(blockIdx.x) * OUTPUTS + warp; output < past; output += WARPS) {
    float sums[R] = {};
#pragma unroll 2
    for (int column = lane * N; column < rank; column += 32 * N) {
      float x[N];
      load(w + i64(output) * rank + column, x);
#pragma unroll
      for (int r = 0; r < R; r++) {
        float y[N];
        load(latents + r * rank + column, y);
#pragma unroll
        for (int j = 0; j < N; j++) sums[r] += x[j] * y[j];
      }
    }
    typedef Sums<R, 32> Split;
    Split::add_up(sums);
    const int r = Split::index(lane);
    if (lane % Split::SAME == 0 && r < count) out[r * row_stride + output] = from_float<real>(sums[0]);
  }
}

// out [rows, H value]: the parts of the context put together, in their order, and multiplied by the part of the weight that makes values.
// Grid: (tiles of 64 outputs, H, tiles of 8 rows), 256 threads; shared memory for 8 rows of latents.
KERNEL __launch_bounds__(256, 2) latent_values(const float* partial, const real* w, real* out, int rows, int heads, int rank, int nope,
                                               int value, int splits) {
  SHARED_BUFFER(float, latents);
  __shared__ float weights[ROWS][MOST_SPLITS];
  const int head = blockIdx.y, first = blockIdx.z * ROWS, count = min(ROWS, rows - first);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* statistics = partial + i64(rows) * heads * splits * rank;
  if (warp < count) {
    const float* own = statistics + 2 * ((i64(first + warp) * heads + head) * splits);
    float largest = -INFINITE;
    for (int i = lane; i < splits; i += 32) largest = fmaxf(largest, own[2 * i]);
    const float most = warp_max(largest);
    float total = 0.0f;
    for (int i = lane; i < splits; i += 32) total += own[2 * i] == -INFINITE ? 0.0f : own[2 * i + 1] * exp2f(own[2 * i] - most);
    total = warp_sum(total);
    for (int i = lane; i < splits; i += 32) weights[warp][i] = own[2 * i] == -INFINITE ? 0.0f : exp2f(own[2 * i] - most) / total;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < ROWS * rank; i += WARPS * 32) {
    const int r = i / rank, column = i % rank;
    float sum = 0.0f;
    if (r < count) {
      const float* own = partial + ((i64(first + r) * heads + head) * splits) * rank + column;
      // What has no weight has not been written.
      for (int s = 0; s < splits; s++) {
        if (weights[r][s] != 0.0f) sum += weights[r][s] * own[i64(s) * rank];
      }
    }
    latents[i] = sum;
  }
  __syncthreads();
  const real* of_values = w + (i64(head) * (nope + value) + nope) * rank;
  real* to = out + (i64(first) * heads + head) * value;
  const i64 row_stride = i64(heads) * value;
  const bool wide = rank % WIDTH == 0;
  if (wide && count == 1) make_values<WIDTH, 1>(latents, of_values, to, row_stride, count, rank, value);
  else if (wide) make_values<WIDTH, ROWS>(latents, of_values, to, row_stride, count, rank, value);
  else make_values<1, ROWS>(latents, of_values, to, row_stride, count, rank, value);
}

EXPORT(latent_absorb)
EXPORT(latent_attend_1)
EXPORT(latent_attend_4)
EXPORT(latent_values)

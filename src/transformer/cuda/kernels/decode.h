// Attention of one query a sequence over the first *first + 1 places of the cache, or all there are, keys and values
// [B, KV, capacity, D]: what a decoding step does. How these lie, `Rows` says. The context is divided among `splits` blocks for each group of heads that share keys and
// values; the last block of a group to finish adds up what all have found (Flash-Decoding, Dao et al. 2023), in the order
// of the splits, so that results do not depend on which was last. The grid does not depend on the length: a step can be
// captured once and replayed.
//
// Bytes: 2 B KV length D reals, once; beside them the partial results, B H splits (D + 2) f32 written and read in the L2
// cache. FLOPs: 4 B H length D: a few for each byte, so memory is the limit. LANES lanes of a warp share a position, 8
// elements a lane, and each has U positions of keys and values under way at a time. G heads share what is read (more than
// that take turns in further blocks).
#pragma once
#include "attention_scores.h"
#include "sums.h"

constexpr int WARPS = 4, ELEMENTS = 8;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// Elements of one lane, as they lie in memory.
struct alignas(16) WholePiece {
  real elements[ELEMENTS];
};

// `column` .. + 8 of a row; zeros past head_dim, or everywhere unless `there`.
__device__ __forceinline__ WholePiece load_piece(const real* row, int column, int head_dim, bool there) {
  WholePiece piece = {};
  const real* from = row + column;
  if (head_dim % ELEMENTS == 0) {
    if (there && column < head_dim) {
      uint4* to = reinterpret_cast<uint4*>(&piece);
#pragma unroll
      for (int i = 0; i < int(sizeof(WholePiece) / 16); i++) to[i] = reinterpret_cast<const uint4*>(from)[i];
    }
  } else {
    const int inside = there ? head_dim - column : 0;
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++) {
      if (i < inside) piece.elements[i] = from[i];
    }
  }
  return piece;
}

// Keys and values as they are, [B, KV, capacity, D].
struct WholeRows {
  const real *keys, *values;

  typedef WholePiece Piece;
  static constexpr bool SCALED = false;
  __device__ __forceinline__ static Piece load(const real* row, int column, int head_dim, bool there) {
    return load_piece(row, column, head_dim, there);
  }
  __device__ __forceinline__ static float number(const Piece& piece, int i) { return to_float(piece.elements[i]); }
  __device__ __forceinline__ float key_scale(i64, bool) const { return 1.0f; }
  __device__ __forceinline__ float value_scale(i64, bool) const { return 1.0f; }
};

// A running softmax over positions and the sum of values that it weighs: 2^scores, relative to 2^largest.
template <int G>
struct Running {
  float largest[G], total[G], sums[G][ELEMENTS];

  __device__ __forceinline__ Running() {
#pragma unroll
    for (int g = 0; g < G; g++) {
      largest[g] = -INFINITE, total[g] = 0.0f;
#pragma unroll
      for (int i = 0; i < ELEMENTS; i++) sums[g][i] = 0.0f;
    }
  }
  // Takes in what the lane `step` away has.
  __device__ __forceinline__ void merge(int step) {
#pragma unroll
    for (int g = 0; g < G; g++) {
      const float other = __shfl_xor_sync(ALL_LANES, largest[g], step), most = fmaxf(largest[g], other);
      const float offset = most == -INFINITE ? 0.0f : most;
      const float mine = exp2f(largest[g] - offset), others = exp2f(other - offset);
      largest[g] = most;
      total[g] = total[g] * mine + __shfl_xor_sync(ALL_LANES, total[g], step) * others;
#pragma unroll
      for (int i = 0; i < ELEMENTS; i++) {
        sums[g][i] = sums[g][i] * mine + __shfl_xor_sync(ALL_LANES, sums[g][i], step) * others;
      }
    }
  }
};

// What becomes of scores before the softmax. A cap is 0 for none.
struct Beside {
  float scale, cap;
  int alibi;
};

template <int LANES, int G, class Rows>
__device__ __forceinline__ void decode(const real* qkv, Rows rows, real* out, float* lse, float* partial,
                                       unsigned* finished, int heads, int kv_heads, int head_dim, int capacity,
                                       const int* first, Beside beside) {
  constexpr int U = G == 8 ? 2 : 4, SUBS = 32 / LANES, N = U * G, D = LANES * ELEMENTS, STEP = WARPS * SUBS * U;
  typedef Sums<N, LANES> Split;
  __shared__ float scores[WARPS][SUBS][N];
  __shared__ float of_warps[WARPS][G][D], of_warps_largest[WARPS][G], of_warps_total[WARPS][G];
  __shared__ float slopes[G];
  __shared__ bool is_last;

  let_next_begin();
  wait_for_before();
  const int length = min(*first + 1, capacity), splits = gridDim.x, split = blockIdx.x;
  const int share = ((length + splits - 1) / splits + STEP - 1) / STEP * STEP, active = (length + share - 1) / share;
  if (split >= active) return;
  const int begin = split * share, end = min(length, begin + share);

  const int sharing = heads / kv_heads, turns = (sharing + G - 1) / G;
  const int group = blockIdx.y / turns, first_head = blockIdx.y % turns * G, counted = min(G, sharing - first_head);
  const i64 sequence = blockIdx.z;
  const int head = group * sharing + first_head;
  const i64 start = (sequence * kv_heads + group) * capacity;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % LANES, sub = threadIdx.x % 32 / LANES, column = lane * ELEMENTS;

  const bool shapes = beside.cap > 0.0f || beside.alibi;
  const float cap = beside.cap * LOG2_E, inward = cap > 0.0f ? 1.0f / cap : 0.0f;
  if (shapes) {
    if (threadIdx.x < G) slopes[threadIdx.x] = beside.alibi ? alibi_slope(head + int(threadIdx.x), heads) * LOG2_E : 0.0f;
    __syncthreads();
  }
  const float scale = LOG2_E * beside.scale;
  float q[G][ELEMENTS];
  const real* query = qkv + sequence * (heads + 2 * kv_heads) * head_dim + head * head_dim;
#pragma unroll
  for (int g = 0; g < G; g++) {
    const WholePiece piece = load_piece(query + g * head_dim, column, head_dim, g < counted);
#pragma unroll
    for (int i = 0; i < ELEMENTS; i++) q[g][i] = to_float(piece.elements[i]) * scale;
  }

  Running<G> running;
  for (int at = begin; at < end; at += STEP) {
    typename Rows::Piece k[U], v[U];
    float of_keys[U], of_values[U];
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int position = at + (warp * U + u) * SUBS + sub;
      const i64 row = start + position;
      const bool there = position < end;
      k[u] = Rows::load(rows.keys + row * head_dim, column, head_dim, there);
      v[u] = Rows::load(rows.values + row * head_dim, column, head_dim, there);
      of_keys[u] = rows.key_scale(row, there), of_values[u] = rows.value_scale(row, there);
    }
    float s[N];
#pragma unroll
    for (int u = 0; u < U; u++) {
#pragma unroll
      for (int g = 0; g < G; g++) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < ELEMENTS; i++) sum += q[g][i] * Rows::number(k[u], i);
        s[g * U + u] = Rows::SCALED ? sum * of_keys[u] : sum;
      }
    }
    Split::add_up(s);
    if (lane % Split::SAME == 0) {
#pragma unroll
      for (int i = 0; i < Split::HELD; i++) {
        const int at_once = Split::index(lane) + i;
        if (shapes) {
          const int position = at + (warp * U + at_once % U) * SUBS + sub;
          const float capped = cap > 0.0f ? cap * tanh_of(s[i] * inward) : s[i];
          s[i] = capped + slopes[at_once / U] * float(position);
        }
        scores[warp][sub][at_once] = s[i];
      }
    }
    __syncwarp();
#pragma unroll
    for (int g = 0; g < G; g++) {
      float p[U], most = running.largest[g];
#pragma unroll
      for (int u = 0; u < U; u++) {
        p[u] = scores[warp][sub][g * U + u];
        if (at + (warp * U + u) * SUBS + sub >= end) p[u] = -INFINITE;
        most = fmaxf(most, p[u]);
      }
      const float offset = most == -INFINITE ? 0.0f : most;
      const float shrink = exp2f(running.largest[g] - offset);
      running.largest[g] = most;
      float sum = 0.0f;
#pragma unroll
      for (int u = 0; u < U; u++) sum += p[u] = exp2f(p[u] - offset);
      running.total[g] = running.total[g] * shrink + sum;
      if (Rows::SCALED) {
#pragma unroll
        for (int u = 0; u < U; u++) p[u] *= of_values[u];
      }
#pragma unroll
      for (int i = 0; i < ELEMENTS; i++) {
        float x = running.sums[g][i] * shrink;
#pragma unroll
        for (int u = 0; u < U; u++) x += p[u] * Rows::number(v[u], i);
        running.sums[g][i] = x;
      }
    }
    __syncwarp();
  }

  // The block's result, from its warps'.
#pragma unroll
  for (int step = LANES; step < 32; step *= 2) running.merge(step);
  if (sub == 0) {
#pragma unroll
    for (int g = 0; g < G; g++) {
      store(&of_warps[warp][g][column], running.sums[g]);
      if (lane == 0) of_warps_largest[warp][g] = running.largest[g], of_warps_total[warp][g] = running.total[g];
    }
  }
  __syncthreads();
  const i64 first_partial = (sequence * heads + head) * splits;
  const i64 statistics = i64(gridDim.z) * heads * splits * D;
  for (int i = threadIdx.x; i < counted * D; i += WARPS * 32) {
    const int g = i / D, d = i % D;
    float most = -INFINITE, total = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) most = fmaxf(most, of_warps_largest[w][g]);
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
      const float weight = exp2f(of_warps_largest[w][g] - most);
      total += of_warps_total[w][g] * weight;
      sum += of_warps[w][g][d] * weight;
    }
    if (active == 1) {
      if (d < head_dim) out[(sequence * heads + head + g) * head_dim + d] = from_float<real>(sum / total);
      if (d == 0 && lse) lse[sequence * heads + head + g] = most * LN_2 + logf(total);
      continue;
    }
    const i64 row = first_partial + g * splits + split;
    partial[row * D + d] = sum;
    if (d == 0) partial[statistics + 2 * row] = most, partial[statistics + 2 * row + 1] = total;
  }
  if (active == 1) return;

  // The last block of the group puts everything together and leaves the count as it was found.
  __threadfence();
  __syncthreads();
  unsigned* count = finished + sequence * gridDim.y + blockIdx.y;
  if (threadIdx.x == 0) is_last = atomicAdd(count, 1u) == unsigned(active) - 1;
  __syncthreads();
  if (!is_last) return;
  if (threadIdx.x == 0) *count = 0;
  __threadfence();
  // A warp takes one split in WARPS of every head; its lanes stand side by side over D.
  constexpr int WIDE = D / 32;
  for (int g = 0; g < counted; g++) {
    const i64 row = first_partial + g * splits;
    float largest = -INFINITE;
    for (int i = threadIdx.x % 32; i < active; i += 32)
      largest = fmaxf(largest, __ldcg(&partial[statistics + 2 * (row + i)]));
    const float most = warp_max(largest);
    float total = 0.0f, sums[WIDE] = {};
#pragma unroll 4
    for (int i = warp; i < active; i += WARPS) {
      const float weight = exp2f(__ldcg(&partial[statistics + 2 * (row + i)]) - most);
      total += __ldcg(&partial[statistics + 2 * (row + i) + 1]) * weight;
#pragma unroll
      for (int j = 0; j < WIDE; j++) sums[j] += __ldcg(&partial[(row + i) * D + j * 32 + threadIdx.x % 32]) * weight;
    }
#pragma unroll
    for (int j = 0; j < WIDE; j++) of_warps[warp][g][j * 32 + threadIdx.x % 32] = sums[j];
    if (threadIdx.x % 32 == 0) of_warps_total[warp][g] = total, of_warps_largest[warp][g] = most;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < counted * D; i += WARPS * 32) {
    const int g = i / D, d = i % D;
    float total = 0.0f, sum = 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) total += of_warps_total[w][g], sum += of_warps[w][g][d];
    if (d < head_dim) out[(sequence * heads + head + g) * head_dim + d] = from_float<real>(sum / total);
    if (d == 0 && lse) lse[sequence * heads + head + g] = of_warps_largest[0][g] * LN_2 + logf(total);
  }
}

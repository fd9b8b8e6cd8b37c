// Attention in f32 arithmetic, any head_dim up to 256: out = softmax(scale Q K^T) V, and the log of the softmax's
// denominators, without a T x T matrix (online softmax: Milakov & Gimelshein 2018, algorithm 3).
//
// A block holds 64 queries, 8 a warp, and passes over the keys, 32 at a time: for scores a lane has a key, for sums every
// 32nd column of the values. FLOPs: 4 B H T^2 D, half of it causal, on the CUDA cores; 12 reads of 16 bytes from shared
// memory for each 32 multiply-adds of a warp. Bytes: qkv, out and lse once each, keys and values again for each further 64
// queries, from the L2 cache. With a window, keys that no query of a block sees are not read.
#include "attention_rows.h"
#include "attention_scores.h"

constexpr int WARPS = 8, KEYS = 32;

template <int CHUNKS, int OWN, bool SHAPED>
__device__ __forceinline__ void attend(const Forward<real>& f) {
  constexpr int QUERIES = WARPS * OWN;
  SHARED_BUFFER(float, shared);
  float* queries = shared;
  float* keys = queries + QUERIES * ROW<CHUNKS>;
  float* values = keys + KEYS * ROW<CHUNKS>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tokens = f.tokens, head_dim = f.head_dim;
  float* weights = values + KEYS * ROW<CHUNKS> + warp * OWN * KEYS;

  const int first_query = query_tile(f.causal) * QUERIES;
  const int head = blockIdx.x, group = head / (f.heads / f.kv_heads);
  const i64 width = i64(f.heads + 2 * f.kv_heads) * head_dim, row = i64(blockIdx.z) * tokens;
  const real *k = f.keys + f.group(group), *v = f.values + f.group(group);
  load_rows<CHUNKS, QUERIES>(queries, f.qkv + (row + first_query) * width + head * head_dim, width, tokens - first_query,
                             head_dim);

  const Sight sight = {f.before + tokens, f.before, f.causal, f.window};
  const Shaping shaped(f.scale, SHAPED ? f.cap : 0.0f, SHAPED ? f.alibi : 0, head, f.heads, 1.0f);
  const float* own = queries + warp * OWN * ROW<CHUNKS>;
  const int warp_query = first_query + warp * OWN;
  float sums[OWN][CHUNKS] = {}, largest[OWN], total[OWN] = {};
#pragma unroll
  for (int r = 0; r < OWN; r++) largest[r] = -INFINITE;

  const int seen = sight.past(first_query + QUERIES - 1);
  for (int first_key = sight.first(first_query) / KEYS * KEYS; first_key < seen; first_key += KEYS) {
    __syncthreads();
    const i64 from = i64(first_key) * f.key_stride;
    load_rows<CHUNKS, KEYS>(keys, k + from, f.key_stride, sight.keys - first_key, head_dim);
    load_rows<CHUNKS, KEYS>(values, v + from, f.key_stride, sight.keys - first_key, head_dim);
    __syncthreads();
    if (first_key >= sight.past(warp_query + OWN - 1) || first_key + KEYS <= sight.first(warp_query)) continue;
    float s[OWN];
    dots<CHUNKS, OWN>(s, own, keys + lane * ROW<CHUNKS>, head_dim);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
      const int key = first_key + lane;
      const bool counted = key < sight.past(warp_query + r) && key >= sight.first(warp_query + r);
      const float product = counted ? s[r] : -INFINITE;
      const float score = SHAPED ? shaped(product, key) : product * f.scale;
      // A row that has seen no key yet keeps to zeros.
      const float most = fmaxf(largest[r], warp_max(score)), offset = most == -INFINITE ? 0.0f : most;
      const float shrink = expf(largest[r] - offset), p = expf(score - offset);
      largest[r] = most;
      total[r] = total[r] * shrink + p;
      weights[r * KEYS + lane] = p;
#pragma unroll
      for (int i = 0; i < CHUNKS; i++) sums[r][i] *= shrink;
    }
    __syncwarp();
    weigh<CHUNKS, OWN>(sums, weights, values);
  }

#pragma unroll
  for (int r = 0; r < OWN; r++) {
    const float whole = warp_sum(total[r]);
    if (warp_query + r >= tokens) continue;
    const i64 at = (row + warp_query + r) * f.heads + head;
    store_row<CHUNKS>(f.out + at * head_dim, sums[r], 1.0f / whole, head_dim);
    if (lane == 0) f.lse[at] = largest[r] + logf(whole);
  }
}

// Grid: (H, ceil(T / (8 OWN)), B), 256 threads; CHUNKS * 32 elements hold a row of head_dim. Shared memory: (8 OWN + 64) rows
// and 8 OWN * 32 weights; `narrow` asks for 93 KiB, for GPUs with 99 a block. All know of windows and of what is before the queries.
#define ATTENTION(name, CHUNKS, OWN)                                                                                       \
  KERNEL __launch_bounds__(256, 1) attention_##name(FORWARD_PARAMETERS(real)) {                                            \
    attend<CHUNKS, OWN, false>(FORWARD_ARGUMENTS(real));                                                                   \
  }                                                                                                                        \
  KERNEL __launch_bounds__(256, 1) attention_##name##_shaped(FORWARD_PARAMETERS(real)) {                                   \
    attend<CHUNKS, OWN, true>(FORWARD_ARGUMENTS(real));                                                                    \
  }
ATTENTION(2, 2, 8)
ATTENTION(4, 4, 8)
ATTENTION(8, 8, 8)
ATTENTION(8_narrow, 8, 3)

EXPORT(attention_2)
EXPORT(attention_4)
EXPORT(attention_8)
EXPORT(attention_8_narrow)
EXPORT(attention_2_shaped)
EXPORT(attention_4_shaped)
EXPORT(attention_8_shaped)
EXPORT(attention_8_narrow_shaped)

// Attention in f32 arithmetic, any head_dim up to 256: out = softmax(Q K^T / sqrt(D)) V, and the log of the softmax's
// denominators, without a T x T matrix (online softmax: Milakov & Gimelshein 2018, algorithm 3).
//
// A block holds 64 queries, 8 a warp, and passes over the keys, 32 at a time: for scores a lane has a key, for sums every
// 32nd column of the values. FLOPs: 4 B H T^2 D, half of it causal, on the CUDA cores; 12 reads of 16 bytes from shared
// memory for each 32 multiply-adds of a warp. Bytes: qkv, out and lse once each, keys and values again for each further 64
// queries, from the L2 cache.
#include "attention_rows.h"

constexpr int WARPS = 8, KEYS = 32;

template <int CHUNKS, int OWN>
__device__ __forceinline__ void attend(const real* qkv, real* out, float* lse, int tokens, int heads, int kv_heads,
                                       int head_dim, int causal) {
  constexpr int QUERIES = WARPS * OWN;
  SHARED_BUFFER(float, shared);
  float* queries = shared;
  float* keys = queries + QUERIES * ROW<CHUNKS>;
  float* values = keys + KEYS * ROW<CHUNKS>;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float* weights = values + KEYS * ROW<CHUNKS> + warp * OWN * KEYS;

  const int first_query = query_tile(causal) * QUERIES;
  const int head = blockIdx.x, group = head / (heads / kv_heads);
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, row = i64(blockIdx.z) * tokens;
  const real* k = qkv + row * width + (heads + group) * head_dim;
  const real* v = k + kv_heads * head_dim;
  load_rows<CHUNKS, QUERIES>(queries, qkv + (row + first_query) * width + head * head_dim, width, tokens - first_query,
                             head_dim);

  const float scale = rsqrtf(float(head_dim));
  const float* own = queries + warp * OWN * ROW<CHUNKS>;
  const int warp_query = first_query + warp * OWN;
  float sums[OWN][CHUNKS] = {}, largest[OWN], total[OWN] = {};
#pragma unroll
  for (int r = 0; r < OWN; r++) largest[r] = -INFINITE;

  const int seen = causal ? min(tokens, first_query + QUERIES) : tokens;
  for (int first_key = 0; first_key < seen; first_key += KEYS) {
    __syncthreads();
    load_rows<CHUNKS, KEYS>(keys, k + first_key * width, width, tokens - first_key, head_dim);
    load_rows<CHUNKS, KEYS>(values, v + first_key * width, width, tokens - first_key, head_dim);
    __syncthreads();
    if (causal && first_key > warp_query + OWN - 1) continue;
    float s[OWN];
    dots<CHUNKS, OWN>(s, own, keys + lane * ROW<CHUNKS>, head_dim);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
      const int end = causal ? min(tokens, warp_query + r + 1) : tokens;
      const float score = first_key + lane < end ? s[r] * scale : -INFINITE;
      // Keys come in order: from the first on, every row has seen one.
      const float most = fmaxf(largest[r], warp_max(score));
      const float shrink = expf(largest[r] - most), p = expf(score - most);
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
    const i64 at = (row + warp_query + r) * heads + head;
    store_row<CHUNKS>(out + at * head_dim, sums[r], 1.0f / whole, head_dim);
    if (lane == 0) lse[at] = largest[r] + logf(whole);
  }
}

// Grid: (H, ceil(T / (8 OWN)), B), 256 threads; CHUNKS * 32 elements hold a row of head_dim. Shared memory: (8 OWN + 64) rows
// and 8 OWN * 32 weights; `narrow` asks for 93 KiB, for GPUs with 99 a block.
#define ATTENTION(name, CHUNKS, OWN)                                                                                       \
  KERNEL __launch_bounds__(256, 1) attention_##name(const real* qkv, real* out, float* lse, int tokens, int heads,         \
                                                    int kv_heads, int head_dim, int causal) {                              \
    attend<CHUNKS, OWN>(qkv, out, lse, tokens, heads, kv_heads, head_dim, causal);                                         \
  }
ATTENTION(2, 2, 8)
ATTENTION(4, 4, 8)
ATTENTION(8, 8, 8)
ATTENTION(8_narrow, 8, 3)

EXPORT(attention_2)
EXPORT(attention_4)
EXPORT(attention_8)
EXPORT(attention_8_narrow)

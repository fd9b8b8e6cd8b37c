// Attention on tensor cores: out = softmax(Q K^T / sqrt(D)) V, and the log of the softmax's denominators, without a T x T
// matrix. The manner of FlashAttention-2 (Dao 2023, algorithm 1): a block holds 128 queries and passes over the keys, 64 at
// a time; each of its four warps has 32 queries of its own, whose probabilities go from the result of one product to the
// factor of the next in registers.
//
// FLOPs: 4 B H T^2 D, half of it causal. Bytes: qkv, out and lse once each, and keys and values once more for each further
// 128 queries, from the L2 cache. Per 64 keys a warp reads 2 x 64 D numbers from shared memory for 2 x 32 x 64 D
// multiply-adds: 128 bytes a m16n8k16, within what a multiprocessor reads while it multiplies; hence 32 queries a warp,
// not 16.
//
// What a wider instruction (wgmma) would change is this file alone: the same arguments, another `scores` and `accumulate`.
#include "attention_tiles.h"

template <int D>
__device__ __forceinline__ void attend(const bf16* qkv, bf16* out, float* lse, int tokens, int heads, int kv_heads,
                                       int head_dim, int causal) {
  constexpr int THREADS = 128, QUERIES = 128, KEYS = 64, M = 2, N = KEYS / 8;
  constexpr int TILE = KEYS * D * 2;
  SHARED_BUFFER(char, shared);
  const SharedAddress queries = shared_address(shared), stages = queries + QUERIES * D * 2;

  // The longest first, so that the last blocks to run are short.
  const int first_query = (causal ? gridDim.x - 1 - blockIdx.x : blockIdx.x) * QUERIES;
  const int head = blockIdx.y, group = head / (heads / kv_heads);
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, row = i64(blockIdx.z) * tokens;
  const bf16* q = qkv + (row + first_query) * width + head * head_dim;
  const bf16* k = qkv + row * width + (heads + group) * head_dim;
  const bf16* v = k + kv_heads * head_dim;
  const auto load_keys = [&](int tile) {
    const SharedAddress to = stages + tile % 2 * 2 * TILE;
    const i64 from = i64(tile) * KEYS * width;
    load_tile<D, KEYS, THREADS>(to, k + from, width, tokens - tile * KEYS, head_dim);
    load_tile<D, KEYS, THREADS>(to + TILE, v + from, width, tokens - tile * KEYS, head_dim);
    commit_copies();
  };

  const int seen = causal ? min(tokens, first_query + QUERIES) : tokens;
  const int tiles = (seen + KEYS - 1) / KEYS;
  load_tile<D, QUERIES, THREADS>(queries, q, width, tokens - first_query, head_dim);
  load_keys(tiles - 1);

  const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 * M;
  const int warp_query = first_query + own_row;
  const float scale = rsqrtf(float(head_dim)), scale_2 = scale * LOG2_E;
  float sums[M][D / 8][4] = {}, largest[M][2], total[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITE, total[m][0] = total[m][1] = 0.0f;

  for (int tile = tiles - 1; tile >= 0; tile--) {
    wait_for_copies<0>();
    // The tile has come for all threads, and all are done with the one whose place the next one takes.
    __syncthreads();
    if (tile > 0) load_keys(tile - 1);
    const int first_key = tile * KEYS;
    if (causal && first_key > warp_query + 16 * M - 1) continue;

    const Fragments<D> own(queries), keys(stages + tile % 2 * 2 * TILE), values(stages + tile % 2 * 2 * TILE + TILE);
    float s[M][N][4];
    scores<D, M, N>(s, own, own_row, keys, 0);
    if (first_key + KEYS > tokens || (causal && first_key + KEYS - 1 > warp_query)) {
#pragma unroll
      for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int query = warp_query + 16 * m + i / 2 * 8 + lane / 4;
          const int end = causal ? min(tokens, query + 1) : tokens;
#pragma unroll
          for (int n = 0; n < N; n++) {
            if (first_key + 8 * n + lane % 4 * 2 + i % 2 >= end) s[m][n][i] = -INFINITE;
          }
        }
      }
    }
    unsigned p[M][N / 2][4];
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        float most = largest[m][i];
#pragma unroll
        for (int n = 0; n < N; n++) most = fmaxf(most, fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
        // A row that has seen no key yet keeps to zeros.
        const float offset = most == -INFINITE ? 0.0f : most * scale_2;
        const float shrink = exp2_fast(largest[m][i] * scale_2 - offset);
        largest[m][i] = most;
        float sum = 0.0f;
#pragma unroll
        for (int n = 0; n < N; n++) {
          const float low = exp2_fast(s[m][n][2 * i] * scale_2 - offset);
          const float high = exp2_fast(s[m][n][2 * i + 1] * scale_2 - offset);
          sum += low + high;
          p[m][n / 2][n % 2 * 2 + i] = to_bf16_pair(low, high);
        }
        total[m][i] = total[m][i] * shrink + sum;
#pragma unroll
        for (int n = 0; n < D / 8; n++) sums[m][n][2 * i] *= shrink, sums[m][n][2 * i + 1] *= shrink;
      }
    }
    accumulate<D, M, N>(sums, p, values, 0);
  }

  float factor[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float whole = total[m][i];
      whole += __shfl_xor_sync(ALL_LANES, whole, 1);
      whole += __shfl_xor_sync(ALL_LANES, whole, 2);
      factor[m][i] = 1.0f / whole;
      const int query = warp_query + 16 * m + 8 * i + lane / 4;
      if (lane % 4 == 0 && query < tokens) lse[(row + query) * heads + head] = largest[m][i] * scale + logf(whole);
    }
  }
  const i64 out_width = i64(heads) * head_dim;
  store_rows<D, M>(sums, factor, shared + own_row * D * 2, out + (row + warp_query) * out_width + head * head_dim,
                   out_width, tokens - warp_query, head_dim);
}

// Grid: (ceil(T / 128), H, B), 128 threads, (128 + 4 * 64) * D * 2 bytes of shared memory; D is head_dim rounded up to that
// of the kernel's name.
#define ATTENTION(D)                                                                                                       \
  KERNEL __launch_bounds__(128, 2) attention_mma_##D(const bf16* qkv, bf16* out, float* lse, int tokens, int heads,        \
                                                     int kv_heads, int head_dim, int causal) {                             \
    attend<D>(qkv, out, lse, tokens, heads, kv_heads, head_dim, causal);                                                   \
  }
ATTENTION(32)
ATTENTION(64)
ATTENTION(96)
ATTENTION(128)

EXPORT(attention_mma_32)
EXPORT(attention_mma_64)
EXPORT(attention_mma_96)
EXPORT(attention_mma_128)

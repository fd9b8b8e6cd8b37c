// Gradients of attention in f32 arithmetic, any head_dim up to 256, from what the forward pass keeps: lse. With
// P = exp(S - lse), dP = dO V^T and delta = sum of dO O over the head: dS = P (dP - delta), dV = P^T dO,
// dK = dS^T Q / sqrt(D), dQ = dS K / sqrt(D).
//
// attention_delta computes delta. attention_dkv gives a block 32 keys and passes over the queries of all heads that share
// them; attention_dq gives it 32 queries and passes over the keys. Each adds up in registers, in one order, so that
// gradients are the same in every run. FLOPs: 14 B H T^2 D, half of it causal. Bytes: delta reads out and dout once; the
// others read qkv and dout once, and again for each further 32 rows, from the L2 cache, and write dqkv once.
#include "attention_rows.h"

constexpr int WARPS = 8, COLUMNS = 32;

// delta [N, H]; a warp a row and head.
KERNEL attention_delta(const real* out, const real* dout, float* delta, int n, int heads, int head_dim) {
  const i64 item = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (item >= i64(n) * heads) return;
  const int lane = threadIdx.x % 32;
  const real* a = out + item * head_dim;
  const real* b = dout + item * head_dim;
  float sum = 0.0f;
  if (head_dim % WIDTH == 0) {
    for (int i = lane * WIDTH; i < head_dim; i += 32 * WIDTH) {
      float x[WIDTH], y[WIDTH];
      load(a + i, x);
      load(b + i, y);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) sum += x[j] * y[j];
    }
  } else {
    for (int i = lane; i < head_dim; i += 32) sum += to_float(a[i]) * to_float(b[i]);
  }
  sum = warp_sum(sum);
  if (lane == 0) delta[item] = sum;
}

// Own rows and the columns' rows, two matrices each, and each warp's weights.
template <int CHUNKS, int OWN>
struct Tiles {
  static constexpr int ROWS = WARPS * OWN;
  float *first, *second, *of_columns_first, *of_columns_second, *weights;
  __device__ __forceinline__ explicit Tiles(float* shared) {
    first = shared;
    second = first + ROWS * ROW<CHUNKS>;
    of_columns_first = second + ROWS * ROW<CHUNKS>;
    of_columns_second = of_columns_first + COLUMNS * ROW<CHUNKS>;
    weights = of_columns_second + COLUMNS * ROW<CHUNKS> + threadIdx.x / 32 * 2 * OWN * COLUMNS;
  }
};

template <int CHUNKS, int OWN>
__device__ __forceinline__ void key_gradients(const real* qkv, const real* dout, const float* lse, const float* delta,
                                              real* dqkv, int tokens, int heads, int kv_heads, int head_dim, int causal) {
  SHARED_BUFFER(float, shared);
  constexpr int ROWS = WARPS * OWN;
  const Tiles<CHUNKS, OWN> tiles(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_key = key_tile() * ROWS, group = blockIdx.x, sharing = heads / kv_heads;
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, out_width = i64(heads) * head_dim;
  const i64 row = i64(blockIdx.z) * tokens;
  const i64 key = (row + first_key) * width + (heads + group) * head_dim, value = key + kv_heads * head_dim;
  load_rows<CHUNKS, ROWS>(tiles.first, qkv + key, width, tokens - first_key, head_dim);
  load_rows<CHUNKS, ROWS>(tiles.second, qkv + value, width, tokens - first_key, head_dim);

  const float scale = rsqrtf(float(head_dim));
  const int own = warp * OWN * ROW<CHUNKS>, warp_key = first_key + warp * OWN;
  float dk[OWN][CHUNKS] = {}, dv[OWN][CHUNKS] = {};
  for (int head = group * sharing; head < (group + 1) * sharing; head++) {
    for (int first = causal ? first_key : 0; first < tokens; first += COLUMNS) {
      __syncthreads();
      load_rows<CHUNKS, COLUMNS>(tiles.of_columns_first, qkv + (row + first) * width + head * head_dim, width,
                                 tokens - first, head_dim);
      load_rows<CHUNKS, COLUMNS>(tiles.of_columns_second, dout + (row + first) * out_width + head * head_dim, out_width,
                                 tokens - first, head_dim);
      __syncthreads();
      const int query = first + lane;
      const i64 at = (row + query) * heads + head;
      const float offset = query < tokens ? lse[at] : 0.0f, mean = query < tokens ? delta[at] : 0.0f;
      float s[OWN], dp[OWN];
      dots<CHUNKS, OWN>(s, tiles.first + own, tiles.of_columns_first + lane * ROW<CHUNKS>, head_dim);
      dots<CHUNKS, OWN>(dp, tiles.second + own, tiles.of_columns_second + lane * ROW<CHUNKS>, head_dim);
#pragma unroll
      for (int r = 0; r < OWN; r++) {
        const bool seen = query < tokens && (!causal || warp_key + r <= query);
        const float p = seen ? expf(s[r] * scale - offset) : 0.0f;
        tiles.weights[r * COLUMNS + lane] = p;
        tiles.weights[(OWN + r) * COLUMNS + lane] = p * (dp[r] - mean);
      }
      __syncwarp();
      weigh<CHUNKS, OWN>(dv, tiles.weights, tiles.of_columns_second);
      weigh<CHUNKS, OWN>(dk, tiles.weights + OWN * COLUMNS, tiles.of_columns_first);
    }
  }
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    if (warp_key + r >= tokens) continue;
    store_row<CHUNKS>(dqkv + key + (warp * OWN + r) * width, dk[r], scale, head_dim);
    store_row<CHUNKS>(dqkv + value + (warp * OWN + r) * width, dv[r], 1.0f, head_dim);
  }
}

template <int CHUNKS, int OWN>
__device__ __forceinline__ void query_gradients(const real* qkv, const real* dout, const float* lse, const float* delta,
                                                real* dqkv, int tokens, int heads, int kv_heads, int head_dim, int causal) {
  SHARED_BUFFER(float, shared);
  constexpr int ROWS = WARPS * OWN;
  const Tiles<CHUNKS, OWN> tiles(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int first_query = query_tile(causal) * ROWS;
  const int head = blockIdx.x, group = head / (heads / kv_heads);
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, out_width = i64(heads) * head_dim;
  const i64 row = i64(blockIdx.z) * tokens;
  const i64 query = (row + first_query) * width + head * head_dim;
  load_rows<CHUNKS, ROWS>(tiles.first, qkv + query, width, tokens - first_query, head_dim);
  load_rows<CHUNKS, ROWS>(tiles.second, dout + (row + first_query) * out_width + head * head_dim, out_width,
                          tokens - first_query, head_dim);

  const float scale = rsqrtf(float(head_dim));
  const int own = warp * OWN * ROW<CHUNKS>, warp_query = first_query + warp * OWN;
  float dq[OWN][CHUNKS] = {}, offset[OWN], mean[OWN];
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    const bool there = warp_query + r < tokens;
    const i64 at = (row + warp_query + r) * heads + head;
    offset[r] = there ? lse[at] : 0.0f, mean[r] = there ? delta[at] : 0.0f;
  }
  const int seen = causal ? min(tokens, first_query + ROWS) : tokens;
  for (int first = 0; first < seen; first += COLUMNS) {
    __syncthreads();
    const i64 key = (row + first) * width + (heads + group) * head_dim;
    load_rows<CHUNKS, COLUMNS>(tiles.of_columns_first, qkv + key, width, tokens - first, head_dim);
    load_rows<CHUNKS, COLUMNS>(tiles.of_columns_second, qkv + key + kv_heads * head_dim, width, tokens - first, head_dim);
    __syncthreads();
    float s[OWN], dp[OWN];
    dots<CHUNKS, OWN>(s, tiles.first + own, tiles.of_columns_first + lane * ROW<CHUNKS>, head_dim);
    dots<CHUNKS, OWN>(dp, tiles.second + own, tiles.of_columns_second + lane * ROW<CHUNKS>, head_dim);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
      const bool counted = first + lane < (causal ? min(tokens, warp_query + r + 1) : tokens);
      tiles.weights[r * COLUMNS + lane] = counted ? expf(s[r] * scale - offset[r]) * (dp[r] - mean[r]) : 0.0f;
    }
    __syncwarp();
    weigh<CHUNKS, OWN>(dq, tiles.weights, tiles.of_columns_first);
  }
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    if (warp_query + r < tokens) store_row<CHUNKS>(dqkv + query + (warp * OWN + r) * width, dq[r], scale, head_dim);
  }
}

// Grids: (KV, ceil(T / (8 OWN)), B) for dkv, (H, ceil(T / (8 OWN)), B) for dq, 256 threads; CHUNKS * 32 elements hold a row of
// head_dim. Shared memory: 2 * (8 OWN + 32) rows and 16 OWN * 32 weights; `narrow` asks for 84 KiB, for GPUs with 99 a block.
#define BACKWARD(name, CHUNKS, OWN)                                                                                        \
  KERNEL __launch_bounds__(256, 1)                                                                                         \
      attention_dkv_##name(const real* qkv, const real* dout, const float* lse, const float* delta, real* dqkv,            \
                           int tokens, int heads, int kv_heads, int head_dim, int causal) {                                \
    key_gradients<CHUNKS, OWN>(qkv, dout, lse, delta, dqkv, tokens, heads, kv_heads, head_dim, causal);                    \
  }                                                                                                                        \
  KERNEL __launch_bounds__(256, 1)                                                                                         \
      attention_dq_##name(const real* qkv, const real* dout, const float* lse, const float* delta, real* dqkv,             \
                          int tokens, int heads, int kv_heads, int head_dim, int causal) {                                 \
    query_gradients<CHUNKS, OWN>(qkv, dout, lse, delta, dqkv, tokens, heads, kv_heads, head_dim, causal);                  \
  }
BACKWARD(2, 2, 4)
BACKWARD(4, 4, 4)
BACKWARD(8, 8, 4)
BACKWARD(8_narrow, 8, 1)

EXPORT(attention_delta)
EXPORT(attention_dkv_2)
EXPORT(attention_dkv_4)
EXPORT(attention_dkv_8)
EXPORT(attention_dkv_8_narrow)
EXPORT(attention_dq_2)
EXPORT(attention_dq_4)
EXPORT(attention_dq_8)
EXPORT(attention_dq_8_narrow)

// Gradients of attention in f32 arithmetic, any head_dim up to 256, from what the forward pass keeps: lse. With
// P = exp(S - lse), dP = dO V^T and delta = sum of dO O over the head: dS = P (dP - delta), dV = P^T dO,
// dK = scale dS^T Q, dQ = scale dS K. Where scores are capped, dS is multiplied by the cap's derivative.
//
// attention_delta computes delta. attention_dkv gives a block 32 keys and passes over the queries of all heads that share
// them; attention_dq gives it 32 queries and passes over the keys. Each adds up in registers, in one order, so that
// gradients are the same in every run. FLOPs: 14 B H T^2 D, half of it causal. Bytes: delta reads out and dout once; the
// others read qkv and dout once, and again for each further 32 rows, from the L2 cache, and write dqkv once.
#include "attention_rows.h"
#include "attention_scores.h"

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

template <int CHUNKS, int OWN, bool SHAPED>
__device__ __forceinline__ void key_gradients(const Backward<real>& b) {
  SHARED_BUFFER(float, shared);
  constexpr int ROWS = WARPS * OWN;
  const Tiles<CHUNKS, OWN> tiles(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tokens = b.tokens, heads = b.heads, head_dim = b.head_dim;
  const int first_key = key_tile() * ROWS, group = blockIdx.x, sharing = heads / b.kv_heads;
  const i64 width = i64(heads + 2 * b.kv_heads) * head_dim, out_width = i64(heads) * head_dim;
  const i64 row = i64(blockIdx.z) * tokens;
  const i64 key = (row + first_key) * width + (heads + group) * head_dim, value = key + b.kv_heads * head_dim;
  load_rows<CHUNKS, ROWS>(tiles.first, b.qkv + key, width, tokens - first_key, head_dim);
  load_rows<CHUNKS, ROWS>(tiles.second, b.qkv + value, width, tokens - first_key, head_dim);

  const Sight sight = {tokens, 0, b.causal, b.window};
  const int own = warp * OWN * ROW<CHUNKS>, warp_key = first_key + warp * OWN;
  // Queries past the last key's window see none.
  const int past = b.causal ? min(tokens, first_key + ROWS - 1 + b.window) : tokens;
  float dk[OWN][CHUNKS] = {}, dv[OWN][CHUNKS] = {};
  for (int head = group * sharing; head < (group + 1) * sharing; head++) {
    const Shaping shaped(b.scale, SHAPED ? b.cap : 0.0f, SHAPED ? b.alibi : 0, head, heads, 1.0f);
    for (int first = b.causal ? first_key : 0; first < past; first += COLUMNS) {
      __syncthreads();
      load_rows<CHUNKS, COLUMNS>(tiles.of_columns_first, b.qkv + (row + first) * width + head * head_dim, width,
                                 tokens - first, head_dim);
      load_rows<CHUNKS, COLUMNS>(tiles.of_columns_second, b.dout + (row + first) * out_width + head * head_dim, out_width,
                                 tokens - first, head_dim);
      __syncthreads();
      const int query = first + lane;
      const i64 at = (row + query) * heads + head;
      const float offset = query < tokens ? b.lse[at] : 0.0f, mean = query < tokens ? b.delta[at] : 0.0f;
      float s[OWN], dp[OWN];
      dots<CHUNKS, OWN>(s, tiles.first + own, tiles.of_columns_first + lane * ROW<CHUNKS>, head_dim);
      dots<CHUNKS, OWN>(dp, tiles.second + own, tiles.of_columns_second + lane * ROW<CHUNKS>, head_dim);
#pragma unroll
      for (int r = 0; r < OWN; r++) {
        const int of = warp_key + r;
        const bool seen = query < tokens && of < sight.past(query) && of >= sight.first(query);
        const float p = seen ? expf((SHAPED ? shaped(s[r], of) : s[r] * b.scale) - offset) : 0.0f;
        tiles.weights[r * COLUMNS + lane] = p;
        tiles.weights[(OWN + r) * COLUMNS + lane] = p * (dp[r] - mean) * (SHAPED ? shaped.derivative(s[r]) : 1.0f);
      }
      __syncwarp();
      weigh<CHUNKS, OWN>(dv, tiles.weights, tiles.of_columns_second);
      weigh<CHUNKS, OWN>(dk, tiles.weights + OWN * COLUMNS, tiles.of_columns_first);
    }
  }
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    if (warp_key + r >= tokens) continue;
    store_row<CHUNKS>(b.dqkv + key + (warp * OWN + r) * width, dk[r], b.scale, head_dim);
    store_row<CHUNKS>(b.dqkv + value + (warp * OWN + r) * width, dv[r], 1.0f, head_dim);
  }
}

template <int CHUNKS, int OWN, bool SHAPED>
__device__ __forceinline__ void query_gradients(const Backward<real>& b) {
  SHARED_BUFFER(float, shared);
  constexpr int ROWS = WARPS * OWN;
  const Tiles<CHUNKS, OWN> tiles(shared);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tokens = b.tokens, heads = b.heads, head_dim = b.head_dim;
  const int first_query = query_tile(b.causal) * ROWS;
  const int head = blockIdx.x, group = head / (heads / b.kv_heads);
  const i64 width = i64(heads + 2 * b.kv_heads) * head_dim, out_width = i64(heads) * head_dim;
  const i64 row = i64(blockIdx.z) * tokens;
  const i64 query = (row + first_query) * width + head * head_dim;
  load_rows<CHUNKS, ROWS>(tiles.first, b.qkv + query, width, tokens - first_query, head_dim);
  load_rows<CHUNKS, ROWS>(tiles.second, b.dout + (row + first_query) * out_width + head * head_dim, out_width,
                          tokens - first_query, head_dim);

  const Sight sight = {tokens, 0, b.causal, b.window};
  const Shaping shaped(b.scale, SHAPED ? b.cap : 0.0f, SHAPED ? b.alibi : 0, head, heads, 1.0f);
  const int own = warp * OWN * ROW<CHUNKS>, warp_query = first_query + warp * OWN;
  float dq[OWN][CHUNKS] = {}, offset[OWN], mean[OWN];
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    const bool there = warp_query + r < tokens;
    const i64 at = (row + warp_query + r) * heads + head;
    offset[r] = there ? b.lse[at] : 0.0f, mean[r] = there ? b.delta[at] : 0.0f;
  }
  const int seen = sight.past(first_query + ROWS - 1);
  for (int first = sight.first(first_query) / COLUMNS * COLUMNS; first < seen; first += COLUMNS) {
    __syncthreads();
    const i64 key = (row + first) * width + (heads + group) * head_dim;
    load_rows<CHUNKS, COLUMNS>(tiles.of_columns_first, b.qkv + key, width, tokens - first, head_dim);
    load_rows<CHUNKS, COLUMNS>(tiles.of_columns_second, b.qkv + key + b.kv_heads * head_dim, width, tokens - first,
                               head_dim);
    __syncthreads();
    float s[OWN], dp[OWN];
    dots<CHUNKS, OWN>(s, tiles.first + own, tiles.of_columns_first + lane * ROW<CHUNKS>, head_dim);
    dots<CHUNKS, OWN>(dp, tiles.second + own, tiles.of_columns_second + lane * ROW<CHUNKS>, head_dim);
#pragma unroll
    for (int r = 0; r < OWN; r++) {
      const int of = first + lane;
      const bool counted = of < sight.past(warp_query + r) && of >= sight.first(warp_query + r);
      const float p = counted ? expf((SHAPED ? shaped(s[r], of) : s[r] * b.scale) - offset[r]) : 0.0f;
      const float ds = p * (dp[r] - mean[r]) * (SHAPED ? shaped.derivative(s[r]) : 1.0f);
      tiles.weights[r * COLUMNS + lane] = counted ? ds : 0.0f;
    }
    __syncwarp();
    weigh<CHUNKS, OWN>(dq, tiles.weights, tiles.of_columns_first);
  }
#pragma unroll
  for (int r = 0; r < OWN; r++) {
    if (warp_query + r < tokens) store_row<CHUNKS>(b.dqkv + query + (warp * OWN + r) * width, dq[r], b.scale, head_dim);
  }
}

// Grids: (KV, ceil(T / (8 OWN)), B) for dkv, (H, ceil(T / (8 OWN)), B) for dq, 256 threads; CHUNKS * 32 elements hold a row of
// head_dim. Shared memory: 2 * (8 OWN + 32) rows and 16 OWN * 32 weights; `narrow` asks for 84 KiB, for GPUs with 99 a block. All
// know of windows.
#define OF_SCORES(name, CHUNKS, OWN, SHAPED)                                                                               \
  KERNEL __launch_bounds__(256, 1) attention_dkv_##name(BACKWARD_PARAMETERS(real)) {                                       \
    key_gradients<CHUNKS, OWN, SHAPED>(BACKWARD_ARGUMENTS(real));                                                          \
  }                                                                                                                        \
  KERNEL __launch_bounds__(256, 1) attention_dq_##name(BACKWARD_PARAMETERS(real)) {                                        \
    query_gradients<CHUNKS, OWN, SHAPED>(BACKWARD_ARGUMENTS(real));                                                        \
  }
#define BACKWARD(name, CHUNKS, OWN)                                                                                        \
  OF_SCORES(name, CHUNKS, OWN, false)                                                                                      \
  OF_SCORES(name##_shaped, CHUNKS, OWN, true)
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
EXPORT(attention_dkv_2_shaped)
EXPORT(attention_dkv_4_shaped)
EXPORT(attention_dkv_8_shaped)
EXPORT(attention_dkv_8_narrow_shaped)
EXPORT(attention_dq_2_shaped)
EXPORT(attention_dq_4_shaped)
EXPORT(attention_dq_8_shaped)
EXPORT(attention_dq_8_narrow_shaped)

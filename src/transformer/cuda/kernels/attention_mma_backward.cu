// Gradients of attention on tensor cores, from what the forward pass keeps: lse. With P = exp(S - lse), dP = dO V^T and
// delta = sum of dO O over the head: dS = P (dP - delta), dV = P^T dO, dK = dS^T Q / sqrt(D), dQ = dS K / sqrt(D)
// (FlashAttention-2, Dao 2023, algorithm 2).
//
// Two kernels, each of which adds up its results in registers in one order, so that gradients are the same in every run:
//   attention_mma_dkv  a block holds 128 keys and passes over the queries: S^T, dP^T, dV, dK, 4 products
//   attention_mma_dq   a block holds 128 queries and passes over the keys: S, dP, dQ, 3 products
// FLOPs: 14 B H T^2 D, half of it causal, where one pass that adds dQ up in memory would take 10. That pass would move
// 2 * 4 bytes of dQ for each query and key tile (2.8 TB/s at half of an H100's rate) and have its blocks wait for one
// another to keep to one order. In both kernels the products' results are the factors of the next in registers; P and dS
// never go through shared memory.
//
// Bytes: qkv, dout, lse, delta and dqkv once each from memory; queries (keys) and their gradients again for each further
// 128 keys (queries), from the L2 cache.
//
// The bound on an A100, in clocks of a multiprocessor for a block and 64 queries (dkv) or keys (dq): products (1024
// multiply-adds a clock), shared memory (ldmatrix of 512 bytes, 128 a clock), exponentials (16 a clock):
//             products   shared memory   exponentials   blocks a multiprocessor
//   dkv_64    2048       1536            512            2
//   dkv_128   4096       4608            512            1 of eight warps (registers); narrow: 5120
//   dq_64     1536       1280            512            2
//   dq_128    3072       2560            512            2
// With 10 FLOPs counted of the 14 that are done: 10 / 14 = 71 % of the rate for D = 64, 67 % for 128.
#include "attention_tiles.h"

// Keys and values of 128 positions against the queries, 64 at a time, of all heads that share them. Everything is transposed
// round: S^T [keys, queries], so that P^T and dS^T are the left factors of dV and dK. Up to D = 64, a warp has 32 keys, and
// takes the queries 32 at a time; beyond, sums leave room for 16 keys. With QUERIES = 32, D = 128 takes 97 KiB of shared
// memory instead of 129, which GPUs with 99 KiB a block have (8.6, 8.9, 12.0), for twice the barriers.
template <int D, int OF_TILE>
struct KeyGradients {
  static constexpr int M = D <= 64 ? 2 : 1, WARPS = D <= 64 ? 4 : 8, THREADS = 32 * WARPS, KEYS = 16 * M * WARPS;
  static constexpr int QUERIES = OF_TILE, AT_ONCE = D <= 64 || QUERIES < 64 ? 32 : 64, N = AT_ONCE / 8;
  static constexpr int TILE = QUERIES * D * 2, STAGE = 2 * TILE + 2 * QUERIES * 4;
};

template <int D, int OF_TILE>
__device__ __forceinline__ void key_gradients(const bf16* qkv, const bf16* dout, const float* lse, const float* delta,
                                              bf16* dqkv, const Place& place, int causal) {
  using Sizes = KeyGradients<D, OF_TILE>;
  constexpr int M = Sizes::M, N = Sizes::N, QUERIES = Sizes::QUERIES, THREADS = Sizes::THREADS, TILE = Sizes::TILE;
  SHARED_BUFFER(char, shared);
  const SharedAddress keys = shared_address(shared), values = keys + Sizes::KEYS * D * 2;
  const SharedAddress stages = values + Sizes::KEYS * D * 2;
  const char* stage_memory = shared + 2 * Sizes::KEYS * D * 2;

  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads;
  int group = blockIdx.x;
  computed_here(group);
  const int first_key = key_tile() * Sizes::KEYS, sharing = heads / place.kv_heads;
  // The queries to be copied next: those of one head after another.
  static_assert(Sizes::KEYS % QUERIES == 0, "the first queries that see the first key begin a tile");
  const int begin = causal ? first_key : 0, last_head = group * sharing + sharing - 1;
  int head = group * sharing, query = begin;
  const auto load_queries = [&](SharedAddress to) {
    computed_here(query);
    const int inside = tokens - query;
    load_tile<D, QUERIES, THREADS>(to, qkv + place.query(head) + query * place.width, place.width, inside, head_dim);
    load_tile<D, QUERIES, THREADS>(to + TILE, dout + place.result(head) + query * place.out_width, place.out_width, inside,
                                   head_dim);
    if (threadIdx.x < QUERIES) {
      // Zeros past the end make P one there, and its products with the zeros of dO and of Q nothing.
      const i64 at = (place.row + query + int(threadIdx.x)) * heads + head;
      const SharedAddress statistics = to + 2 * TILE + threadIdx.x * 4;
      copy_async_4(statistics, lse + at, int(threadIdx.x) < inside);
      copy_async_4(statistics + QUERIES * 4, delta + at, int(threadIdx.x) < inside);
    }
    commit_copies();
  };

  load_tile<D, Sizes::KEYS, THREADS>(keys, qkv + place.key(group) + first_key * place.width, place.width,
                                     tokens - first_key, head_dim);
  load_tile<D, Sizes::KEYS, THREADS>(values, qkv + place.value(group) + first_key * place.width, place.width,
                                     tokens - first_key, head_dim);
  load_queries(stages);

  const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 * M, warp_key = first_key + own_row;
  const float scale = rsqrtf(float(head_dim)), scale_2 = scale * LOG2_E;
  float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {};

  bool more = true;
  for (int step = 0; more; step++) {
    wait_for_copies<0>();
    __syncthreads();
    const int first_query = query;
    query += QUERIES;
    if (query >= tokens) query = begin, head++;
    more = head <= last_head;
    if (more) load_queries(stages + (step + 1) % 2 * Sizes::STAGE);
    const SharedAddress stage = stages + step % 2 * Sizes::STAGE;
    const float* statistics = reinterpret_cast<const float*>(stage_memory + step % 2 * Sizes::STAGE + 2 * TILE);
    const Fragments<D> k(keys), v(values), q(stage), go(stage + TILE);
#pragma unroll
    for (int part = 0; part < QUERIES; part += Sizes::AT_ONCE) {
      if (causal && first_query + part + Sizes::AT_ONCE - 1 < warp_key) continue;
      float s[M][N][4], ds[M][N][4];
      scores<D, M, N>(s, k, own_row, q, part);
      if (causal && first_query + part < warp_key + 16 * M - 1) {
        const int ahead = warp_key - first_query - part + lane / 4 - lane % 4 * 2;
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
          for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
              if (ahead > 8 * n + i % 2 - (16 * m + i / 2 * 8)) s[m][n][i] = -INFINITE;
            }
          }
        }
      }
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const float offset = statistics[part + 8 * n + lane % 4 * 2 + e] * LOG2_E;
#pragma unroll
          for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = e; i < 4; i += 2) s[m][n][i] = exp2_fast(s[m][n][i] * scale_2 - offset);
          }
        }
      }
      unsigned left[M][N / 2][4];
      round_to_a<M, N>(left, s);
      accumulate<D, M, N>(dv, left, go, part);
      scores<D, M, N>(ds, v, own_row, go, part);
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const float mean = statistics[QUERIES + part + 8 * n + lane % 4 * 2 + e];
#pragma unroll
          for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = e; i < 4; i += 2) ds[m][n][i] = s[m][n][i] * (ds[m][n][i] - mean);
          }
        }
      }
      round_to_a<M, N>(left, ds);
      accumulate<D, M, N>(dk, left, q, part);
    }
  }

  float by_scale[M][2], by_one[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) by_scale[m][0] = by_scale[m][1] = scale, by_one[m][0] = by_one[m][1] = 1.0f;
  const Place same = place.again();
  const i64 at = warp_key * same.width;
  char* own = shared + own_row * D * 2;
  store_rows<D, M>(dk, by_scale, own, dqkv + same.key(group) + at, same.width, tokens - warp_key, head_dim);
  store_rows<D, M>(dv, by_one, own + Sizes::KEYS * D * 2, dqkv + same.value(group) + at, same.width, tokens - warp_key,
                   head_dim);
}

// 128 queries of one head against the keys; a warp has 32 queries and takes the keys 32 at a time.
//
// A block's four warps are one for each scheduler, so two blocks have to fit a multiprocessor. An A100's has 164 KiB, of
// which a block takes 1 more than it asks for. With D = 128, queries and their gradients are 64 KiB: that leaves room for
// one stage of 32 keys and values, and a block's wait for the next is the other's time: its products take 1536 clocks.
// (Two stages of 16 keys fit as well, but the queries are then read twice as often, at 150 bytes a clock of 128.)
template <int D>
struct QueryGradients {
  static constexpr int M = 2, WARPS = 4, THREADS = 32 * WARPS, QUERIES = 16 * M * WARPS;
  static constexpr int KEYS = D <= 64 ? 64 : 32, AT_ONCE = 32, N = AT_ONCE / 8, TILE = KEYS * D * 2;
  static constexpr int STAGES = D <= 96 ? 2 : 1;
};

template <int D>
__device__ __forceinline__ void query_gradients(const bf16* qkv, const bf16* dout, const float* lse, const float* delta,
                                                bf16* dqkv, const Place& place, int causal) {
  using Sizes = QueryGradients<D>;
  constexpr int M = Sizes::M, N = Sizes::N, KEYS = Sizes::KEYS, THREADS = Sizes::THREADS, TILE = Sizes::TILE;
  SHARED_BUFFER(char, shared);
  const SharedAddress queries = shared_address(shared), gradients = queries + Sizes::QUERIES * D * 2;
  const SharedAddress stages = gradients + Sizes::QUERIES * D * 2;

  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads;
  const int first_query = query_tile(causal) * Sizes::QUERIES;
  const int head = blockIdx.x, group = head / (heads / place.kv_heads);
  const auto load_keys = [&](int tile) {
    const SharedAddress to = stages + tile % Sizes::STAGES * 2 * TILE;
    const int key = tile * KEYS;
    load_tile<D, KEYS, THREADS>(to, qkv + place.key(group) + key * place.width, place.width, tokens - key, head_dim);
    load_tile<D, KEYS, THREADS>(to + TILE, qkv + place.value(group) + key * place.width, place.width, tokens - key,
                                head_dim);
    commit_copies();
  };
  const int tiles = ((causal ? min(tokens, first_query + Sizes::QUERIES) : tokens) + KEYS - 1) / KEYS;
  load_tile<D, Sizes::QUERIES, THREADS>(queries, qkv + place.query(head) + first_query * place.width, place.width,
                                        tokens - first_query, head_dim);
  load_tile<D, Sizes::QUERIES, THREADS>(gradients, dout + place.result(head) + first_query * place.out_width,
                                        place.out_width, tokens - first_query, head_dim);
  load_keys(0);

  const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 * M, warp_query = first_query + own_row;
  const float scale = rsqrtf(float(head_dim)), scale_2 = scale * LOG2_E;
  float dq[M][D / 8][4] = {}, offset[M][2], mean[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int query = warp_query + 16 * m + 8 * i + lane / 4;
      const i64 at = (place.row + query) * heads + head;
      offset[m][i] = query < tokens ? lse[at] * LOG2_E : 0.0f;
      mean[m][i] = query < tokens ? delta[at] : 0.0f;
    }
  }

  for (int tile = 0; tile < tiles; tile++) {
    if (Sizes::STAGES == 1 && tile > 0) {
      __syncthreads();
      load_keys(tile);
    }
    wait_for_copies<0>();
    __syncthreads();
    if (Sizes::STAGES == 2 && tile + 1 < tiles) load_keys(tile + 1);
    const SharedAddress stage = stages + tile % Sizes::STAGES * 2 * TILE;
    const Fragments<D> q(queries), go(gradients), k(stage), v(stage + TILE);
#pragma unroll
    for (int part = 0; part < KEYS; part += Sizes::AT_ONCE) {
      const int first_key = tile * KEYS + part;
      if (causal && first_key > warp_query + 16 * M - 1) continue;
      float s[M][N][4], ds[M][N][4];
      scores<D, M, N>(s, q, own_row, k, part);
      scores<D, M, N>(ds, go, own_row, v, part);
      const bool masked = first_key + Sizes::AT_ONCE > tokens || (causal && first_key + Sizes::AT_ONCE - 1 > warp_query);
#pragma unroll
      for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int query = warp_query + 16 * m + i / 2 * 8 + lane / 4;
          const int end = causal ? min(tokens, query + 1) : tokens;
#pragma unroll
          for (int n = 0; n < N; n++) {
            const float p = exp2_fast(s[m][n][i] * scale_2 - offset[m][i / 2]);
            const bool hidden = masked && first_key + 8 * n + lane % 4 * 2 + i % 2 >= end;
            ds[m][n][i] = hidden ? 0.0f : p * (ds[m][n][i] - mean[m][i / 2]);
          }
        }
      }
      unsigned left[M][N / 2][4];
      round_to_a<M, N>(left, ds);
      accumulate<D, M, N>(dq, left, k, part);
    }
  }

  float by_scale[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) by_scale[m][0] = by_scale[m][1] = scale;
  store_rows<D, M>(dq, by_scale, shared + own_row * D * 2, dqkv + place.query(head) + warp_query * place.width, place.width,
                   tokens - warp_query, head_dim);
}

// Grids: (KV, ceil(T / 128), B) for dkv, (H, ceil(T / 128), B) for dq; D is head_dim rounded up to that of the kernel's
// name.
#define OF_KEYS(name, D, QUERIES)                                                                                          \
  KERNEL __launch_bounds__(KeyGradients<D, QUERIES>::THREADS, 256 / KeyGradients<D, QUERIES>::THREADS)                     \
      attention_mma_dkv_##name(const bf16* qkv, const bf16* dout, const float* lse, const float* delta, bf16* dqkv,        \
                               int tokens, int heads, int kv_heads, int head_dim, int causal) {                            \
    key_gradients<D, QUERIES>(qkv, dout, lse, delta, dqkv, Place(tokens, heads, kv_heads, head_dim), causal);              \
  }
#define BACKWARD(D)                                                                                                        \
  OF_KEYS(D, D, 64)                                                                                                        \
  KERNEL __launch_bounds__(QueryGradients<D>::THREADS, 2)                                                                  \
      attention_mma_dq_##D(const bf16* qkv, const bf16* dout, const float* lse, const float* delta, bf16* dqkv,            \
                           int tokens, int heads, int kv_heads, int head_dim, int causal) {                                \
    query_gradients<D>(qkv, dout, lse, delta, dqkv, Place(tokens, heads, kv_heads, head_dim), causal);                     \
  }
BACKWARD(32)
BACKWARD(64)
BACKWARD(96)
BACKWARD(128)
OF_KEYS(128_narrow, 128, 32)

EXPORT(attention_mma_dkv_32)
EXPORT(attention_mma_dkv_64)
EXPORT(attention_mma_dkv_96)
EXPORT(attention_mma_dkv_128)
EXPORT(attention_mma_dkv_128_narrow)
EXPORT(attention_mma_dq_32)
EXPORT(attention_mma_dq_64)
EXPORT(attention_mma_dq_96)
EXPORT(attention_mma_dq_128)

// Gradients of attention on tensor cores, from what the forward pass keeps: lse. With P = exp(S - lse), dP = dO V^T and
// delta = sum of dO O over the head: dS = P (dP - delta), dV = P^T dO, dK = scale dS^T Q, dQ = scale dS K
// (FlashAttention-2, Dao 2023, algorithm 2). Where scores are capped, dS is multiplied by the cap's derivative.
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
#include "attention_scores.h"
#include "attention_tiles.h"

// Keys and values of 128 positions against the queries, 64 at a time, of all heads that share them. Everything is transposed
// round: S^T [keys, queries], so that P^T and dS^T are the left factors of dV and dK. Up to D = 64, a warp has 32 keys, and
// takes the queries 32 at a time; beyond, sums leave room for 16 keys. Where scores are shaped, their products stay as well,
// which leaves room for fewer queries at a time. With QUERIES = 32, D = 128 takes 97 KiB of shared memory instead of 129,
// which GPUs with 99 KiB a block have (8.6, 8.9, 12.0), for twice the barriers.
template <int D, int OF_TILE, bool SHAPED>
struct KeyGradients {
  static constexpr int M = D <= 64 ? 2 : 1, WARPS = D <= 64 ? 4 : 8, THREADS = 32 * WARPS, KEYS = 16 * M * WARPS;
  static constexpr int QUERIES = OF_TILE;
  static constexpr int AT_ONCE = SHAPED && D % 64 == 0 ? 16 : SHAPED || D <= 64 || QUERIES < 64 ? 32 : 64, N = AT_ONCE / 8;
  static constexpr int TILE = QUERIES * D * 2, STAGE = 2 * TILE + 2 * QUERIES * 4;
};

template <int D, int OF_TILE, bool SHAPED>
__device__ __forceinline__ void key_gradients(const Backward<bf16>& b) {
  using Sizes = KeyGradients<D, OF_TILE, SHAPED>;
  constexpr int M = Sizes::M, N = Sizes::N, QUERIES = Sizes::QUERIES, THREADS = Sizes::THREADS, TILE = Sizes::TILE;
  SHARED_BUFFER(char, shared);
  const SharedAddress keys = shared_address(shared), values = keys + Sizes::KEYS * D * 2;
  const SharedAddress stages = values + Sizes::KEYS * D * 2;
  const char* stage_memory = shared + 2 * Sizes::KEYS * D * 2;

  const Place place(b.tokens, b.heads, b.kv_heads, b.head_dim);
  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads;
  int group = blockIdx.x;
  computed_here(group);
  const int first_key = key_tile() * Sizes::KEYS, sharing = heads / place.kv_heads;
  // The queries to be copied next: those of one head after another.
  static_assert(Sizes::KEYS % QUERIES == 0, "the first queries that see the first key begin a tile");
  const int begin = b.causal ? first_key : 0, last_head = group * sharing + sharing - 1;
  // Queries past the last key's window see none.
  const int past = SHAPED && b.causal ? min(tokens, first_key + Sizes::KEYS - 1 + b.window) : tokens;
  int head = group * sharing, query = begin;
  const auto load_queries = [&](SharedAddress to) {
    computed_here(query);
    const int inside = tokens - query;
    load_tile<D, QUERIES, THREADS>(to, b.qkv + place.query(head) + query * place.width, place.width, inside, head_dim);
    load_tile<D, QUERIES, THREADS>(to + TILE, b.dout + place.result(head) + query * place.out_width, place.out_width,
                                   inside, head_dim);
    if (threadIdx.x < QUERIES) {
      // Zeros past the end make P one there, and its products with the zeros of dO and of Q nothing.
      const i64 at = (place.row + query + int(threadIdx.x)) * heads + head;
      const SharedAddress statistics = to + 2 * TILE + threadIdx.x * 4;
      copy_async_4(statistics, b.lse + at, int(threadIdx.x) < inside);
      copy_async_4(statistics + QUERIES * 4, b.delta + at, int(threadIdx.x) < inside);
    }
    commit_copies();
  };

  load_tile<D, Sizes::KEYS, THREADS>(keys, b.qkv + place.key(group) + first_key * place.width, place.width,
                                     tokens - first_key, head_dim);
  load_tile<D, Sizes::KEYS, THREADS>(values, b.qkv + place.value(group) + first_key * place.width, place.width,
                                     tokens - first_key, head_dim);
  load_queries(stages);

  const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 * M, warp_key = first_key + own_row;
  const float scale_2 = b.scale * LOG2_E;
  Shaping shaped(b.scale, SHAPED ? b.cap : 0.0f, SHAPED ? b.alibi : 0, head, heads, LOG2_E);
  float dk[M][D / 8][4] = {}, dv[M][D / 8][4] = {};

  bool more = true;
  for (int step = 0; more; step++) {
    wait_for_copies<0>();
    __syncthreads();
    const int first_query = query;
    [[maybe_unused]] const int of_head = head;
    query += QUERIES;
    if (query >= past) query = begin, head++;
    more = head <= last_head;
    if (more) load_queries(stages + (step + 1) % 2 * Sizes::STAGE);
    const SharedAddress stage = stages + step % 2 * Sizes::STAGE;
    const float* statistics = reinterpret_cast<const float*>(stage_memory + step % 2 * Sizes::STAGE + 2 * TILE);
    const Fragments<D> k(keys), v(values), q(stage), go(stage + TILE);
#pragma unroll
    for (int part = 0; part < QUERIES; part += Sizes::AT_ONCE) {
      if (b.causal && first_query + part + Sizes::AT_ONCE - 1 < warp_key) continue;
      if (SHAPED && b.causal && first_query + part >= warp_key + 16 * M - 1 + b.window) continue;
      float s[M][N][4], ds[M][N][4];
      scores<D, M, N>(s, k, own_row, q, part);
      if (b.causal && first_query + part < warp_key + 16 * M - 1) {
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
      // Past the end there is no score to take lse from, and what a key's position gains is not nothing.
      if (SHAPED && (first_query + part + Sizes::AT_ONCE > min(tokens, warp_key + b.window))) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
          for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
              const int of = warp_key + 16 * m + i / 2 * 8 + lane / 4;
              if (first_query + part + 8 * n + lane % 4 * 2 + i % 2 >= min(tokens, of + b.window)) s[m][n][i] = -INFINITE;
            }
          }
        }
      }
      // Shaped scores are computed twice from their products: registers have no room for both.
      const auto share = [&](float s, int m, int i, float offset) {
        return exp2_fast((SHAPED ? shaped(s, warp_key + 16 * m + i / 2 * 8 + lane / 4) : s * scale_2) - offset);
      };
      unsigned left[M][N / 2][4];
#pragma unroll
      for (int n = 0; n < N; n++) {
        float offsets[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
          offsets[e] = statistics[part + 8 * n + lane % 4 * 2 + e] * LOG2_E;
        }
#pragma unroll
        for (int m = 0; m < M; m++) {
          float p[4];
#pragma unroll
          for (int i = 0; i < 4; i++) {
            p[i] = share(s[m][n][i], m, i, offsets[i % 2]);
            if (!SHAPED) s[m][n][i] = p[i];
          }
          left[m][n / 2][n % 2 * 2] = to_bf16_pair(p[0], p[1]);
          left[m][n / 2][n % 2 * 2 + 1] = to_bf16_pair(p[2], p[3]);
        }
      }
      accumulate<D, M, N>(dv, left, go, part);
      scores<D, M, N>(ds, v, own_row, go, part);
#pragma unroll
      for (int n = 0; n < N; n++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
          const int column = part + 8 * n + lane % 4 * 2 + e;
          const float mean = statistics[QUERIES + column];
#pragma unroll
          for (int m = 0; m < M; m++) {
#pragma unroll
            for (int i = e; i < 4; i += 2) {
              if constexpr (SHAPED) {
                const float p = share(s[m][n][i], m, i, statistics[column] * LOG2_E);
                ds[m][n][i] = p * (ds[m][n][i] - mean) * shaped.derivative(s[m][n][i]);
              } else {
                ds[m][n][i] = s[m][n][i] * (ds[m][n][i] - mean);
              }
            }
          }
        }
      }
      round_to_a<M, N>(left, ds);
      accumulate<D, M, N>(dk, left, q, part);
    }
    if (SHAPED && head != of_head && b.alibi) shaped = Shaping(b.scale, b.cap, b.alibi, head, heads, LOG2_E);
  }

  float by_scale[M][2], by_one[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) by_scale[m][0] = by_scale[m][1] = b.scale, by_one[m][0] = by_one[m][1] = 1.0f;
  const Place same = place.again();
  const i64 at = warp_key * same.width;
  char* own = shared + own_row * D * 2;
  store_rows<D, M>(dk, by_scale, own, b.dqkv + same.key(group) + at, same.width, tokens - warp_key, head_dim);
  store_rows<D, M>(dv, by_one, own + Sizes::KEYS * D * 2, b.dqkv + same.value(group) + at, same.width, tokens - warp_key,
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

template <int D, bool SHAPED>
__device__ __forceinline__ void query_gradients(const Backward<bf16>& b) {
  using Sizes = QueryGradients<D>;
  constexpr int M = Sizes::M, N = Sizes::N, KEYS = Sizes::KEYS, THREADS = Sizes::THREADS, TILE = Sizes::TILE;
  SHARED_BUFFER(char, shared);
  const SharedAddress queries = shared_address(shared), gradients = queries + Sizes::QUERIES * D * 2;
  const SharedAddress stages = gradients + Sizes::QUERIES * D * 2;

  const Place place(b.tokens, b.heads, b.kv_heads, b.head_dim);
  const Sight sight = {b.tokens, 0, b.causal, b.window};
  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads;
  const int first_query = query_tile(b.causal) * Sizes::QUERIES;
  const int head = blockIdx.x, group = head / (heads / place.kv_heads);
  const auto load_keys = [&](int tile) {
    const SharedAddress to = stages + tile % Sizes::STAGES * 2 * TILE;
    const int key = tile * KEYS;
    load_tile<D, KEYS, THREADS>(to, b.qkv + place.key(group) + key * place.width, place.width, tokens - key, head_dim);
    load_tile<D, KEYS, THREADS>(to + TILE, b.qkv + place.value(group) + key * place.width, place.width, tokens - key,
                                head_dim);
    commit_copies();
  };
  const int tiles = (sight.past(first_query + Sizes::QUERIES - 1) + KEYS - 1) / KEYS;
  const int first_tile = SHAPED ? sight.first(first_query) / KEYS : 0;
  load_tile<D, Sizes::QUERIES, THREADS>(queries, b.qkv + place.query(head) + first_query * place.width, place.width,
                                        tokens - first_query, head_dim);
  load_tile<D, Sizes::QUERIES, THREADS>(gradients, b.dout + place.result(head) + first_query * place.out_width,
                                        place.out_width, tokens - first_query, head_dim);
  load_keys(first_tile);

  const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 * M, warp_query = first_query + own_row;
  const float scale_2 = b.scale * LOG2_E;
  const Shaping shaped(b.scale, SHAPED ? b.cap : 0.0f, SHAPED ? b.alibi : 0, head, heads, LOG2_E);
  float dq[M][D / 8][4] = {}, offset[M][2], mean[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int query = warp_query + 16 * m + 8 * i + lane / 4;
      const i64 at = (place.row + query) * heads + head;
      offset[m][i] = query < tokens ? b.lse[at] * LOG2_E : 0.0f;
      mean[m][i] = query < tokens ? b.delta[at] : 0.0f;
    }
  }

  for (int tile = first_tile; tile < tiles; tile++) {
    if (Sizes::STAGES == 1 && tile > first_tile) {
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
      if (b.causal && first_key > warp_query + 16 * M - 1) continue;
      if (SHAPED && first_key + Sizes::AT_ONCE <= sight.first(warp_query)) continue;
      float s[M][N][4], ds[M][N][4];
      scores<D, M, N>(s, q, own_row, k, part);
      scores<D, M, N>(ds, go, own_row, v, part);
      const bool masked = first_key + Sizes::AT_ONCE > sight.past(warp_query) ||
                          (SHAPED && first_key < sight.first(warp_query + 16 * M - 1));
#pragma unroll
      for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int query = warp_query + 16 * m + i / 2 * 8 + lane / 4;
          const int end = sight.past(query), begin = SHAPED ? sight.first(query) : 0;
#pragma unroll
          for (int n = 0; n < N; n++) {
            const int key = first_key + 8 * n + lane % 4 * 2 + i % 2;
            const float score = SHAPED ? shaped(s[m][n][i], key) : s[m][n][i] * scale_2;
            const float p = exp2_fast(score - offset[m][i / 2]) * (SHAPED ? shaped.derivative(s[m][n][i]) : 1.0f);
            const bool hidden = masked && (key >= end || (SHAPED && key < begin));
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
  for (int m = 0; m < M; m++) by_scale[m][0] = by_scale[m][1] = b.scale;
  store_rows<D, M>(dq, by_scale, shared + own_row * D * 2, b.dqkv + place.query(head) + warp_query * place.width,
                   place.width, tokens - warp_query, head_dim);
}

// Grids: (KV, ceil(T / 128), B) for dkv, (H, ceil(T / 128), B) for dq; D is head_dim rounded up to that of the kernel's
// name.
#define OF_KEYS(name, D, QUERIES, SHAPED)                                                                                  \
  KERNEL __launch_bounds__(KeyGradients<D, QUERIES, SHAPED>::THREADS, 256 / KeyGradients<D, QUERIES, SHAPED>::THREADS)     \
      attention_mma_dkv_##name(BACKWARD_PARAMETERS(bf16)) {                                                                \
    key_gradients<D, QUERIES, SHAPED>(BACKWARD_ARGUMENTS(bf16));                                                           \
  }
#define OF_QUERIES(name, D, SHAPED)                                                                                        \
  KERNEL __launch_bounds__(QueryGradients<D>::THREADS, 2) attention_mma_dq_##name(BACKWARD_PARAMETERS(bf16)) {             \
    query_gradients<D, SHAPED>(BACKWARD_ARGUMENTS(bf16));                                                                  \
  }
#define BACKWARD(D)                                                                                                        \
  OF_KEYS(D, D, 64, false)                                                                                                 \
  OF_KEYS(D##_shaped, D, 64, true)                                                                                         \
  OF_QUERIES(D, D, false)                                                                                                  \
  OF_QUERIES(D##_shaped, D, true)
BACKWARD(32)
BACKWARD(64)
BACKWARD(96)
BACKWARD(128)
OF_KEYS(128_narrow, 128, 32, false)
OF_KEYS(128_narrow_shaped, 128, 32, true)

EXPORT(attention_mma_dkv_32)
EXPORT(attention_mma_dkv_64)
EXPORT(attention_mma_dkv_96)
EXPORT(attention_mma_dkv_128)
EXPORT(attention_mma_dkv_128_narrow)
EXPORT(attention_mma_dq_32)
EXPORT(attention_mma_dq_64)
EXPORT(attention_mma_dq_96)
EXPORT(attention_mma_dq_128)
EXPORT(attention_mma_dkv_32_shaped)
EXPORT(attention_mma_dkv_64_shaped)
EXPORT(attention_mma_dkv_96_shaped)
EXPORT(attention_mma_dkv_128_shaped)
EXPORT(attention_mma_dkv_128_narrow_shaped)
EXPORT(attention_mma_dq_32_shaped)
EXPORT(attention_mma_dq_64_shaped)
EXPORT(attention_mma_dq_96_shaped)
EXPORT(attention_mma_dq_128_shaped)

// Gradients of attention on Hopper's tensor cores (wgmma), otherwise as in attention_mma_backward.cu: two kernels that add
// up in registers in one order, P = exp(S - lse), dS = P (dP - delta).
//   attention_wgmma_dkv  a block holds 64 keys for each of its two groups of four warps and passes over the queries, 64 at
//                        a time: S^T, dP^T, dV, dK
//   attention_wgmma_dq   a block holds 64 queries for each of its groups of four warps, three (D = 64) or two (D = 128), and
//                        passes over the keys, KEYS at a time: S, dP, dQ
//
// FLOPs: 14 B H T^2 D, half of it causal, where one pass that adds dQ up in memory would take 10; why two passes, see
// there. Bytes: qkv, dout, lse, delta and dqkv once each from memory; queries (keys) and their gradients again for each
// further block of keys (queries), from the L2 cache. Shared memory is read at 107 to 128 (S, dP) and 64 (sums) bytes a
// clock at the full rate of products.
//
// What the structure allows, in clocks of a multiprocessor for a block's step (an m64nNk16 takes N / 2; exponentials 16 a
// clock; four schedulers issue; instructions as counted in the machine code):
//             step                     products   exponentials   instructions
//   dkv_128   128 keys, 64 queries     2048       512            636 a warp: 1272
//   dq_128    128 queries, 96 keys     2304       768            625 a warp: 1250
//   dkv_64    128 keys, 64 queries     1024       512            530 a warp: 1060
//   dq_64     192 queries, 64 keys     1152       768            404 a warp: 1212
// With 10 FLOPs counted of the 14 that are done, at most 71 % of the rate for D = 128, and 69 % for 64, where instructions
// set the pace. Copies are started before the products here (342 clocks of dkv_128): the last step's dK or dQ is
// under way meanwhile (512), and behind the products dkv_128 has no registers for it.
#include "attention_scores.h"
#include "warpgroup.h"

#ifdef WARPGROUPS

// Stages of a tile: one is read by what runs on from the step before, one by this step, one takes what comes next.
constexpr int STAGES = 3;

// Keys and values against the queries of all heads that share them. Everything is transposed: S^T [keys,
// queries], so that P^T and dS^T are the left factors of dV and dK.
template <int D, int GROUPS, bool WINDOWED>
__device__ __forceinline__ void key_gradients(const Backward<bf16>& b) {
  constexpr int THREADS = 128 * GROUPS, OWN = 64 * GROUPS, QUERIES = 64, N = QUERIES / 8;
  constexpr int TILE = QUERIES * D * 2, STAGE = 2 * TILE + 1024;
  SHARED_BUFFER(char, unaligned);
  char* shared = unaligned + (-shared_address(unaligned) & 1023);
  const SharedAddress keys = shared_address(shared), values = keys + OWN * D * 2, stages = values + OWN * D * 2;

  const Place place(b.tokens, b.heads, b.kv_heads, b.head_dim);
  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads;
  const int first_key = key_tile() * OWN, group = blockIdx.x, sharing = heads / place.kv_heads;
  const int first_tile = b.causal ? first_key / QUERIES : 0;
  // Queries past the last key's window see none.
  const int past = WINDOWED && b.causal ? min(tokens, first_key + OWN - 1 + b.window) : tokens;
  const int tiles = (past + QUERIES - 1) / QUERIES - first_tile, steps = tiles * sharing;
  const auto load_queries = [&](int step) {
    const int head = group * sharing + step / tiles, query = (first_tile + step % tiles) * QUERIES;
    const SharedAddress to = stages + step % STAGES * STAGE;
    const int inside = tokens - query;
    load_panels<D, QUERIES, THREADS>(to, b.qkv + place.query(head) + query * place.width, place.width, inside, head_dim);
    load_panels<D, QUERIES, THREADS>(to + TILE, b.dout + place.result(head) + query * place.out_width, place.out_width,
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
  load_panels<D, OWN, THREADS>(keys, b.qkv + place.key(group) + first_key * place.width, place.width, tokens - first_key,
                               head_dim);
  load_panels<D, OWN, THREADS>(values, b.qkv + place.value(group) + first_key * place.width, place.width, tokens - first_key,
                               head_dim);
  load_queries(0);

  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, warp_key = first_key + own;
  const unsigned group_rows = threadIdx.x / 128 * 64 * 128;
  const Descriptor k = describe(keys + group_rows, 0), v = describe(values + group_rows, 0);
  const float scale = b.scale, scale_2 = scale * LOG2_E;
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  // Left factors: out here, since products read them until they are waited for.
  unsigned p[QUERIES / 16][4], left[QUERIES / 16][4];

  // dK of a step runs on into the next one and is done when that one's S is: before the barrier of the step after.
  // There is a step always; a loop that might have none would keep the compiler from leaving products under way.
  int step = 0;
  do {
    wait_for_copies<0>();
    show_copies_to_products();
    __syncthreads();
    if (step + 1 < steps) load_queries(step + 1);
    const int first_query = (first_tile + step % tiles) * QUERIES;
    const SharedAddress stage = stages + step % STAGES * STAGE;
    const float* statistics = reinterpret_cast<const float*>(shared + 2 * OWN * D * 2 + step % STAGES * STAGE + 2 * TILE);
    const Descriptor q = describe(stage, QUERIES * 128), go = describe(stage + TILE, QUERIES * 128);

    float s[N][4], ds[N][4];
    before_products();
    panel_scores<D, OWN, QUERIES>(s, k, q);
    commit_products();
    panel_scores<D, OWN, QUERIES>(ds, v, go);
    commit_products();
    wait_for_products<1>(s);
    // The warp's first key is the first to be out of a window; there are windows only where attention is causal.
    const bool masked = (b.causal && first_query < warp_key + 15) ||
                        (WINDOWED && first_query + QUERIES > warp_key + b.window);
#pragma unroll
    for (int n = 0; n < N; n++) {
      const float2 of_columns = *reinterpret_cast<const float2*>(statistics + 8 * n + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float offset = (i % 2 ? of_columns.y : of_columns.x) * LOG2_E;
        const int key = warp_key + i / 2 * 8 + lane / 4, query = first_query + 8 * n + lane % 4 * 2 + i % 2;
        const bool hidden = masked && (key > query || (WINDOWED && query >= key + b.window));
        s[n][i] = hidden ? 0.0f : exp2_fast(s[n][i] * scale_2 - offset);
      }
    }
    round_to_a<QUERIES>(p, s);
    before_products();
    panel_sums<D, QUERIES>(dv, p, go);
    commit_products();
    wait_for_products<1>(ds);
#pragma unroll
    for (int n = 0; n < N; n++) {
      const float2 mean = *reinterpret_cast<const float2*>(statistics + QUERIES + 8 * n + lane % 4 * 2);
#pragma unroll
      for (int i = 0; i < 4; i++) ds[n][i] = s[n][i] * (ds[n][i] - (i % 2 ? mean.y : mean.x));
    }
    round_to_a<QUERIES>(left, ds);
    before_products();
    panel_sums<D, QUERIES>(dk, left, q);
    commit_products();
  } while (++step < steps);
  wait_for_products<0>(dv);
  wait_for_products<0>(dk);

  const float by_scale[2] = {scale, scale}, by_one[2] = {1.0f, 1.0f};
  const i64 at = warp_key * place.width;
  store_panel_rows<D, OWN>(dk, by_scale, shared, own, b.dqkv + place.key(group) + at, place.width, tokens - warp_key,
                           head_dim);
  store_panel_rows<D, OWN>(dv, by_one, shared + OWN * D * 2, own, b.dqkv + place.value(group) + at, place.width,
                           tokens - warp_key, head_dim);
}

// Queries of one head against the keys.
template <int D, int GROUPS, int KEYS, bool WINDOWED>
__device__ __forceinline__ void query_gradients(const Backward<bf16>& b) {
  constexpr int THREADS = 128 * GROUPS, OWN = 64 * GROUPS, N = KEYS / 8, TILE = KEYS * D * 2;
  SHARED_BUFFER(char, unaligned);
  char* shared = unaligned + (-shared_address(unaligned) & 1023);
  const SharedAddress queries = shared_address(shared), gradients = queries + OWN * D * 2;
  const SharedAddress stages = gradients + OWN * D * 2;

  const Place place(b.tokens, b.heads, b.kv_heads, b.head_dim);
  const Sight sight = {b.tokens, 0, b.causal, b.window};
  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads;
  const int first_query = query_tile(b.causal) * OWN;
  const int head = blockIdx.x, group = head / (heads / place.kv_heads);
  const auto load_keys = [&](int tile) {
    const SharedAddress to = stages + tile % STAGES * 2 * TILE;
    const int key = tile * KEYS;
    load_panels<D, KEYS, THREADS>(to, b.qkv + place.key(group) + key * place.width, place.width, tokens - key, head_dim);
    load_panels<D, KEYS, THREADS>(to + TILE, b.qkv + place.value(group) + key * place.width, place.width, tokens - key,
                                  head_dim);
    commit_copies();
  };
  const int tiles = (sight.past(first_query + OWN - 1) + KEYS - 1) / KEYS;
  const int first_tile = WINDOWED ? sight.first(first_query) / KEYS : 0;
  load_panels<D, OWN, THREADS>(queries, b.qkv + place.query(head) + first_query * place.width, place.width,
                               tokens - first_query, head_dim);
  load_panels<D, OWN, THREADS>(gradients, b.dout + place.result(head) + first_query * place.out_width, place.out_width,
                               tokens - first_query, head_dim);
  load_keys(first_tile);

  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, warp_query = first_query + own;
  const unsigned group_rows = threadIdx.x / 128 * 64 * 128;
  const Descriptor q = describe(queries + group_rows, 0), go = describe(gradients + group_rows, 0);
  const float scale = b.scale, scale_2 = scale * LOG2_E;
  float dq[D / 8][4] = {}, offset[2], mean[2];
  unsigned left[KEYS / 16][4];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int query = warp_query + 8 * i + lane / 4;
    const i64 at = (place.row + query) * heads + head;
    offset[i] = query < tokens ? b.lse[at] * LOG2_E : 0.0f;
    mean[i] = query < tokens ? b.delta[at] : 0.0f;
  }

  int tile = first_tile;
  do {
    wait_for_copies<0>();
    show_copies_to_products();
    __syncthreads();
    if (tile + 1 < tiles) load_keys(tile + 1);
    const int first_key = tile * KEYS;
    const SharedAddress stage = stages + tile % STAGES * 2 * TILE;
    const Descriptor k = describe(stage, KEYS * 128), v = describe(stage + TILE, KEYS * 128);

    float s[N][4], ds[N][4];
    before_products();
    panel_scores<D, OWN, KEYS>(s, q, k);
    commit_products();
    panel_scores<D, OWN, KEYS>(ds, go, v);
    commit_products();
    wait_for_products<1>(s);
    const bool masked = first_key + KEYS > sight.past(warp_query) || (WINDOWED && first_key < sight.first(warp_query + 15));
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int query = warp_query + i / 2 * 8 + lane / 4, end = sight.past(query);
      const int first = WINDOWED ? sight.first(query) : 0;
#pragma unroll
      for (int n = 0; n < N; n++) {
        const int key = first_key + 8 * n + lane % 4 * 2 + i % 2;
        const bool hidden = masked && (key >= end || (WINDOWED && key < first));
        s[n][i] = hidden ? 0.0f : exp2_fast(s[n][i] * scale_2 - offset[i / 2]);
      }
    }
    wait_for_products<0>(ds);
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) ds[n][i] = s[n][i] * (ds[n][i] - mean[i / 2]);
    }
    round_to_a<KEYS>(left, ds);
    before_products();
    panel_sums<D, KEYS>(dq, left, k);
    commit_products();
  } while (++tile < tiles);
  wait_for_products<0>(dq);

  const float by_scale[2] = {scale, scale};
  store_panel_rows<D, OWN>(dq, by_scale, shared, own, b.dqkv + place.query(head) + warp_query * place.width,
                           place.width, tokens - warp_query, head_dim);
}

#else
// Compiled for another architecture: never launched there.
template <int D, int GROUPS, bool WINDOWED>
__device__ void key_gradients(const Backward<bf16>&) {
  __trap();
}
template <int D, int GROUPS, int KEYS, bool WINDOWED>
__device__ void query_gradients(const Backward<bf16>&) {
  __trap();
}
#endif

// Grids: (KV, ceil(T / (64 GROUPS)), B) for dkv, (H, ceil(T / (64 GROUPS)), B) for dq, 128 GROUPS threads. Shared memory:
// 2 * 64 GROUPS * D * 2 for what a block holds, three stages of (2 * 64 * D * 2 + 1024) or of 2 KEYS * D * 2, and 1024 to
// align it.
#define OF_SIGHT(name, D, OF_KEYS, OF_QUERIES, KEYS, WINDOWED)                                                             \
  KERNEL __launch_bounds__(128 * OF_KEYS, 1) attention_wgmma_dkv_##name(BACKWARD_PARAMETERS(bf16)) {                       \
    key_gradients<D, OF_KEYS, WINDOWED>(BACKWARD_ARGUMENTS(bf16));                                                         \
  }                                                                                                                        \
  KERNEL __launch_bounds__(128 * OF_QUERIES, 1) attention_wgmma_dq_##name(BACKWARD_PARAMETERS(bf16)) {                     \
    query_gradients<D, OF_QUERIES, KEYS, WINDOWED>(BACKWARD_ARGUMENTS(bf16));                                              \
  }
#define BACKWARD(D, OF_KEYS, OF_QUERIES, KEYS)                                                                             \
  OF_SIGHT(D, D, OF_KEYS, OF_QUERIES, KEYS, false)                                                                         \
  OF_SIGHT(D##_window, D, OF_KEYS, OF_QUERIES, KEYS, true)
BACKWARD(64, 2, 3, 64)
BACKWARD(128, 2, 2, 96)

EXPORT(attention_wgmma_dkv_64)
EXPORT(attention_wgmma_dkv_128)
EXPORT(attention_wgmma_dq_64)
EXPORT(attention_wgmma_dq_128)
EXPORT(attention_wgmma_dkv_64_window)
EXPORT(attention_wgmma_dkv_128_window)
EXPORT(attention_wgmma_dq_64_window)
EXPORT(attention_wgmma_dq_128_window)

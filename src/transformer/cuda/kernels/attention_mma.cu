// Attention on tensor cores: out = softmax(scale Q K^T) V, and the log of the softmax's denominators, without a T x T
// matrix. The manner of FlashAttention-2 (Dao 2023, algorithm 1): a block holds 128 queries and passes over the keys, 64 at
// a time (32 for D = 128); each of its four warps has 32 queries of its own, whose probabilities go from the result of one
// product to the factor of the next in registers. For D = 192 and 256 it is eight warps with 16 queries each, and 16 keys.
//
// FLOPs: 4 B H T^2 D, half of it causal. Bytes: qkv, out and lse once each, and keys and values once more for each further
// 128 queries, from the L2 cache. Registers: 32 queries a warp have D sums a lane; beyond D = 64 that leaves room for the
// scores of 32 keys at a time, up to it for those of 64. Shared memory: for 2 x 32 x 64 D multiply-adds a warp reads 64
// keys and values, and its queries once or twice: 160 or 192 bytes a m16n8k16, within the 256 that a multiprocessor reads
// while it multiplies; with 16 queries a warp it would be more than that.
//
// A scheduler has one warp of a block, and its tensor core idles while that warp computes exponentials: two blocks have to fit
// a multiprocessor. An A100's has 164 KiB, of which a block takes 1 more than it asks for: D = 128 asks for 64 KiB, with
// 32 keys a tile and two stages. (Tiles of 64 keys and one place for values are 80 KiB and have as many barriers, and leave
// values no more than the time of half of Q K^T to arrive in.) The bound on an A100, in clocks of a multiprocessor for 128
// queries and 32 keys of D = 128: products 1024, at 1024 multiply-adds a clock; under them shared memory 768 (192 ldmatrix of
// 512 bytes, 128 a clock) and exponentials 256. D = 64, 64 keys: 1024, 640, 512. What a warp waits for its own
// results is the other block's to fill. D = 256, 16 keys: products 1024, shared memory 1536, so two thirds of the rate at most;
// 96 KiB, which every GPU has since 8.0, and one block of eight warps by its registers.
//
// Sums are relative to the exponential of `largest`, a score of their row. As long as no row of a warp has a probability
// above 2^MOST_GROWTH by that measure, `largest` stays and no sums are scaled: f32 has room, and the quotient is the same.
//
// What a wider instruction (wgmma) would change is this file alone: the same arguments, another `scores` and `accumulate`.
#include "attention_scores.h"
#include "attention_tiles.h"

template <int D, bool SHAPED>
__device__ __forceinline__ void attend(const Forward<bf16>& f) {
  constexpr int M = D <= 128 ? 2 : 1, THREADS = 256 / M, QUERIES = 128, KEYS = D <= 96 ? 64 : D <= 128 ? 32 : 16;
  constexpr int AT_ONCE = D <= 64 ? 64 : D <= 128 ? 32 : 16, N = AT_ONCE / 8;
  constexpr int TILE = KEYS * D * 2;
  constexpr float MOST_GROWTH = 8.0f;
  SHARED_BUFFER(char, shared);
  const SharedAddress queries = shared_address(shared), stages = queries + QUERIES * D * 2;

  const Place place(f.tokens, f.heads, f.kv_heads, f.head_dim);
  const int tokens = place.tokens, head_dim = place.head_dim, heads = place.heads, kv_heads = place.kv_heads;
  const int first_query = query_tile(f.causal) * QUERIES;
  const int head = blockIdx.x, group = head / (heads / kv_heads);
  const bf16* q = f.qkv + place.query(head) + first_query * place.width;
  const bf16* k = SHAPED ? f.keys + f.group(group) : f.qkv + place.key(group);
  const i64 width = SHAPED ? i64(f.key_stride) : place.width;
  const i64 to_values = SHAPED ? f.values - f.keys : i64(kv_heads * head_dim);
  const Sight sight = {SHAPED ? f.before + tokens : tokens, SHAPED ? f.before : 0, f.causal, f.window};
  const auto load_keys = [&](int tile) {
    const SharedAddress to = stages + tile % 2 * 2 * TILE;
    int first_key = tile * KEYS;
    computed_here(first_key);  // rather than two pointers that each pass advances
    const bf16* from = k + first_key * width;
    load_tile<D, KEYS, THREADS>(to, from, width, sight.keys - first_key, head_dim);
    load_tile<D, KEYS, THREADS>(to + TILE, from + to_values, width, sight.keys - first_key, head_dim);
    commit_copies();
  };

  const int tiles = (sight.past(first_query + QUERIES - 1) + KEYS - 1) / KEYS;
  const int first_tile = SHAPED ? sight.first(first_query) / KEYS : 0;
  load_tile<D, QUERIES, THREADS>(queries, q, place.width, tokens - first_query, head_dim);
  load_keys(tiles - 1);

  const int lane = threadIdx.x % 32, own_row = threadIdx.x / 32 * 16 * M;
  const int warp_query = first_query + own_row;
  // What a score of the softmax is multiplied by: shaped ones have been.
  const Shaping shaped(f.scale, SHAPED ? f.cap : 0.0f, SHAPED ? f.alibi : 0, head, heads, LOG2_E);
  const float scale_2 = SHAPED ? 1.0f : f.scale * LOG2_E;
  float sums[M][D / 8][4] = {}, largest[M][2], total[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) largest[m][0] = largest[m][1] = -INFINITE, total[m][0] = total[m][1] = 0.0f;

  for (int tile = tiles - 1; tile >= first_tile; tile--) {
    wait_for_copies<0>();
    // The tile has come for all threads, and all are done with the one whose place the next one takes.
    __syncthreads();
    if (tile > first_tile) load_keys(tile - 1);
    const SharedAddress stage = stages + tile % 2 * 2 * TILE;
    const Fragments<D> own(queries), keys(stage), values(stage + TILE);
#pragma unroll
    for (int part = KEYS - AT_ONCE; part >= 0; part -= AT_ONCE) {
      const int first_key = tile * KEYS + part;
      if (first_key >= sight.past(warp_query + 16 * M - 1)) continue;
      if (SHAPED && first_key + AT_ONCE <= sight.first(warp_query)) continue;
      float s[M][N][4];
      scores<D, M, N>(s, own, own_row, keys, part);
      if (first_key + AT_ONCE > sight.past(warp_query) || (SHAPED && first_key < sight.first(warp_query + 16 * M - 1))) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int query = warp_query + 16 * m + i / 2 * 8 + lane / 4;
            const int end = sight.past(query), begin = SHAPED ? sight.first(query) : 0;
#pragma unroll
            for (int n = 0; n < N; n++) {
              const int key = first_key + 8 * n + lane % 4 * 2 + i % 2;
              if (key >= end || (SHAPED && key < begin)) s[m][n][i] = -INFINITE;
            }
          }
        }
      }
      if constexpr (SHAPED) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
          for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) s[m][n][i] = shaped(s[m][n][i], first_key + 8 * n + lane % 4 * 2 + i % 2);
          }
        }
      }
      float most[M][2];
      bool grown = false;
#pragma unroll
      for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          most[m][i] = largest[m][i];
#pragma unroll
          for (int n = 0; n < N; n++) most[m][i] = fmaxf(most[m][i], fmaxf(s[m][n][2 * i], s[m][n][2 * i + 1]));
          most[m][i] = fmaxf(most[m][i], __shfl_xor_sync(ALL_LANES, most[m][i], 1));
          most[m][i] = fmaxf(most[m][i], __shfl_xor_sync(ALL_LANES, most[m][i], 2));
          grown |= (most[m][i] - largest[m][i]) * scale_2 > MOST_GROWTH;
        }
      }
      if (__ballot_sync(ALL_LANES, grown)) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            // A row that has seen no key yet keeps to zeros.
            const float shrink = largest[m][i] == -INFINITE ? 0.0f : exp2_fast((largest[m][i] - most[m][i]) * scale_2);
            largest[m][i] = most[m][i];
            total[m][i] *= shrink;
#pragma unroll
            for (int n = 0; n < D / 8; n++) sums[m][n][2 * i] *= shrink, sums[m][n][2 * i + 1] *= shrink;
          }
        }
      }
      unsigned p[M][N / 2][4];
#pragma unroll
      for (int m = 0; m < M; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const float offset = largest[m][i] == -INFINITE ? 0.0f : largest[m][i] * scale_2;
          float sum = 0.0f;
#pragma unroll
          for (int n = 0; n < N; n++) {
            const float low = exp2_fast(s[m][n][2 * i] * scale_2 - offset);
            const float high = exp2_fast(s[m][n][2 * i + 1] * scale_2 - offset);
            sum += low + high;
            p[m][n / 2][n % 2 * 2 + i] = to_bf16_pair(low, high);
          }
          total[m][i] += sum;
        }
      }
      accumulate<D, M, N>(sums, p, values, part);
    }
  }

  const Place same = place.again();
  float factor[M][2];
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float whole = total[m][i];
      whole += __shfl_xor_sync(ALL_LANES, whole, 1);
      whole += __shfl_xor_sync(ALL_LANES, whole, 2);
      factor[m][i] = 1.0f / whole;
      const int own_query = 16 * m + 8 * i + lane / 4;
      if (lane % 4 == 0 && warp_query + own_query < tokens)
        f.lse[(same.row + warp_query + own_query) * heads + head] = largest[m][i] * scale_2 * LN_2 + logf(whole);
    }
  }
  store_rows<D, M>(sums, factor, shared + own_row * D * 2, f.out + same.result(head) + warp_query * same.out_width,
                   same.out_width, tokens - warp_query, head_dim);
}

// Grid: (H, ceil(T / 128), B), 128 threads (256 for D > 128), (128 + 4 KEYS) * D * 2 bytes of shared memory; D is head_dim
// rounded up to that of the kernel's name.
#define OF_SCORES(name, D, SHAPED)                                                                                         \
  KERNEL __launch_bounds__(D > 128 ? 256 : 128, D > 128 ? 1 : 2) attention_mma_##name(FORWARD_PARAMETERS(bf16)) {          \
    attend<D, SHAPED>(FORWARD_ARGUMENTS(bf16));                                                                            \
  }
#define ATTENTION(D)                                                                                                       \
  OF_SCORES(D, D, false)                                                                                                   \
  OF_SCORES(D##_shaped, D, true)
ATTENTION(32)
ATTENTION(64)
ATTENTION(96)
ATTENTION(128)
ATTENTION(192)
ATTENTION(256)

EXPORT(attention_mma_32)
EXPORT(attention_mma_64)
EXPORT(attention_mma_96)
EXPORT(attention_mma_128)
EXPORT(attention_mma_192)
EXPORT(attention_mma_256)
EXPORT(attention_mma_32_shaped)
EXPORT(attention_mma_64_shaped)
EXPORT(attention_mma_96_shaped)
EXPORT(attention_mma_128_shaped)
EXPORT(attention_mma_192_shaped)
EXPORT(attention_mma_256_shaped)

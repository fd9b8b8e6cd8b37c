// Attention on Hopper's tensor cores (wgmma), otherwise as in attention_mma.cu: out = softmax(Q K^T / sqrt(D)) V, and the
// log of the softmax's denominators. A block has two groups of four warps with 64 queries each and passes over the keys,
// KEYS at a time. While the products of one tile's probabilities and values run, the softmax of the next is computed
// (FlashAttention-3, Shah et al. 2024, section 3.2). With D = 64, exponentials take as long as products do: registers and
// shared memory leave room for two blocks, which do not wait for one another.
//
// FLOPs: 4 B H T^2 D, half of it causal. Bytes: qkv, out and lse once each, and keys and values once more for each further
// 128 queries, from the L2 cache. Shared memory is read at 96 (Q K^T; 128 where KEYS is 64) and 64 (P V) bytes a clock at
// the full rate of products.
//
// What the structure allows, in clocks of a multiprocessor for a block's step over KEYS keys (an m64nNk16 takes N / 2;
// exponentials 16 a clock; four schedulers issue for eight warps; instructions as counted in the machine code):
//              products   exponentials   instructions       of that beside no products           share of the rate at most
//   D = 128    2048       1056           540 a warp: 1080   118 a warp, from P V to Q K^T: 236   2048 / 2284 = 90 %
//   D = 64     512        544            286 a warp: 572    two blocks, each under the other     512 / 572 = 90 %
// Both groups pass one barrier a step and so stand at the same place; what they wait for one another comes off that.
#include "warpgroup.h"

#ifdef WARPGROUPS

// Scores of a warp's 16 queries and 128 keys become probabilities, relative to the largest score so far.
template <int KEYS>
struct Softmax {
  float scale_2, largest[2], total[2], shrink[2];

  __device__ __forceinline__ explicit Softmax(int head_dim) {
    scale_2 = rsqrtf(float(head_dim)) * LOG2_E;
    largest[0] = largest[1] = -INFINITE, total[0] = total[1] = 0.0f;
  }
  // Keys from `ends[i]` on count nothing for row 8 i + lane / 4; `first` is the tile's first key.
  __device__ __forceinline__ static void mask(float (&s)[KEYS / 8][4], int first, const int (&ends)[2]) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (first + 8 * n + int(threadIdx.x) % 4 * 2 + i % 2 >= ends[i / 2]) s[n][i] = -INFINITE;
      }
    }
  }
  __device__ __forceinline__ void apply(float (&s)[KEYS / 8][4]) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      float most = largest[i];
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) most = fmaxf(most, fmaxf(s[n][2 * i], s[n][2 * i + 1]));
      most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
      most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
      // A row that has seen no key yet keeps to zeros.
      const float offset = most == -INFINITE ? 0.0f : most * scale_2;
      shrink[i] = exp2_fast(largest[i] * scale_2 - offset);
      largest[i] = most;
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < KEYS / 8; n++) {
        s[n][2 * i] = exp2_fast(s[n][2 * i] * scale_2 - offset);
        s[n][2 * i + 1] = exp2_fast(s[n][2 * i + 1] * scale_2 - offset);
        sum += s[n][2 * i] + s[n][2 * i + 1];
      }
      total[i] = total[i] * shrink[i] + sum;
    }
  }
};

template <int D, int GROUPS, int KEYS>
__device__ __forceinline__ void attend(const bf16* qkv, bf16* out, float* lse, int tokens, int heads, int kv_heads,
                                       int head_dim, int causal) {
  constexpr int THREADS = 128 * GROUPS, QUERIES = 64 * GROUPS, TILE = KEYS * D * 2;
  SHARED_BUFFER(char, unaligned);
  char* shared = unaligned + (-shared_address(unaligned) & 1023);
  const SharedAddress queries = shared_address(shared), keys = queries + QUERIES * D * 2, values = keys + 2 * TILE;

  const int first_query = query_tile(causal) * QUERIES;
  const int head = blockIdx.x, group = head / (heads / kv_heads);
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, row = i64(blockIdx.z) * tokens;
  const bf16* k = qkv + row * width + (heads + group) * head_dim;
  const bf16* v = k + kv_heads * head_dim;
  const int seen = causal ? min(tokens, first_query + QUERIES) : tokens, tiles = (seen + KEYS - 1) / KEYS;
  // Tiles are taken from the last to the first: `step` 0 is the one with the diagonal.
  const auto first_key = [&](int step) { return (tiles - 1 - step) * KEYS; };
  const auto load = [&](SharedAddress to, const bf16* from, int step) {
    // Past the last step zeros, rather than a branch.
    const int first = first_key(step), inside = step < tiles ? tokens - first : 0;
    load_panels<D, KEYS, THREADS>(to + step % 2 * TILE, from + first * width, width, inside, head_dim);
  };
  load_panels<D, QUERIES, THREADS>(queries, qkv + (row + first_query) * width + head * head_dim, width,
                                   tokens - first_query, head_dim);
  load(keys, k, 0);
  commit_copies();
  load(values, v, 0);
  load(keys, k, 1);
  commit_copies();

  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, warp_query = first_query + own;
  int ends[2];
#pragma unroll
  for (int i = 0; i < 2; i++) ends[i] = causal ? min(tokens, warp_query + 8 * i + lane / 4 + 1) : tokens;
  const Descriptor q = describe(queries + threadIdx.x / 128 * 64 * 128, 0);
  const auto tile_of = [&](SharedAddress of, int step) { return describe(of + step % 2 * TILE, KEYS * 128); };
  Softmax<KEYS> softmax(head_dim);
  float s[KEYS / 8][4], sums[D / 8][4] = {};
  unsigned p[KEYS / 16][4];

  wait_for_copies<1>();
  show_copies_to_products();
  __syncthreads();
  before_products();
  panel_scores<D, QUERIES, KEYS>(s, q, tile_of(keys, 0));
  commit_products();
  wait_for_products<0>(s);
  if (first_key(0) + KEYS > tokens || (causal && first_key(0) + KEYS > warp_query)) softmax.mask(s, first_key(0), ends);
  softmax.apply(s);
  round_to_a<KEYS>(p, s);

  // A step is begun, with the next tile's scores done and the products of this one's values under way, and ended. Copies are
  // started behind the products: nothing else keeps the tensor cores busy while they are.
  const auto begin = [&](int step) {
    wait_for_copies<0>();
    show_copies_to_products();
    // All are done with this step's keys and with the values before these: their places take what comes next.
    __syncthreads();
    before_products();
    panel_scores<D, QUERIES, KEYS>(s, q, tile_of(keys, step + 1));
    commit_products();
    panel_sums<D, KEYS>(sums, p, tile_of(values, step));
    commit_products();
    load(keys, k, step + 2);
    load(values, v, step + 1);
    commit_copies();
    wait_for_products<1>(s);
  };
  const auto end = [&]() {
    softmax.apply(s);
    computed_by_now(softmax.total[0] + softmax.total[1]);
    wait_for_products<0>(sums);
#pragma unroll
    for (int n = 0; n < D / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) sums[n][i] *= softmax.shrink[i / 2];
    }
    round_to_a<KEYS>(p, s);
  };
  // Where tiles are half as wide as the block, the diagonal reaches into the second one; into no other. That step stands by
  // itself: a branch while products are under way makes the assembler wait for them where its paths meet.
  static_assert(QUERIES <= 2 * KEYS, "the diagonal lies in the last two tiles");
  int step = 0;
  if (KEYS < QUERIES && causal && tiles > 1) {
    begin(0);
    softmax.mask(s, first_key(1), ends);
    end();
    step = 1;
  }
  for (; step + 1 < tiles; step++) {
    begin(step);
    end();
  }
  wait_for_copies<0>();
  show_copies_to_products();
  __syncthreads();
  before_products();
  panel_sums<D, KEYS>(sums, p, tile_of(values, tiles - 1));
  commit_products();
  wait_for_products<0>(sums);

  float factor[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    float whole = softmax.total[i];
    whole += __shfl_xor_sync(ALL_LANES, whole, 1);
    whole += __shfl_xor_sync(ALL_LANES, whole, 2);
    factor[i] = 1.0f / whole;
    const int query = warp_query + 8 * i + lane / 4;
    if (lane % 4 == 0 && query < tokens)
      lse[(row + query) * heads + head] = softmax.largest[i] * softmax.scale_2 * LN_2 + logf(whole);
  }
  const i64 out_width = i64(heads) * head_dim;
  store_panel_rows<D, QUERIES>(sums, factor, shared, own, out + (row + warp_query) * out_width + head * head_dim, out_width,
                               tokens - warp_query, head_dim);
}

#else
// Compiled for another architecture: never launched there.
template <int D, int GROUPS, int KEYS, class... Args>
__device__ void attend(Args...) {
  __trap();
}
#endif

// Grid: (H, ceil(T / 128), B), 256 threads, (128 + 4 KEYS) * D * 2 + 1024 bytes of shared memory.
KERNEL __launch_bounds__(256, 2) attention_wgmma_64(const bf16* qkv, bf16* out, float* lse, int tokens, int heads,
                                                    int kv_heads, int head_dim, int causal) {
  attend<64, 2, 64>(qkv, out, lse, tokens, heads, kv_heads, head_dim, causal);
}
KERNEL __launch_bounds__(256, 1) attention_wgmma_128(const bf16* qkv, bf16* out, float* lse, int tokens, int heads,
                                                     int kv_heads, int head_dim, int causal) {
  attend<128, 2, 128>(qkv, out, lse, tokens, heads, kv_heads, head_dim, causal);
}

EXPORT(attention_wgmma_64)
EXPORT(attention_wgmma_128)

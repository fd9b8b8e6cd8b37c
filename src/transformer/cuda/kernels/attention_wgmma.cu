// Attention on Hopper's tensor cores (wgmma), otherwise as in attention_mma.cu: out = softmax(scale Q K^T) V, and the
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
#include "attention_scores.h"
#include "warpgroup.h"

#ifdef WARPGROUPS

// Scores of a warp's 16 queries and 128 keys become probabilities, relative to the largest score so far.
template <int KEYS>
struct Softmax {
  float scale_2, largest[2], total[2], shrink[2];

  __device__ __forceinline__ explicit Softmax(float scale) {
    scale_2 = scale * LOG2_E;
    largest[0] = largest[1] = -INFINITE, total[0] = total[1] = 0.0f;
  }
  // Keys from `ends[i]` on count nothing for row 8 i + lane / 4, and, where it is WINDOWED, those before `begins[i]`; `first` is
  // the tile's first key.
  template <bool WINDOWED>
  __device__ __forceinline__ static void mask(float (&s)[KEYS / 8][4], int first, const int (&begins)[2],
                                              const int (&ends)[2]) {
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int key = first + 8 * n + int(threadIdx.x) % 4 * 2 + i % 2;
        if (key >= ends[i / 2] || (WINDOWED && key < begins[i / 2])) s[n][i] = -INFINITE;
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

template <int D, int GROUPS, int KEYS, bool WINDOWED>
__device__ __forceinline__ void attend(const Forward<bf16>& f) {
  constexpr int THREADS = 128 * GROUPS, QUERIES = 64 * GROUPS, TILE = KEYS * D * 2;
  SHARED_BUFFER(char, unaligned);
  char* shared = unaligned + (-shared_address(unaligned) & 1023);
  const SharedAddress queries = shared_address(shared), keys = queries + QUERIES * D * 2, values = keys + 2 * TILE;

  const int tokens = f.tokens, heads = f.heads, kv_heads = f.kv_heads, head_dim = f.head_dim;
  const int first_query = query_tile(f.causal) * QUERIES;
  const int head = blockIdx.x, group = head / (heads / kv_heads);
  const i64 row_width = i64(heads + 2 * kv_heads) * head_dim, row = i64(blockIdx.z) * tokens;
  const bf16* k = WINDOWED ? f.keys + f.group(group) : f.qkv + row * row_width + (heads + group) * head_dim;
  const bf16* v = WINDOWED ? f.values + f.group(group) : k + kv_heads * head_dim;
  const i64 width = WINDOWED ? i64(f.key_stride) : row_width;
  const Sight sight = {WINDOWED ? f.before + tokens : tokens, WINDOWED ? f.before : 0, f.causal, f.window};
  // Of the block's queries, the first key that any sees, and how many there are from there on.
  const int end_tile = (sight.past(first_query + QUERIES - 1) + KEYS - 1) / KEYS;
  const int first_tile = WINDOWED ? sight.first(first_query) / KEYS : 0, tiles = end_tile - first_tile;
  // Tiles are taken from the last to the first: `step` 0 is the one with the diagonal.
  const auto first_key = [&](int step) { return (end_tile - 1 - step) * KEYS; };
  const auto load = [&](SharedAddress to, const bf16* from, int step) {
    // Past the last step zeros, rather than a branch.
    const int first = first_key(step), inside = step < tiles ? sight.keys - first : 0;
    load_panels<D, KEYS, THREADS>(to + step % 2 * TILE, from + first * width, width, inside, head_dim);
  };
  load_panels<D, QUERIES, THREADS>(queries, f.qkv + (row + first_query) * row_width + head * head_dim, row_width,
                                   tokens - first_query, head_dim);
  load(keys, k, 0);
  commit_copies();
  load(values, v, 0);
  load(keys, k, 1);
  commit_copies();

  const int lane = threadIdx.x % 32, own = threadIdx.x / 32 * 16, warp_query = first_query + own;
  int begins[2] = {}, ends[2];
#pragma unroll
  for (int i = 0; i < 2; i++) {
    const int query = warp_query + 8 * i + lane / 4;
    ends[i] = sight.past(query);
    if (WINDOWED) begins[i] = sight.first(query);
  }
  const Descriptor q = describe(queries + threadIdx.x / 128 * 64 * 128, 0);
  const auto tile_of = [&](SharedAddress of, int step) { return describe(of + step % 2 * TILE, KEYS * 128); };
  Softmax<KEYS> softmax(f.scale);
  float s[KEYS / 8][4], sums[D / 8][4] = {};
  unsigned p[KEYS / 16][4];

  wait_for_copies<1>();
  show_copies_to_products();
  __syncthreads();
  before_products();
  panel_scores<D, QUERIES, KEYS>(s, q, tile_of(keys, 0));
  commit_products();
  wait_for_products<0>(s);
  if (WINDOWED || first_key(0) + KEYS > tokens || (f.causal && first_key(0) + KEYS > warp_query))
    softmax.template mask<WINDOWED>(s, first_key(0), begins, ends);
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
  // itself: a branch while products are under way makes the assembler wait for them where its paths meet. So do the steps
  // whose keys are not all within all queries' windows, which are the last, and, of queries that do not begin a tile, the first.
  static_assert(QUERIES <= 2 * KEYS, "the diagonal lies in the last two tiles");
  const auto masked = [&](int step) {
    begin(step);
    softmax.template mask<WINDOWED>(s, first_key(step + 1), begins, ends);
    end();
  };
  int step = 0, unmasked = tiles;
  if constexpr (WINDOWED) {
    const int first_query_key = sight.before + first_query, last_begin = sight.first(first_query + QUERIES - 1);
    unmasked = max(0, end_tile - (last_begin + KEYS - 1) / KEYS);
    for (; step + 1 < tiles && f.causal && first_key(step + 1) + KEYS > first_query_key + 1; step++) masked(step);
  } else if (KEYS < QUERIES && f.causal && tiles > 1) {
    masked(0);
    step = 1;
  }
  for (; step + 1 < min(unmasked, tiles); step++) {
    begin(step);
    end();
  }
  if constexpr (WINDOWED) {
    for (; step + 1 < tiles; step++) masked(step);
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
      f.lse[(row + query) * heads + head] = softmax.largest[i] * softmax.scale_2 * LN_2 + logf(whole);
  }
  const i64 out_width = i64(heads) * head_dim;
  store_panel_rows<D, QUERIES>(sums, factor, shared, own, f.out + (row + warp_query) * out_width + head * head_dim, out_width,
                               tokens - warp_query, head_dim);
}

#else
// Compiled for another architecture: never launched there.
template <int D, int GROUPS, int KEYS, bool WINDOWED>
__device__ void attend(const Forward<bf16>&) {
  __trap();
}
#endif

// Grid: (H, ceil(T / 128), B), 256 threads, (128 + 4 KEYS) * D * 2 + 1024 bytes of shared memory.
#define ATTENTION(name, D, BLOCKS, KEYS, WINDOWED)                                                                         \
  KERNEL __launch_bounds__(256, BLOCKS) attention_wgmma_##name(FORWARD_PARAMETERS(bf16)) {                                 \
    attend<D, 2, KEYS, WINDOWED>(FORWARD_ARGUMENTS(bf16));                                                                 \
  }
ATTENTION(64, 64, 2, 64, false)
ATTENTION(128, 128, 1, 128, false)
ATTENTION(64_window, 64, 2, 64, true)
ATTENTION(128_window, 128, 1, 128, true)

EXPORT(attention_wgmma_64)
EXPORT(attention_wgmma_128)
EXPORT(attention_wgmma_64_window)
EXPORT(attention_wgmma_128_window)

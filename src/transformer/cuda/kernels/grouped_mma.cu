// Products of groups of rows by mma.sync: bf16 factors, f32 sums; widths that are multiples of 8.
//
// A block has a tile of M x N results; factors come into a ring of stages in shared memory, K of the inner dimension at a time, by
// copies that run under the products. Three shapes of tile:
//   128 x 128, K 64, 3 stages of 32 KiB, 8 warps of 64 x 32: 192 bytes of shared memory read for a m16n8k16, within the 256 that a
//     multiprocessor reads meanwhile; two blocks on a multiprocessor (128 registers, 192 KiB).
//   64 x 128 where an expert has fewer rows than that: half of the products of a 128 x 128 tile would be of nothing. Warps whose rows
//     are all beyond the last do no products.
//   16 x 64, K 128, 4 stages of 20 KiB, 4 warps, for the few rows of decoding, bound by reading weights once: two blocks have 96 KiB
//     of weights under way on a multiprocessor, beyond the 23 KB that an H100's memory takes to be kept busy (matvec.h), and a
//     product of [2, 14336] by [4096, 14336] twice, the least that a layer of decoding has, is 128 blocks.
#include "curves.h"
#include "grouped_tiles.h"

// Results of a block: ROWS x COLUMNS by WARPS_M x WARPS_N warps, DEEP of the inner dimension at a time. A's rows, and B's, are the inner dimension where so said.
template <int ROWS, int COLUMNS, int DEEP, int WARPS_M, int WARPS_N, int STAGES, bool A_INNER, bool B_INNER>
struct Tile {
  static constexpr int M = ROWS, N = COLUMNS, K = DEEP, THREADS = 32 * WARPS_M * WARPS_N, OWN_M = M / WARPS_M, OWN_N = N / WARPS_N;
  static constexpr int A_BYTES = M * K * 2, STAGE = (M + N) * K * 2, A_WIDTH = A_INNER ? 64 : K, B_WIDTH = B_INNER ? 64 : K;
  static_assert((!A_INNER || 64 % OWN_M == 0) && (!B_INNER || 64 % OWN_N == 0), "a warp's part of a factor is in one panel");
  float sums[OWN_M / 16][OWN_N / 8][4] = {};

  __device__ __forceinline__ static int own_row() { return int(threadIdx.x) / 32 / WARPS_N * OWN_M; }
  __device__ __forceinline__ static int own_column() { return int(threadIdx.x) / 32 % WARPS_N * OWN_N; }

  __device__ __forceinline__ void step(SharedAddress stage) {
    // Panels of 64 where rows are the inner dimension.
    const Fragments<A_WIDTH> a(stage + (A_INNER ? own_row() / 64 * (K * 128) : 0));
    const Fragments<B_WIDTH> b(stage + A_BYTES + (B_INNER ? own_column() / 64 * (K * 128) : 0));
#pragma unroll
    for (int k = 0; k < K / 16; k++) {
      // B's fragments and one of A's, of which a warp has twice as many: fewer registers than the other way round.
      unsigned right[OWN_N / 16][4];
#pragma unroll
      for (int n = 0; n < OWN_N / 16; n++) {
        if constexpr (B_INNER) b.as_inner(right[n], 16 * k, own_column() % 64 / 16 + n);
        else b.as_columns(right[n], own_column() + 16 * n, k);
      }
#pragma unroll
      for (int m = 0; m < OWN_M / 16; m++) {
        unsigned left[4];
        if constexpr (A_INNER) a.as_a_inner(left, 16 * k, own_row() % 64 / 16 + m);
        else a.as_a(left, own_row() + 16 * m, k);
#pragma unroll
        for (int n = 0; n < OWN_N / 16; n++) {
          multiply_add(sums[m][2 * n], left, right[n][0], right[n][1]);
          multiply_add(sums[m][2 * n + 1], left, right[n][2], right[n][3]);
        }
      }
    }
  }

  // sums = A B over `inner`; `rows`: how many of the tile's there are.
  template <class A, class B>
  __device__ __forceinline__ void multiply(const A& a, const B& b, int inner, int rows) {
    SHARED_BUFFER(char, shared);
    const SharedAddress stages = shared_address(shared);
    const int steps = (inner + K - 1) / K;
    const auto load = [&](int step) {
      const SharedAddress to = stages + step % STAGES * STAGE;
      if (step < steps) {
        a.load(to, step * K);
        b.load(to + A_BYTES, step * K);
      }
      commit_copies();
    };
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) load(s);
    for (int s = 0; s < steps; s++) {
      wait_for_copies<STAGES - 2>();
      // The stage has come for all threads, and all are done with the one whose place the next one takes.
      __syncthreads();
      load(s + STAGES - 1);
      if (own_row() < rows) step(stages + s % STAGES * STAGE);
    }
  }

  // Where 8 columns of B of every 16 are gates and the next 8 their other halves: calls f(row, column among the gates, two neighbouring
  // gates, their other halves) for what is inside `rows` x `columns` gates, an even number.
  template <class F>
  __device__ __forceinline__ void each_gate(int rows, int columns, F f) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < OWN_M / 16; m++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int row = own_row() + 16 * m + 8 * i + lane / 4;
        if (row >= rows) continue;
#pragma unroll
        for (int n = 0; n < OWN_N / 8; n += 2) {
          const int column = own_column() / 2 + 4 * n + lane % 4 * 2;
          const float gates[2] = {sums[m][n][2 * i], sums[m][n][2 * i + 1]};
          const float others[2] = {sums[m][n + 1][2 * i], sums[m][n + 1][2 * i + 1]};
          if (column < columns) f(row, column, gates, others);
        }
      }
    }
  }

  // Calls f(row, column, two neighbouring sums) for what is inside `rows` x `columns`, an even number.
  template <class F>
  __device__ __forceinline__ void each_pair(int rows, int columns, F f) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < OWN_M / 16; m++) {
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const int row = own_row() + 16 * m + 8 * i + lane / 4;
        if (row >= rows) continue;
#pragma unroll
        for (int n = 0; n < OWN_N / 8; n++) {
          const int column = own_column() + 8 * n + lane % 4 * 2;
          if (column < columns) f(row, column, sums[m][n][2 * i], sums[m][n][2 * i + 1]);
        }
      }
    }
  }
};

// pre [rows, m] = x w[e]^T + bias[e], and act = f(pre): [rows, m], or [rows, m / 2] where it is gated.
template <class Tile>
__device__ __forceinline__ void up(const bf16* x, const int* tokens, const bf16* w, const bf16* bias, bf16* pre, bf16* act,
                                   const int* starts, const int2* tiles, int most, int k, int m, int kind) {
  const Stretch s = stretch_of_block<Tile::M, Tile::N>(starts, tiles, most, m);
  if (s.expert < 0) return;
  // A block has as many gates as other halves: both of a pair in one thread.
  const bool gated = is_gated(kind);
  const int f = gated ? m / 2 : m, column = gated ? s.column / 2 : s.column;
  const auto row = [&](int r) { return r >= s.count ? -1 : tokens ? tokens[s.first + r] : s.first + r; };
  const auto output = [&](int r) {
    const int own = column + (gated ? r / 16 * 8 + r % 8 : r);
    return own >= f ? -1 : gated && r % 16 >= 8 ? f + own : own;
  };
  const Side<Tile::K, Tile::M, Tile::THREADS> a(x, k, row);
  const Side<Tile::K, Tile::N, Tile::THREADS> b(w + i64(s.expert) * m * k, k, output);
  Tile tile;
  tile.multiply(a, b, k, s.count);
  // Two neighbouring sums with their biases, kept.
  const auto keep = [&](int r, int c, float low, float high, float (&to)[2]) {
    to[0] = to[1] = 0.0f;
    if (bias) load(bias + i64(s.expert) * m + c, to);
    to[0] += low, to[1] += high;
    store(pre + i64(s.first + r) * m + c, to);
  };
  if (gated) {
    tile.each_gate(s.count, f - column, [&](int r, int c, const float (&gates)[2], const float (&others)[2]) {
      float gate[2], other[2];
      keep(r, column + c, gates[0], gates[1], gate);
      keep(r, f + column + c, others[0], others[1], other);
      const float value[2] = {gated_value(kind, gate[0], other[0]), gated_value(kind, gate[1], other[1])};
      store(act + i64(s.first + r) * f + column + c, value);
    });
  } else {
    tile.each_pair(s.count, f - column, [&](int r, int c, float low, float high) {
      float x[2];
      keep(r, column + c, low, high, x);
      const float value[2] = {value_of(kind, x[0]), value_of(kind, x[1])};
      store(act + i64(s.first + r) * f + column + c, value);
    });
  }
}

// Of decoding, whose launches are short: the product and what follows it in one.
KERNEL __launch_bounds__(128, 2)
    grouped_mma_up_16(const bf16* x, const int* tokens, const bf16* w, const bf16* bias, bf16* pre, bf16* act, const int* starts,
                      const int2* tiles, int most, int k, int m, int kind) {
  up<Tile<16, 64, 128, 1, 4, 4, false, false>>(x, tokens, w, bias, pre, act, starts, tiles, most, k, m, kind);
}

// Grid: stretch_of_block; STAGES (M + N) K 2 bytes of shared memory, 32 WARPS_M WARPS_N threads.
#define LINEAR(M, N, K, WARPS_M, WARPS_N, STAGES)                                                                                   \
  KERNEL __launch_bounds__(32 * WARPS_M * WARPS_N, 2)                                                                               \
      grouped_mma_linear_##M(const bf16* x, const int* tokens, const bf16* w, const bf16* bias, bf16* out, const int* starts,       \
                             const int2* tiles, int most, int k, int m) {                                                           \
    linear<Tile<M, N, K, WARPS_M, WARPS_N, STAGES, false, false>>(x, tokens, w, bias, out, starts, tiles, most, k, m);              \
  }
LINEAR(16, 64, 128, 1, 4, 4)
LINEAR(64, 128, 64, 2, 4, 3)
LINEAR(128, 128, 64, 2, 4, 3)

#define INPUT(M, N, K, WARPS_M, WARPS_N, STAGES)                                                                                    \
  KERNEL __launch_bounds__(32 * WARPS_M * WARPS_N, 2)                                                                               \
      grouped_mma_input_##M(const bf16* dout, const int* tokens, const bf16* w, bf16* dx, const int* starts, const int2* tiles,     \
                            int most, int k, int m) {                                                                               \
    input<Tile<M, N, K, WARPS_M, WARPS_N, STAGES, false, true>>(dout, tokens, w, dx, starts, tiles, most, k, m);                    \
  }
INPUT(64, 128, 64, 2, 4, 3)
INPUT(128, 128, 64, 2, 4, 3)

// As grouped_weight; grid: (tiles of 128 of k, tiles of 128 of m, E), 256 threads, 96 KiB of shared memory.
KERNEL __launch_bounds__(256, 2)
    grouped_mma_weight(const bf16* dout, const int* of_dout, const bf16* x, const int* of_x, float* dw, const int* starts, int k, int m) {
  weight<Tile<128, 128, 64, 2, 4, 3, true, true>>(dout, of_dout, x, of_x, dw, starts, k, m);
}

EXPORT(grouped_mma_up_16)
EXPORT(grouped_mma_linear_16)
EXPORT(grouped_mma_linear_64)
EXPORT(grouped_mma_linear_128)
EXPORT(grouped_mma_input_64)
EXPORT(grouped_mma_input_128)
EXPORT(grouped_mma_weight)

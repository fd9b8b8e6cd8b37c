// Products of groups of rows on Hopper's tensor cores (wgmma), otherwise as in grouped_mma.cu.
//
// A block has 128 x 128 results, two groups of four warps with 64 x 128 each, and 64 of the inner dimension at a time in a ring of
// three stages of 32 KiB. Four products a group and step, of 64 clocks each, read 96 bytes of shared memory a clock, of 128. Two blocks
// stay on a multiprocessor: while one waits for a stage, its barrier and its own products, the other's run; copies are started under
// products.
#include "warpgroup.h"
#include "grouped_tiles.h"

#ifdef WARPGROUPS

// A's rows, and B's, are the inner dimension where so said.
template <bool A_INNER, bool B_INNER>
struct Tile {
  static constexpr int M = 128, N = 128, K = 64, THREADS = 256, STAGES = 3, A_BYTES = M * K * 2, STAGE = (M + N) * K * 2;
  // Bytes to what a group of warps has of A, to the next 16 of the inner dimension, and of a panel.
  static constexpr int PANEL = K * 128, OWN_A = A_INNER ? PANEL : 64 * 128;
  static constexpr int NEXT_A = A_INNER ? 16 * 128 : 32, NEXT_B = B_INNER ? 16 * 128 : 32;
  float sums[N / 8][4] = {};

  // sums = A B over `inner`.
  template <class A, class B>
  __device__ __forceinline__ void multiply(const A& a, const B& b, int inner, int) {
    SHARED_BUFFER(char, unaligned);
    const SharedAddress stages = shared_address(unaligned) + (-shared_address(unaligned) & 1023);
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
#pragma unroll 1
    for (int s = 0; s < steps; s++) {
      wait_for_copies<STAGES - 2>();
      show_copies_to_products();
      // The stage has come for all threads, and all are done with the one whose place the next one takes.
      __syncthreads();
      const SharedAddress stage = stages + s % STAGES * STAGE;
      const Descriptor left = describe(stage + threadIdx.x / 128 * OWN_A, PANEL), right = describe(stage + A_BYTES, PANEL);
      before_products();
#pragma unroll
      for (int k = 0; k < K / 16; k++) multiply_tiles<A_INNER, B_INNER>(sums, further(left, k * NEXT_A), further(right, k * NEXT_B));
      commit_products();
      load(s + STAGES - 1);
      wait_for_products<0>(sums);
    }
  }

  // Calls f(row, column, two neighbouring sums) for what is inside `rows` x `columns`, an even number.
  template <class F>
  __device__ __forceinline__ void each_pair(int rows, int columns, F f) const {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = int(threadIdx.x) / 32 * 16 + 8 * i + int(threadIdx.x) % 32 / 4;
      if (row >= rows) continue;
#pragma unroll
      for (int n = 0; n < N / 8; n++) {
        const int column = 8 * n + int(threadIdx.x) % 4 * 2;
        if (column < columns) f(row, column, sums[n][2 * i], sums[n][2 * i + 1]);
      }
    }
  }
};

// Grid: stretch_of_block; 256 threads, 97 KiB of shared memory.
KERNEL __launch_bounds__(256, 2)
    grouped_wgmma_linear(const bf16* x, const int* tokens, const bf16* w, const bf16* bias, bf16* out, const int* starts,
                         const int2* tiles, int most, int k, int m) {
  linear<Tile<false, false>>(x, tokens, w, bias, out, starts, tiles, most, k, m);
}
KERNEL __launch_bounds__(256, 2)
    grouped_wgmma_input(const bf16* dout, const int* tokens, const bf16* w, bf16* dx, const int* starts, const int2* tiles, int most,
                        int k, int m) {
  input<Tile<false, true>>(dout, tokens, w, dx, starts, tiles, most, k, m);
}
// Grid: (tiles of 128 of k, tiles of 128 of m, E).
KERNEL __launch_bounds__(256, 2)
    grouped_wgmma_weight(const bf16* dout, const int* of_dout, const bf16* x, const int* of_x, float* dw, const int* starts, int k, int m) {
  weight<Tile<true, true>>(dout, of_dout, x, of_x, dw, starts, k, m);
}

#else
// Compiled for another architecture: never launched there.
KERNEL grouped_wgmma_linear(const bf16*, const int*, const bf16*, const bf16*, bf16*, const int*, const int2*, int, int, int) {
  __trap();
}
KERNEL grouped_wgmma_input(const bf16*, const int*, const bf16*, bf16*, const int*, const int2*, int, int, int) { __trap(); }
KERNEL grouped_wgmma_weight(const bf16*, const int*, const bf16*, const int*, float*, const int*, int, int) { __trap(); }
#endif

EXPORT(grouped_wgmma_linear)
EXPORT(grouped_wgmma_input)
EXPORT(grouped_wgmma_weight)

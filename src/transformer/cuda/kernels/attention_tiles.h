// Tiles of bf16 rows in shared memory, and products over them by tensor cores, as attention needs them.
//
// A tile is [rows, D], D a multiple of 32. Its 16-byte chunks are swizzled: rows that lie in the same banks have their
// chunks exchanged, so that the 8 rows that ldmatrix reads at a time, and the 8 that the lanes of a warp write, lie in
// different banks. The true head_dim may be smaller than D, and a multiple of 8: the rest is zeros.
#pragma once
#include "attention_order.h"
#include "tensor_cores.h"

constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

// Keeps the compiler from computing what follows from `x` ahead of a loop and holding it in registers that there are not.
template <class T>
__device__ __forceinline__ void computed_here([[maybe_unused]] T& x) {
#ifndef CENTIME_HOST
  asm volatile("" : "+r"(x));
#endif
}

// Where a block's sequence has its rows in qkv [N, (H + 2 KV) * D] and in out and dout [N, H * D].
struct Place {
  int tokens, heads, kv_heads, head_dim;
  i64 width, out_width, row;

  __device__ __forceinline__ Place(int tokens, int heads, int kv_heads, int head_dim, int sequence = blockIdx.z)
      : tokens(tokens),
        heads(heads),
        kv_heads(kv_heads),
        head_dim(head_dim),
        width(i64(heads + 2 * kv_heads) * head_dim),
        out_width(i64(heads) * head_dim),
        row(i64(sequence) * tokens) {}
  // The same, computed once more: for what follows a loop, so that nothing is held through it.
  __device__ __forceinline__ Place again() const {
    int sequence = blockIdx.z;
    computed_here(sequence);
    return Place(tokens, heads, kv_heads, head_dim, sequence);
  }
  __device__ __forceinline__ i64 query(int head) const { return row * width + head * head_dim; }
  __device__ __forceinline__ i64 key(int group) const { return row * width + (heads + group) * head_dim; }
  __device__ __forceinline__ i64 value(int group) const { return row * width + (heads + kv_heads + group) * head_dim; }
  __device__ __forceinline__ i64 result(int head) const { return row * out_width + head * head_dim; }
};

template <int D>
__device__ __forceinline__ unsigned swizzle(unsigned row) {
  return D % 64 == 0 ? row & 7 : (row >> 1) & 3;
}

// Byte offset of a row's chunk in a tile.
template <int D>
__device__ __forceinline__ unsigned chunk_offset(unsigned row, unsigned chunk) {
  return row * (D * 2) + ((chunk ^ swizzle<D>(row)) << 4);
}

// Starts the copy of ROWS rows of `head_dim` elements; `inside` of them are there, the others become zeros. Every row that a
// thread copies has the same chunk and the same swizzle; threads past a multiple of 8 rows copy none.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_tile(SharedAddress to, const bf16* from, i64 stride, int inside, int head_dim) {
  constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS / 8 * 8;
  static_assert(STEP > 0 && ROWS % STEP == 0, "a tile is divided evenly among threads");
  unsigned thread = threadIdx.x;
  computed_here(thread);
  if (STEP * CHUNKS < THREADS && thread >= STEP * CHUNKS) return;
  const int first = thread / CHUNKS, chunk = thread % CHUNKS;
  const SharedAddress at = to + chunk_offset<D>(first, chunk);
  const bf16* source = from + (first * int(stride) + chunk * 8);
  const int end = chunk * 8 < head_dim ? inside - first : 0;
#pragma unroll
  for (int i = 0; i < ROWS / STEP; i++) {
    copy_async_16(at + i * STEP * D * 2, source, i * STEP < end);
    source += STEP * stride;
  }
}

// Where this lane reads when a warp loads fragments from a tile, whose address is a multiple of 256.
template <int D>
struct Fragments {
  // Of rows as A (and, transposed, of rows as the inner dimension of B): lanes 0 .. 15 the rows, the upper half the next chunk.
  SharedAddress rows;
  // Of rows as columns of B: 8 rows, their next chunk, 8 more rows.
  SharedAddress columns;

  __device__ __forceinline__ explicit Fragments(SharedAddress tile) {
    const unsigned lane = threadIdx.x % 32;
    rows = tile + chunk_offset<D>(lane % 16, lane / 16);
    columns = tile + chunk_offset<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
    computed_here(rows);
    computed_here(columns);
  }
  // `16 step` elements further on. Where rows are a power of two long, bits of a step that the swizzle may have flipped
  // are flipped, the others added; where they are not, the swizzle is undone and done again.
  __device__ __forceinline__ static SharedAddress further(SharedAddress at, unsigned row, int step) {
    if constexpr ((D & (D - 1)) == 0) return (at ^ (step << 5 & 127)) + (step << 5 & ~127);
    const int flipped = swizzle<D>(row) << 4 & 96;
    return at + (((step << 5) ^ flipped) - flipped);
  }
  // Rows `row` .. + 16, inner dimension `16 step` .. + 16; `row` is a multiple of 16.
  __device__ __forceinline__ void as_a(unsigned (&a)[4], int row, int step) const {
    load_matrices(a, further(rows, threadIdx.x % 16, step) + row * (D * 2));
  }
  // The same of rows that are the inner dimension, `row` .. + 16; A's 16 rows are the elements `16 step` .. + 16.
  __device__ __forceinline__ void as_a_inner(unsigned (&a)[4], int row, int step) const {
    load_matrices_transposed(a, further(columns, threadIdx.x % 8, step) + row * (D * 2));
  }
  // B whose 16 columns are the rows `row` .. + 16; the inner dimension is `16 step` .. + 16.
  __device__ __forceinline__ void as_columns(unsigned (&b)[4], int row, int step) const {
    load_matrices(b, further(columns, threadIdx.x % 8, step) + row * (D * 2));
  }
  // B whose inner dimension is the rows `row` .. + 16; its 16 columns are `16 step` .. + 16.
  __device__ __forceinline__ void as_inner(unsigned (&b)[4], int row, int step) const {
    load_matrices_transposed(b, further(rows, threadIdx.x % 16, step) + row * (D * 2));
  }
};

// sums [16 M, 8 N] = A B^T over D: rows `a_row` .. of tile `a`, rows `b_row` .. of tile `b`.
template <int D, int M, int N>
__device__ __forceinline__ void scores(float (&sums)[M][N][4], const Fragments<D>& a, int a_row, const Fragments<D>& b,
                                       int b_row) {
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int n = 0; n < N; n++) sums[m][n][0] = sums[m][n][1] = sums[m][n][2] = sums[m][n][3] = 0.0f;
  }
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    unsigned left[M][4];
#pragma unroll
    for (int m = 0; m < M; m++) a.as_a(left[m], a_row + 16 * m, step);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      unsigned right[4];
      b.as_columns(right, b_row + 8 * n, step);
#pragma unroll
      for (int m = 0; m < M; m++) {
        multiply_add(sums[m][n], left[m], right[0], right[1]);
        multiply_add(sums[m][n + 1], left[m], right[2], right[3]);
      }
    }
  }
}

// sums [16 M, D] += P B: P [16 M, 8 N] as A fragments, rows `b_row` .. + 8 N of tile `b`.
template <int D, int M, int N>
__device__ __forceinline__ void accumulate(float (&sums)[M][D / 8][4], const unsigned (&p)[M][N / 2][4],
                                           const Fragments<D>& b, int b_row) {
#pragma unroll
  for (int inner = 0; inner < N / 2; inner++) {
#pragma unroll
    for (int step = 0; step < D / 16; step++) {
      unsigned right[4];
      b.as_inner(right, b_row + 16 * inner, step);
#pragma unroll
      for (int m = 0; m < M; m++) {
        multiply_add(sums[m][2 * step], p[m][inner], right[0], right[1]);
        multiply_add(sums[m][2 * step + 1], p[m][inner], right[2], right[3]);
      }
    }
  }
}

// C fragments, rounded, as A fragments.
template <int M, int N>
__device__ __forceinline__ void round_to_a(unsigned (&to)[M][N / 2][4], const float (&from)[M][N][4]) {
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int n = 0; n < N; n++) {
      to[m][n / 2][n % 2 * 2] = to_bf16_pair(from[m][n][0], from[m][n][1]);
      to[m][n / 2][n % 2 * 2 + 1] = to_bf16_pair(from[m][n][2], from[m][n][3]);
    }
  }
}

// Rounds a warp's `sums [16 M, D]`, row 16 m + 8 i + lane / 4 times factor[m][i], and writes the first `inside` rows to
// memory, 16 bytes at a time, by way of `own`: 16 M rows of a tile that this warp alone still uses.
template <int D, int M>
__device__ __forceinline__ void store_rows(const float (&sums)[M][D / 8][4], const float (&factor)[M][2], char* own,
                                           bf16* to, i64 stride, int inside, int head_dim) {
  constexpr int CHUNKS = D / 8;
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int m = 0; m < M; m++) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = 16 * m + 8 * i + lane / 4;
#pragma unroll
      for (int n = 0; n < CHUNKS; n++) {
        const unsigned pair = to_bf16_pair(sums[m][n][2 * i] * factor[m][i], sums[m][n][2 * i + 1] * factor[m][i]);
        *reinterpret_cast<unsigned*>(own + chunk_offset<D>(row, n) + lane % 4 * 4) = pair;
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16 * M * CHUNKS / 32; i++) {
    const int index = lane + 32 * i, row = index / CHUNKS, chunk = index % CHUNKS;
    if (row < inside && chunk * 8 < head_dim) {
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(own + chunk_offset<D>(row, chunk));
    }
  }
}

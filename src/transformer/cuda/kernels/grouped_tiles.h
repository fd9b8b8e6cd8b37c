// Products of groups of rows on tensor cores, whichever: how factors come into shared memory, and which of them a block multiplies.
// bf16 factors, f32 sums; widths that are multiples of 8.
//
// Every row of a factor is looked up where it lies, its token's or its own, so that nothing is gathered beforehand. A Tile has M, N, K,
// THREADS; multiply(a, b, inner, rows), its sums over the inner dimension, a and b being what loads it; and each_pair(rows, columns, f).
#pragma once
#include "attention_tiles.h"
#include "grouped.h"

// A factor's tile whose rows are the tile's side, and which the inner dimension passes over: ROWS rows, D of their columns at a time.
template <int D, int ROWS, int THREADS>
struct Side {
  static constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS, EACH = ROWS / STEP;
  static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0, "a tile is divided evenly among threads");
  const bf16* from;
  int width, rows[EACH];

  // Row r of the tile is row `of(r)` of `from` [.., width]; -1 for zeros.
  template <class Of>
  __device__ __forceinline__ Side(const bf16* from, int width, Of of) : from(from), width(width) {
#pragma unroll
    for (int i = 0; i < EACH; i++) rows[i] = of(int(threadIdx.x) / CHUNKS + i * STEP);
  }
  __device__ __forceinline__ void load(SharedAddress to, int inner) const {
    const int chunk = threadIdx.x % CHUNKS, column = inner + chunk * 8;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const bool inside = rows[i] >= 0 && column < width;
      const bf16* source = from + i64(rows[i]) * width + column;
      copy_async_16(to + chunk_offset<D>(threadIdx.x / CHUNKS + i * STEP, chunk), inside ? source : from, inside);
    }
  }
};

// The same of rows that lie one after the other: `count` of them from `from` [.., width] on, zeros beyond.
template <int D, int ROWS, int THREADS>
struct Straight {
  static constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS, EACH = ROWS / STEP;
  static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0, "a tile is divided evenly among threads");
  const bf16* from;
  int width, count;

  __device__ __forceinline__ void load(SharedAddress to, int inner) const {
    const int chunk = threadIdx.x % CHUNKS, first = threadIdx.x / CHUNKS, column = inner + chunk * 8;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int row = first + i * STEP;
      const bool inside = row < count && column < width;
      copy_async_16(to + chunk_offset<D>(row, chunk), inside ? from + i64(row) * width + column : from, inside);
    }
  }
};

// Byte offset of a row's 16-byte chunk in panels of ROWS rows of 64 elements, one after the other.
template <int ROWS>
__device__ __forceinline__ unsigned inner_offset(unsigned row, unsigned chunk) {
  return chunk / 8 * (ROWS * 128) + chunk_offset<64>(row, chunk % 8);
}

// A factor's tile whose rows are the inner dimension: ROWS of them at a time, the D columns from `column` on, in panels of 64.
template <int D, int ROWS, int THREADS>
struct Inner {
  static constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS, EACH = ROWS / STEP;
  static_assert(THREADS % CHUNKS == 0 && ROWS % STEP == 0, "a tile is divided evenly among threads");
  const bf16* from;
  int width, column;
  // Row i of the inner dimension is row first + i of `from`, or, with `of`, row of[first + i].
  const int* of;
  int first, count;

  __device__ __forceinline__ void load(SharedAddress to, int inner) const {
    const int chunk = threadIdx.x % CHUNKS, at = column + chunk * 8;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
      const int own = threadIdx.x / CHUNKS + i * STEP, place = first + inner + own;
      const bool inside = inner + own < count && at < width;
      const int row = !inside ? 0 : of ? of[place] : place;
      copy_async_16(to + inner_offset<ROWS>(own, chunk), inside ? from + i64(row) * width + at : from, inside);
    }
  }
};

// As grouped_linear.
template <class Tile>
__device__ __forceinline__ void linear(const bf16* x, const int* tokens, const bf16* w, const bf16* bias, bf16* out, const int* starts,
                                       const int2* tiles, int most, int k, int m) {
  const Stretch s = stretch_of_block<Tile::M, Tile::N>(starts, tiles, most, m);
  if (s.expert < 0) return;
  const auto row = [&](int r) { return r >= s.count ? -1 : tokens ? tokens[s.first + r] : s.first + r; };
  const Side<Tile::K, Tile::M, Tile::THREADS> a(x, k, row);
  const Straight<Tile::K, Tile::N, Tile::THREADS> b = {w + (i64(s.expert) * m + s.column) * k, k, m - s.column};
  Tile tile;
  tile.multiply(a, b, k, s.count);
  bf16* to = out + i64(s.first) * m + s.column;
  const bf16* added = bias ? bias + i64(s.expert) * m + s.column : nullptr;
  tile.each_pair(s.count, m - s.column, [&](int r, int c, float low, float high) {
    float beside[2] = {};
    if (added) load(added + c, beside);
    *reinterpret_cast<unsigned*>(to + i64(r) * m + c) = to_bf16_pair(low + beside[0], high + beside[1]);
  });
}

// As grouped_input.
template <class Tile>
__device__ __forceinline__ void input(const bf16* dout, const int* tokens, const bf16* w, bf16* dx, const int* starts, const int2* tiles,
                                      int most, int k, int m) {
  const Stretch s = stretch_of_block<Tile::M, Tile::N>(starts, tiles, most, k);
  if (s.expert < 0) return;
  const auto row = [&](int r) { return r >= s.count ? -1 : tokens ? tokens[s.first + r] : s.first + r; };
  const Side<Tile::K, Tile::M, Tile::THREADS> a(dout, m, row);
  const Inner<Tile::N, Tile::K, Tile::THREADS> b = {w + i64(s.expert) * m * k, k, s.column, nullptr, 0, m};
  Tile tile;
  tile.multiply(a, b, m, s.count);
  bf16* to = dx + i64(s.first) * k + s.column;
  tile.each_pair(s.count, k - s.column, [&](int r, int c, float low, float high) {
    *reinterpret_cast<unsigned*>(to + i64(r) * k + c) = to_bf16_pair(low, high);
  });
}

// As grouped_weight.
template <class Tile>
__device__ __forceinline__ void weight(const bf16* dout, const int* of_dout, const bf16* x, const int* of_x, float* dw, const int* starts,
                                       int k, int m) {
  let_next_begin();
  wait_for_before();
  const int first = starts[blockIdx.z], count = starts[blockIdx.z + 1] - first;
  const int column = int(blockIdx.x) * Tile::N, row = int(blockIdx.y) * Tile::M;
  const Inner<Tile::M, Tile::K, Tile::THREADS> a = {dout, m, row, of_dout, first, count};
  const Inner<Tile::N, Tile::K, Tile::THREADS> b = {x, k, column, of_x, first, count};
  Tile tile;
  tile.multiply(a, b, count, m - row);
  float* to = dw + (i64(blockIdx.z) * m + row) * k + column;
  tile.each_pair(m - row, k - column, [&](int r, int c, float low, float high) {
    *reinterpret_cast<float2*>(to + i64(r) * k + c) = make_float2(low, high);
  });
}

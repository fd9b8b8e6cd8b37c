// Weights of a matrix [rows, k] in floats of 8 bits: codes of e4m3, a byte each, and for each row the scale that brings its largest to 448.
//
// quantise_f8 makes them of rows in f32, a warp a row: 4 bytes a weight read, twice but from the caches the second time, and one written.
// expand_f8 makes rows of `real` of them for a product of many rows: a byte a weight read, 2 or 4 written. embed_f8 is embed
// (embedding.cu) of a table of them.
#include "few_bits.h"

// A token without a row in the table.
constexpr unsigned IGNORED = 0xffffffffu;

KERNEL quantise_f8(const float* from, byte* codes, float* scales, int rows, int k) {
  const int warp = int((i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32), step = int(gridDim.x * (blockDim.x / 32));
  for (int row = warp; row < rows; row += step) {
    const float* numbers = from + i64(row) * k;
    const float scale = scale_of<E4m3>(numbers, k);
    for (int c = threadIdx.x % 32; c < k; c += 32) codes[i64(row) * k + c] = stored<E4m3>(numbers[c], scale);
    if (threadIdx.x % 32 == 0) scales[row] = scale;
  }
}

// N weights that lie together, `codes` aligned to as many bytes or to 4.
template <int N>
__device__ __forceinline__ void weights(const byte* codes, float scale, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = E4m3::lifted(*codes, 0) * scale;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      const unsigned word = *reinterpret_cast<const unsigned*>(codes + i);
#pragma unroll
      for (int j = 0; j < 4; j++) to[i + j] = E4m3::lifted(word, j) * scale;
    }
  }
}

template <int N>
__device__ __forceinline__ void expand(const byte* codes, const float* scales, real* to, int rows, int k) {
  over_rows<N>(rows, k, [&](int r, int i) {
    float row[N];
    weights(codes + i64(r) * k + i, scales[r], row);
    store(to + i64(r) * k + i, row);
  });
}

KERNEL expand_f8(const byte* codes, const float* scales, real* to, int rows, int k) {
  if (k % WIDTH == 0 && aligned(codes, 4) && aligned(to)) expand<WIDTH>(codes, scales, to, rows, k);
  else expand<1>(codes, scales, to, rows, k);
}

template <int N>
__device__ __forceinline__ void embed_rows(const unsigned* ids, const byte* codes, const float* scales, const real* positions,
                                           real* out, int n, int tokens, int c, int first) {
  over_rows<N>(n, c, [&](int r, int i) {
    float row[N] = {};
    if (ids[r] != IGNORED) weights(codes + i64(ids[r]) * c + i, scales[ids[r]], row);
    if (positions) {
      float position[N];
      load(positions + i64(first + r % tokens) * c + i, position);
#pragma unroll
      for (int j = 0; j < N; j++) row[j] += position[j];
    }
    store(out + i64(r) * c + i, row);
  });
}

KERNEL embed_f8(const unsigned* ids, const byte* codes, const float* scales, const real* positions, real* out, int n, int tokens,
                int c, const int* first) {
  const bool wide = c % WIDTH == 0 && aligned(codes, 4) && aligned(positions) && aligned(out);
  if (wide) embed_rows<WIDTH>(ids, codes, scales, positions, out, n, tokens, c, *first);
  else embed_rows<1>(ids, codes, scales, positions, out, n, tokens, c, *first);
}

EXPORT(quantise_f8)
EXPORT(expand_f8)
EXPORT(embed_f8)

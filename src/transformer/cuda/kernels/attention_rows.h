// What the attention kernels in f32 arithmetic share: rows of any head_dim up to 256 in shared memory as f32, and products
// over them in which a lane has a column of the scores, or a column of the result.
#pragma once
#include "attention_order.h"

// Elements of a row in shared memory: head_dim padded with zeros to CHUNKS * 32, and 4 more, so that 16-byte reads of one
// column by all lanes fall into different banks.
template <int CHUNKS>
constexpr int ROW = CHUNKS * 32 + 4;

// Rows [ROWS] from memory, zeros past `inside` rows and past head_dim.
template <int CHUNKS, int ROWS>
__device__ __forceinline__ void load_rows(float* to, const real* from, i64 stride, int inside, int head_dim) {
  constexpr int PADDED = CHUNKS * 32;
  if (head_dim % WIDTH == 0) {
    for (int i = threadIdx.x; i < ROWS * PADDED / WIDTH; i += blockDim.x) {
      const int row = i / (PADDED / WIDTH), column = i % (PADDED / WIDTH) * WIDTH;
      float v[WIDTH] = {};
      if (row < inside && column < head_dim) load(from + row * stride + column, v);
      store(to + row * ROW<CHUNKS> + column, v);
    }
  } else {
    for (int i = threadIdx.x; i < ROWS * PADDED; i += blockDim.x) {
      const int row = i / PADDED, column = i % PADDED;
      const bool there = row < inside && column < head_dim;
      to[row * ROW<CHUNKS> + column] = there ? to_float(from[row * stride + column]) : 0.0f;
    }
  }
}

// sums[r] = own[r] . column, over head_dim.
template <int CHUNKS, int R>
__device__ __forceinline__ void dots(float (&sums)[R], const float* own, const float* column, int head_dim) {
#pragma unroll
  for (int r = 0; r < R; r++) sums[r] = 0.0f;
  for (int i = 0; i < head_dim; i += 4) {
    const float4 c = *reinterpret_cast<const float4*>(column + i);
#pragma unroll
    for (int r = 0; r < R; r++) {
      const float4 o = *reinterpret_cast<const float4*>(own + r * ROW<CHUNKS> + i);
      sums[r] += o.x * c.x + o.y * c.y + o.z * c.z + o.w * c.w;
    }
  }
}

// sums[r][i] += weights[r] . the 32 rows' column 32 i + lane.
template <int CHUNKS, int R>
__device__ __forceinline__ void weigh(float (&sums)[R][CHUNKS], const float* weights, const float* rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll 2
  for (int j = 0; j < 32; j += 4) {
    float w[R][4];
#pragma unroll
    for (int r = 0; r < R; r++) load(weights + r * 32 + j, w[r]);
#pragma unroll
    for (int e = 0; e < 4; e++) {
#pragma unroll
      for (int i = 0; i < CHUNKS; i++) {
        const float x = rows[(j + e) * ROW<CHUNKS> + 32 * i + lane];
#pragma unroll
        for (int r = 0; r < R; r++) sums[r][i] += w[r][e] * x;
      }
    }
  }
}

// The lane's elements of a row of head_dim, times `factor`.
template <int CHUNKS>
__device__ __forceinline__ void store_row(real* to, const float (&elements)[CHUNKS], float factor, int head_dim) {
#pragma unroll
  for (int i = 0; i < CHUNKS; i++) {
    const int column = 32 * i + threadIdx.x % 32;
    if (column < head_dim) to[column] = from_float<real>(elements[i] * factor);
  }
}

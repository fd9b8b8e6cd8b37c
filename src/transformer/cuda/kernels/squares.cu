// The sum of the squares of several arrays together: the norm that gradients are clipped by.
//
// Reads 4 bytes a number, for two FLOPs in f64: 1.7 TFLOP/s at the 3.35 TB/s of an H100, which has twenty times that, and 0.5 at
// the 1 TB/s of an RTX 4090, which has 1.3. Bound by memory.
//
// Sums are in f64, as on a CPU: of a billion squares in f32 the last would be lost. Which block adds up what the launch alone
// decides, and one block adds up what they come to.
#include "common.h"

struct Stretch {
  const float* x;
  i64 len;
};

// Numbers of a stretch that a block takes at a time.
constexpr int CHUNK = 16384;

// The most threads of a block here; theirs are a power of two.
constexpr int MOST_THREADS = 1024;

// Over a block; every thread calls, once, and gets the same bits.
__device__ __forceinline__ double sum_over_block(double x) {
  __shared__ double parts[MOST_THREADS];
  parts[threadIdx.x] = x;
  __syncthreads();
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
    __syncthreads();
  }
  return parts[0];
}

template <int N>
__device__ __forceinline__ double squares_at(const float* at) {
  float x[N];
  load(at, x);
  double sum = 0.0;
#pragma unroll
  for (int j = 0; j < N; j++) sum += double(x[j]) * double(x[j]);
  return sum;
}

// partial[block] = the sum over the chunks that the block takes; stretch k is chunks first_chunks[k]..first_chunks[k + 1].
KERNEL squares(const Stretch* stretches, const i64* first_chunks, int count, double* partial) {
  constexpr int N = 4;
  const int lane = threadIdx.x % 32;
  double mine = 0.0;
  for (i64 chunk = blockIdx.x; chunk < first_chunks[count]; chunk += gridDim.x) {
    // Every warp counts the stretches that start here or before, as in optimizer.cu.
    int started = 0;
#pragma unroll 4
    for (int k = 0; k < count; k += 32) {
      const bool here = k + lane < count && first_chunks[k + lane] <= chunk;
      started += __popc(__ballot_sync(ALL_LANES, here));
    }
    const Stretch of = stretches[started - 1];
    const i64 start = (chunk - first_chunks[started - 1]) * CHUNK, end = min(start + CHUNK, of.len);
    const bool wide = aligned(of.x);
    i64 i = start + (wide ? threadIdx.x * N : threadIdx.x);
    if (wide) {
#pragma unroll 4
      for (; i + N <= end; i += blockDim.x * N) mine += squares_at<N>(of.x + i);
      i = start + (end - start) / N * N + threadIdx.x;
    }
    for (; i < end; i += blockDim.x) mine += squares_at<1>(of.x + i);
  }
  mine = sum_over_block(mine);
  if (threadIdx.x == 0) partial[blockIdx.x] = mine;
}

// to[0] = the sum of partial [n]. One block.
KERNEL sum_of_squares(const double* partial, float* to, int n) {
  double mine = 0.0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) mine += partial[i];
  mine = sum_over_block(mine);
  if (threadIdx.x == 0) to[0] = float(mine);
}

EXPORT(squares)
EXPORT(sum_of_squares)

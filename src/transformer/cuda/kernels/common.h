// What every kernel starts from: number formats, 16-byte access, reductions over a warp and a block.
//
// A file is compiled once per format: with REAL_F32, `real` is float; with REAL_BF16, it is bf16. Statistics, losses and
// gradients of parameters are f32 in both. All sums are in f32, in an order that the launch alone decides: no float atomics.
//
// On a device this is compiled by NVRTC and needs no header of CUDA's. With CENTIME_HOST it is compiled by g++, against
// host/cuda_shim.h, where the same code runs on a CPU and every access is checked.
#pragma once

#ifdef CENTIME_HOST
#include "cuda_shim.h"
#else
#define EXPORT(kernel)
// A block's dynamic shared memory, as an array of `type`. The same bytes for every name within a kernel.
#define SHARED_BUFFER(type, name) \
  extern __shared__ uint4 dynamic_shared_memory[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared_memory)
#endif

// An entry point: KERNEL norm(const real* x, ...) { ... } and, at the end of the file, EXPORT(norm).
//
// The program compiles one kernel at a time, which it names (driver/compiler.rs): as templates, those that nobody names cost next
// to nothing. Only ci/kernels, which lists them all, compiles whole files.
#ifdef ONE_KERNEL
#define KERNEL template <int> __global__ void
#else
#define KERNEL extern "C" __global__ void
#endif

// A kernel that says both may be launched before its predecessor in the stream has ended (driver/overlap.rs): on Hopper and later,
// where the launch asks for it; else both do nothing. Until `wait_for_before` has returned, nothing may be read that an earlier
// kernel writes, and nothing written: only weights, which no kernel of a step changes, may be asked for.
#if !defined(CENTIME_HOST) && __CUDA_ARCH__ >= 900
constexpr bool BEGINS_EARLY = true;
__device__ __forceinline__ void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ __forceinline__ void wait_for_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
constexpr bool BEGINS_EARLY = false;
__device__ __forceinline__ void let_next_begin() {}
__device__ __forceinline__ void wait_for_before() {}
#endif

typedef long long i64;
typedef unsigned long long u64;

// SplitMix64's finaliser (Steele, Lea & Flood 2014), as in transformer/random.rs.
__device__ __forceinline__ u64 mix(u64 z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

#define INFINITE __int_as_float(0x7f800000)
constexpr unsigned ALL_LANES = 0xffffffffu;

// The upper 16 bits of an f32. Own, not CUDA's: its header is not on every machine that has a driver and NVRTC.
struct bf16 {
  unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __uint_as_float(unsigned(x.bits) << 16); }

// Rounds to the nearest, ties to even, as __float2bfloat16_rn does: subnormals stay, NaN becomes 0x7fff.
__device__ __forceinline__ bf16 to_bf16(float x) {
  bf16 result;
#ifdef CENTIME_HOST
  unsigned bits = __float_as_uint(x);
  bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  result.bits = nan ? 0x7fff : (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#else
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#endif
  return result;
}

// Two elements as they lie in memory: `low` first.
__device__ __forceinline__ unsigned to_bf16_pair(float low, float high) {
#ifdef CENTIME_HOST
  return unsigned(to_bf16(low).bits) | unsigned(to_bf16(high).bits) << 16;
#else
  unsigned pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}
__device__ __forceinline__ float low_of_pair(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of_pair(unsigned pair) { return __uint_as_float(pair & 0xffff0000u); }

template <class T>
__device__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
  return to_bf16(x);
}

#if defined(REAL_BF16)
typedef bf16 real;
#elif defined(REAL_F32)
typedef float real;
#else
#error "compile with REAL_F32 or REAL_BF16"
#endif

// Elements of `real` in 16 bytes, the widest access of a thread.
constexpr int WIDTH = 16 / sizeof(real);

__device__ __forceinline__ bool aligned(const void* p, unsigned bytes = 16) {
  return (reinterpret_cast<u64>(p) & (bytes - 1)) == 0;
}

// N elements from memory to f32 and back, in as few accesses as there can be. `p` is aligned to the smaller of N elements and
// 16 bytes; N is 1, 2 or a multiple of 4.
template <int N>
__device__ __forceinline__ void load(const float* p, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = *p;
  } else if constexpr (N == 2) {
    float2 v = *reinterpret_cast<const float2*>(p);
    to[0] = v.x, to[1] = v.y;
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      float4 v = *reinterpret_cast<const float4*>(p + i);
      to[i] = v.x, to[i + 1] = v.y, to[i + 2] = v.z, to[i + 3] = v.w;
    }
  }
}
__device__ __forceinline__ void unpack(unsigned pair, float* to) {
  to[0] = low_of_pair(pair), to[1] = high_of_pair(pair);
}
template <int N>
__device__ __forceinline__ void load(const bf16* p, float (&to)[N]) {
  if constexpr (N == 1) {
    to[0] = to_float(*p);
  } else if constexpr (N == 2) {
    unpack(*reinterpret_cast<const unsigned*>(p), to);
  } else if constexpr (N == 4) {
    uint2 v = *reinterpret_cast<const uint2*>(p);
    unpack(v.x, to), unpack(v.y, to + 2);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      uint4 v = *reinterpret_cast<const uint4*>(p + i);
      unpack(v.x, to + i), unpack(v.y, to + i + 2), unpack(v.z, to + i + 4), unpack(v.w, to + i + 6);
    }
  }
}
template <int N>
__device__ __forceinline__ void store(float* p, const float (&from)[N]) {
  if constexpr (N == 1) {
    *p = from[0];
  } else if constexpr (N == 2) {
    *reinterpret_cast<float2*>(p) = make_float2(from[0], from[1]);
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 4) {
      *reinterpret_cast<float4*>(p + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
    }
  }
}
template <int N>
__device__ __forceinline__ void store(bf16* p, const float (&from)[N]) {
  if constexpr (N == 1) {
    *p = to_bf16(from[0]);
  } else if constexpr (N == 2) {
    *reinterpret_cast<unsigned*>(p) = to_bf16_pair(from[0], from[1]);
  } else if constexpr (N == 4) {
    *reinterpret_cast<uint2*>(p) = make_uint2(to_bf16_pair(from[0], from[1]), to_bf16_pair(from[2], from[3]));
  } else {
#pragma unroll
    for (int i = 0; i < N; i += 8) {
      *reinterpret_cast<uint4*>(p + i) =
          make_uint4(to_bf16_pair(from[i], from[i + 1]), to_bf16_pair(from[i + 2], from[i + 3]),
                     to_bf16_pair(from[i + 4], from[i + 5]), to_bf16_pair(from[i + 6], from[i + 7]));
    }
  }
}

// Over a warp, all lanes taking part; every lane gets the same bits.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(ALL_LANES, x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
  return x;
}

// Over a block of a multiple of 32 threads, all along x; every thread calls and gets the same bits.
__device__ __forceinline__ float block_sum(float x) {
  __shared__ float parts[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_sum(x);
  __syncthreads();  // an earlier call may still be reading
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  return warp_sum(lane < blockDim.x / 32 ? parts[lane] : 0.0f);
}
__device__ __forceinline__ float block_max(float x) {
  __shared__ float parts[32];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  x = warp_max(x);
  __syncthreads();
  if (lane == 0) parts[warp] = x;
  __syncthreads();
  return warp_max(lane < blockDim.x / 32 ? parts[lane] : -INFINITE);
}

// Up to WIDTH elements that lie together: `wide`, all of them, aligned, or the first `count`.
struct Part {
  int count;
  bool wide;
};
constexpr Part WHOLE_PART = {WIDTH, true};

template <class T>
__device__ __forceinline__ void load_part(const T* p, float (&to)[WIDTH], Part part) {
  if (part.wide) return load(p, to);
#pragma unroll
  for (int j = 0; j < WIDTH; j++) to[j] = j < part.count ? to_float(p[j]) : 0.0f;
}
template <class T>
__device__ __forceinline__ void store_part(T* p, const float (&from)[WIDTH], Part part) {
  if (part.wide) return store(p, from);
#pragma unroll
  for (int j = 0; j < WIDTH; j++) {
    if (j < part.count) p[j] = from_float<T>(from[j]);
  }
}

// Calls f(i, part) over [0, len), i a multiple of WIDTH; `wide` tells that the arrays are aligned. The grid strides. (Lambdas
// with `auto` would say it shorter; NVRTC 12 takes none without an option.)
template <class F>
__device__ __forceinline__ void over(i64 len, bool wide, F f) {
  const i64 thread = i64(blockIdx.x) * blockDim.x + threadIdx.x, step = i64(gridDim.x) * blockDim.x;
  const i64 whole = wide ? len / WIDTH : 0;
  for (i64 v = thread; v < whole; v += step) f(v * WIDTH, WHOLE_PART);
  for (i64 v = whole + thread; v * WIDTH < len; v += step) {
    const i64 left = len - v * WIDTH;
    f(v * WIDTH, Part{left < WIDTH ? int(left) : WIDTH, false});
  }
}

// Vectors of a piece of a row that a warp takes at once: four a lane.
constexpr unsigned PIECE = 128;

// Calls f(row, column) for every N-th column of `n` rows of `c` elements, c a multiple of N. A warp takes a piece of a row at
// a time, so that a few long rows are spread over the device as well as many short ones.
template <int N, class F>
__device__ __forceinline__ void over_rows(int n, int c, F f) {
  const unsigned vectors = unsigned(c) / N, pieces = (vectors + PIECE - 1) / PIECE;
  // Pieces are of 2 KiB, but for the last of a row: that many fit into no memory.
  const unsigned all = unsigned(n) * pieces, step = gridDim.x * (blockDim.x / 32);
  for (unsigned item = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; item < all; item += step) {
    const unsigned row = item / pieces, first = item % pieces * PIECE;
    const unsigned end = min(first + PIECE, vectors);
#pragma unroll 4
    for (unsigned v = first + threadIdx.x % 32; v < end; v += 32) f(int(row), int(v * N));
  }
}

// Sums of 32 columns of a matrix of f32 of `rows` rows, row r beginning at `start(r)`, and `width` columns, by a block of
// 1024 threads: a warp takes every 32nd row, a lane a column. Thread i < 32 gets the sum of column `first + i`; the order of
// the sum is always the same.
template <class Start>
__device__ __forceinline__ float sum_of_columns(const float* matrix, int rows, i64 width, i64 first, Start start) {
  __shared__ float parts[32][33];
  const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const i64 column = first + lane;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 4
    for (int r = int(warp); r < rows; r += 32) sum += matrix[start(r) + column];
  }
  parts[warp][lane] = sum;
  __syncthreads();
  // Turned round: each warp adds up a column, and the sums go back through the first row.
  sum = warp_sum(parts[lane][warp]);
  __syncthreads();
  if (lane == 0) parts[0][warp] = sum;
  __syncthreads();
  return parts[0][lane];
}

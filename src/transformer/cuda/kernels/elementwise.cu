// Element by element over flat arrays of any length: fill, add, change of format.
//
// Bytes per number: fill writes one real; add reads two and writes one (6 with bf16, 12 with f32); narrow and widen read one
// format and write the other (6 with bf16). At most one FLOP a number: bound by memory.
//
// A thread takes 16 bytes of the widest operand at a time, the grid strides over the array; what is left over, or not
// aligned, goes one by one.
#include "common.h"

// Runs f(first, load-store width) over [0, len): vectors of N numbers while `wide`, then single ones.
template <int N, class F>
__device__ __forceinline__ void over(i64 len, bool wide, F f) {
  const i64 thread = i64(blockIdx.x) * blockDim.x + threadIdx.x, step = i64(gridDim.x) * blockDim.x;
  const i64 vectors = wide ? len / N : 0;
  for (i64 i = thread; i < vectors; i += step) f.template at<N>(i * N);
  for (i64 i = vectors * N + thread; i < len; i += step) f.template at<1>(i);
}

template <class T>
struct Fill {
  T* to;
  float value;
  template <int N>
  __device__ __forceinline__ void at(i64 i) const {
    float v[N];
#pragma unroll
    for (int j = 0; j < N; j++) v[j] = value;
    store(to + i, v);
  }
};

struct Add {
  const real* from;
  real* to;
  template <int N>
  __device__ __forceinline__ void at(i64 i) const {
    float a[N], b[N];
    load(from + i, a);
    load(to + i, b);
#pragma unroll
    for (int j = 0; j < N; j++) b[j] += a[j];
    store(to + i, b);
  }
};

template <class From, class To>
struct Change {
  const From* from;
  To* to;
  template <int N>
  __device__ __forceinline__ void at(i64 i) const {
    float v[N];
    load(from + i, v);
    store(to + i, v);
  }
};

KERNEL fill(real* to, float value, i64 len) { over<WIDTH>(len, aligned(to), Fill<real>{to, value}); }

KERNEL fill_f32(float* to, float value, i64 len) { over<4>(len, aligned(to), Fill<float>{to, value}); }

KERNEL add(const real* from, real* to, i64 len) {
  over<WIDTH>(len, aligned(from) && aligned(to), Add{from, to});
}

KERNEL narrow(const float* from, real* to, i64 len) {
  over<WIDTH>(len, aligned(from) && aligned(to), Change<float, real>{from, to});
}

KERNEL widen(const real* from, float* to, i64 len) {
  over<WIDTH>(len, aligned(from) && aligned(to), Change<real, float>{from, to});
}

EXPORT(fill)
EXPORT(fill_f32)
EXPORT(add)
EXPORT(narrow)
EXPORT(widen)

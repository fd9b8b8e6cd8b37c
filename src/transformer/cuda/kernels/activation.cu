// The functions between the two products of a feed-forward layer, and their gradients in place.
//
// Bytes per output number: forward reads one and writes one (4 with bf16, 8 with f32; gated reads two: 6 and 12); backward
// reads pre and dout and writes pre (6 and 12; gated 10 and 20). About 10 to 30 FLOPs an element: bound by memory.
#include "curves.h"

template <int KIND>
__device__ __forceinline__ void forward(const real* pre, real* out, i64 len) {
  over(len, aligned(pre) && aligned(out), [&](i64 i, Part part) {
    float x[WIDTH];
    load_part(pre + i, x, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) x[j] = curve<KIND>(x[j]).value;
    store_part(out + i, x, part);
  });
}

template <int KIND>
__device__ __forceinline__ void backward(real* pre, const real* dout, i64 len) {
  over(len, aligned(pre) && aligned(dout), [&](i64 i, Part part) {
    float x[WIDTH], d[WIDTH];
    load_part(pre + i, x, part);
    load_part(dout + i, d, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) x[j] = d[j] * curve<KIND>(x[j]).slope;
    store_part(pre + i, x, part);
  });
}

// pre [n, 2 f]: gate, then its other half; out [n, f] = curve(gate) other_half(up).
template <int KIND, int N>
__device__ __forceinline__ void gated(const real* pre, real* out, int n, int f) {
  over_rows<N>(n, f, [&](int r, int i) {
    const real* row = pre + 2 * i64(r) * f + i;
    float gate[N], up[N];
    load(row, gate);
    load(row + f, up);
#pragma unroll
    for (int j = 0; j < N; j++) gate[j] = curve<KIND>(gate[j]).value * other_half<KIND>(up[j]).value;
    store(out + i64(r) * f + i, gate);
  });
}

template <int KIND, int N>
__device__ __forceinline__ void gated_backward(real* pre, const real* dout, int n, int f) {
  over_rows<N>(n, f, [&](int r, int i) {
    real* row = pre + 2 * i64(r) * f + i;
    float gate[N], up[N], d[N];
    load(row, gate);
    load(row + f, up);
    load(dout + i64(r) * f + i, d);
#pragma unroll
    for (int j = 0; j < N; j++) {
      const Curve c = curve<KIND>(gate[j]), other = other_half<KIND>(up[j]);
      gate[j] = d[j] * c.slope * other.value;
      up[j] = d[j] * c.value * other.slope;
    }
    store(row, gate);
    store(row + f, up);
  });
}

KERNEL activation(int kind, const real* pre, real* out, int n, int f) {
  const i64 len = i64(n) * f;
  const bool wide = f % WIDTH == 0 && aligned(pre) && aligned(out);
  if (kind == GELU_TANH) forward<GELU_TANH>(pre, out, len);
  else if (kind == GELU_ERF) forward<GELU_ERF>(pre, out, len);
  else if (kind == RELU) forward<RELU>(pre, out, len);
  else if (kind == SWIGLU && wide) gated<SWIGLU, WIDTH>(pre, out, n, f);
  else if (kind == SWIGLU) gated<SWIGLU, 1>(pre, out, n, f);
  else if (kind == GEGLU && wide) gated<GEGLU, WIDTH>(pre, out, n, f);
  else if (kind == GEGLU) gated<GEGLU, 1>(pre, out, n, f);
  else if (wide) gated<CLAMPED_SWIGLU, WIDTH>(pre, out, n, f);
  else gated<CLAMPED_SWIGLU, 1>(pre, out, n, f);
}

KERNEL activation_backward(int kind, real* pre, const real* dout, int n, int f) {
  const i64 len = i64(n) * f;
  const bool wide = f % WIDTH == 0 && aligned(pre) && aligned(dout);
  if (kind == GELU_TANH) backward<GELU_TANH>(pre, dout, len);
  else if (kind == GELU_ERF) backward<GELU_ERF>(pre, dout, len);
  else if (kind == RELU) backward<RELU>(pre, dout, len);
  else if (kind == SWIGLU && wide) gated_backward<SWIGLU, WIDTH>(pre, dout, n, f);
  else if (kind == SWIGLU) gated_backward<SWIGLU, 1>(pre, dout, n, f);
  else if (kind == GEGLU && wide) gated_backward<GEGLU, WIDTH>(pre, dout, n, f);
  else if (kind == GEGLU) gated_backward<GEGLU, 1>(pre, dout, n, f);
  else if (wide) gated_backward<CLAMPED_SWIGLU, WIDTH>(pre, dout, n, f);
  else gated_backward<CLAMPED_SWIGLU, 1>(pre, dout, n, f);
}

EXPORT(activation)
EXPORT(activation_backward)

// The first product of a feed-forward layer for a few rows (matvec.h), after a norm or without, and its activation.
#include "curves.h"
#include "matvec.h"

// pre [n, m] = norm(x) w^T + bias, out = f(pre): [n, m], or [n, m / 2] where it is gated, whose pairs are a gate and its other half.
struct Activate {
  const real* bias;
  real *pre, *out;
  int m, kind;

  __device__ __forceinline__ float keep(int row, int column, float sum) const {
    if (bias) sum += to_float(bias[column]);
    pre[i64(row) * m + column] = from_float<real>(sum);
    return sum;
  }
  __device__ __forceinline__ void operator()(int row, RowPair columns, float low, float high) const {
    if (is_gated(kind)) {
      if (columns.high >= m) return;
      const float gate = keep(row, columns.low, low), up = keep(row, columns.high, high);
      out[i64(row) * (m / 2) + columns.low] = from_float<real>(gated_value(kind, gate, up));
      return;
    }
    if (columns.low < m) out[i64(row) * m + columns.low] = from_float<real>(value_of(kind, keep(row, columns.low, low)));
    if (columns.high < m)
      out[i64(row) * m + columns.high] = from_float<real>(value_of(kind, keep(row, columns.high, high)));
  }
};

// Grid and threads as of matvec_linear; `apart` is m / 2 where it is gated.
KERNEL __launch_bounds__(256, 2) matvec_up(const real* x, const real* w, int n, int k, int m, int apart, const real* gain,
                                           const real* shift, float* stats, float eps, float offset, int rms,
                                           int staged, const real* bias, real* pre, real* out, int kind) {
  matvec(Matvec<Whole>{x, w, nullptr, n, k, m, apart, apart, gain, shift, stats, eps, offset, rms != 0, staged != 0},
         Activate{bias, pre, out, m, kind});
}

// The same of weights of 8 bits, scales [m].
KERNEL __launch_bounds__(256, 2) matvec_up_f8(const real* x, const byte* w, const float* scales, int n, int k, int m,
                                              int apart, const real* gain, const real* shift, float* stats, float eps, float offset,
                                              int rms, int staged, const real* bias, real* pre, real* out, int kind) {
  matvec(Matvec<Floats8>{x, w, scales, n, k, m, apart, apart, gain, shift, stats, eps, offset, rms != 0, staged != 0},
         Activate{bias, pre, out, m, kind});
}

EXPORT(matvec_up)
EXPORT(matvec_up_f8)

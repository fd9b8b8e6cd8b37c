// A linear layer of a few rows (matvec.h), after a norm or without, with bias and residual: what ends a branch, and the head.
#include "matvec.h"

// out [n, m] = norm(x) w^T + bias + plus, the last two where they are; `plus` and `out` are f32 where `wide`, else real.
struct Store {
  const real* bias;
  const void* plus;
  void* out;
  int m;
  bool wide;

  __device__ __forceinline__ void one(int row, int column, float sum) const {
    if (column >= m) return;
    const i64 at = i64(row) * m + column;
    if (bias) sum += to_float(bias[column]);
    if (wide) {
      if (plus) sum += static_cast<const float*>(plus)[at];
      static_cast<float*>(out)[at] = sum;
    } else {
      if (plus) sum += to_float(static_cast<const real*>(plus)[at]);
      static_cast<real*>(out)[at] = from_float<real>(sum);
    }
  }
  __device__ __forceinline__ void operator()(int row, RowPair columns, float low, float high) const {
    one(row, columns.low, low);
    one(row, columns.high, high);
  }
};

// Grid: any number of blocks up to one a tile of 16 rows of w; 256 threads.
KERNEL __launch_bounds__(256, 2) matvec_linear(const real* x, const real* w, int n, int k, int m, int apart, const real* gain,
                                               const real* shift, float* stats, float eps, float offset, int rms,
                                               int staged, const real* bias, const void* plus, void* out, int wide) {
  matvec(Matvec<Whole>{x, w, nullptr, n, k, m, apart, apart, gain, shift, stats, eps, offset, rms != 0, staged != 0},
         Store{bias, plus, out, m, wide != 0});
}

// The same of weights of 8 bits, scales [m].
KERNEL __launch_bounds__(256, 2) matvec_linear_f8(const real* x, const byte* w, const float* scales, int n, int k, int m,
                                                  int apart, const real* gain, const real* shift, float* stats, float eps, float offset,
                                                  int rms, int staged, const real* bias, const void* plus, void* out, int wide) {
  matvec(Matvec<Floats8>{x, w, scales, n, k, m, apart, apart, gain, shift, stats, eps, offset, rms != 0, staged != 0},
         Store{bias, plus, out, m, wide != 0});
}

EXPORT(matvec_linear)
EXPORT(matvec_linear_f8)

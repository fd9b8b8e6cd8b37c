// Queries, keys and values of a few rows (matvec.h), after a norm or without: rotated by their positions where the family has
// rotary ones, keys and values put into the cache.
#include "matvec.h"
#include "rotation.h"

// Row r of x is token r % tokens of sequence r / tokens, at position *first + r % tokens. qkv [n, (H + 2 KV) D]; keys and
// values [B, KV, capacity, D]: past the capacity, a row takes the place of the oldest. With frequencies [R / 2], the first R
// elements of a head are rotated, pairs being the two that a rotation mixes, and multiplied by `longer`.
struct Append {
  const real* bias;
  real *qkv, *keys, *values;
  const float* frequencies;
  const int* first;
  float longer;
  int tokens, heads, kv_heads, head_dim, half, capacity, m;

  __device__ __forceinline__ float biased(int column, float sum) const {
    return bias && column < m ? sum + to_float(bias[column]) : sum;
  }
  __device__ __forceinline__ void put(int row, int column, int position, float element) const {
    if (column >= m) return;
    const real rounded = from_float<real>(element);
    qkv[i64(row) * m + column] = rounded;
    const int head = column / head_dim - heads, inside = column % head_dim;
    // What another row would overwrite at once is not written.
    if (head < 0 || row % tokens + capacity < tokens) return;
    const i64 place = (i64(row / tokens) * kv_heads + head % kv_heads) * capacity + position % capacity;
    (head < kv_heads ? keys : values)[place * head_dim + inside] = rounded;
  }
  __device__ __forceinline__ void operator()(int row, RowPair columns, float low, float high) const {
    const int position = *first + row % tokens;
    low = biased(columns.low, low), high = biased(columns.high, high);
    if (frequencies && columns.low < (heads + kv_heads) * head_dim && columns.low % head_dim < half) {
      const Turn by = turn(float(position), frequencies[columns.low % head_dim], longer);
      const float x = low;
      low = x * by.cosine - high * by.sine;
      high = high * by.cosine + x * by.sine;
    }
    put(row, columns.low, position, low);
    put(row, columns.high, position, high);
  }
};

// Grid and threads as of matvec_linear; m = (H + 2 KV) D, and with frequencies `apart` is D / 2 and `half` R / 2.
KERNEL __launch_bounds__(256, 2) matvec_qkv(const real* x, const real* w, int n, int k, int m, int apart, const real* gain,
                                            const real* shift, float* stats, float eps, float offset, int rms,
                                            int staged, const real* bias, real* qkv, real* keys, real* values,
                                            const float* frequencies, float longer, const int* first, int tokens, int heads,
                                            int kv_heads, int head_dim, int half, int capacity) {
  matvec(Matvec<Whole>{x, w, nullptr, n, k, m, apart, frequencies ? half : apart, gain, shift, stats, eps, offset, rms != 0,
                       staged != 0},
         Append{bias, qkv, keys, values, frequencies, first, longer, tokens, heads, kv_heads, head_dim, half, capacity, m});
}

// The same of weights of 8 bits, scales [m].
KERNEL __launch_bounds__(256, 2) matvec_qkv_f8(const real* x, const byte* w, const float* scales, int n, int k, int m,
                                               int apart, const real* gain, const real* shift, float* stats, float eps, float offset,
                                               int rms, int staged, const real* bias, real* qkv, real* keys, real* values,
                                               const float* frequencies, float longer, const int* first, int tokens, int heads,
                                               int kv_heads, int head_dim, int half, int capacity) {
  matvec(Matvec<Floats8>{x, w, scales, n, k, m, apart, frequencies ? half : apart, gain, shift, stats, eps, offset, rms != 0,
                       staged != 0},
         Append{bias, qkv, keys, values, frequencies, first, longer, tokens, heads, kv_heads, head_dim, half, capacity, m});
}

EXPORT(matvec_qkv)
EXPORT(matvec_qkv_f8)

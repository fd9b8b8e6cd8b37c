// A logit of each head that stands beside its scores in the softmax and weighs nothing in the result: what attention has computed
// without it shrinks by what the denominator grows.
//
// sinks has a warp for each row and head: out [N, H * D] is read and written once, bound by memory. sinks_backward adds up
// -exp(sink - lse) sum of dO O over the rows, out and dout being read once: a block has a share of the rows of one head, in
// their order, and `sum_partials` of columns.cu adds up the blocks', in theirs.
#include "common.h"

// log(exp(a) + exp(b))
__device__ __forceinline__ float log_of_both(float a, float b) { return fmaxf(a, b) + log1pf(expf(-fabsf(a - b))); }

// Calls f(i, part) for the elements of a row of `head_dim`, as the lanes of a warp share them.
template <class F>
__device__ __forceinline__ void over_head(int head_dim, bool wide, F f) {
  const int lane = threadIdx.x % 32;
  if (wide) {
    for (int i = lane * WIDTH; i < head_dim; i += 32 * WIDTH) f(i, WHOLE_PART);
  } else {
    for (int i = lane; i < head_dim; i += 32) f(i, Part{1, false});
  }
}

// sinks [H], lse [N, H]; a warp a row and head.
KERNEL sinks(const real* logits, real* out, float* lse, int n, int heads, int head_dim) {
  const i64 item = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32;
  if (item >= i64(n) * heads) return;
  const float own = lse[item], both = log_of_both(own, to_float(logits[item % heads])), factor = expf(own - both);
  real* row = out + item * head_dim;
  over_head(head_dim, head_dim % WIDTH == 0 && aligned(out), [&](int i, Part part) {
    float x[WIDTH];
    load_part(row + i, x, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) x[j] *= factor;
    store_part(row + i, x, part);
  });
  __syncwarp();
  if (threadIdx.x % 32 == 0) lse[item] = both;
}

// partial [gridDim.y, H]: row y holds the sums over rows [y * rows_per_block, (y + 1) * rows_per_block).
KERNEL sinks_backward(const real* logits, const real* out, const real* dout, const float* lse, float* partial, int n,
                      int heads, int head_dim, int rows_per_block) {
  const int head = blockIdx.x, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const i64 begin = i64(blockIdx.y) * rows_per_block, end = min(begin + rows_per_block, i64(n));
  const bool wide = head_dim % WIDTH == 0 && aligned(out) && aligned(dout);
  const float sink = to_float(logits[head]);
  float sum = 0.0f;
  for (i64 r = begin + warp; r < end; r += warps) {
    const i64 item = r * heads + head;
    const real *a = out + item * head_dim, *b = dout + item * head_dim;
    float along = 0.0f;
    over_head(head_dim, wide, [&](int i, Part part) {
      float x[WIDTH], y[WIDTH];
      load_part(a + i, x, part);
      load_part(b + i, y, part);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) along += x[j] * y[j];
    });
    sum -= expf(sink - lse[item]) * along;
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) partial[i64(blockIdx.y) * heads + head] = sum;
}

EXPORT(sinks)
EXPORT(sinks_backward)

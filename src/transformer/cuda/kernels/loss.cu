// Losses and their gradients.
//
// softmax_loss over logits [rows, v], rows `stride` apart: reads each logit twice and writes its gradient in place: 6 bytes a
// logit with bf16, 12 with f32; without gradients 2 and 4. One exponential a pass (with a cap a hyperbolic tangent too):
// bound by memory. The second reading is from the level 2 cache: rows of bf16 are 100 kB at 50,257 words, and two blocks a
// multiprocessor keep 26 MB of an H100's 50 in use.
// squared_error: reads x and target, writes dx: 6 bytes an element with bf16, 12 with f32.
//
// Sums over rows and blocks are taken by `sum`, one block, in a fixed order.
#include "common.h"

constexpr unsigned IGNORED = 0xffffffffu;

// Calls f(i, part) over a row that starts anywhere: what is before the first 16-byte boundary, vectors, what is left.
template <class F>
__device__ __forceinline__ void over_row(real* row, int v, F f) {
  const int off = int(reinterpret_cast<u64>(row) % 16 / sizeof(real));
  const int head = min(off ? WIDTH - off : 0, v), vectors = (v - head) / WIDTH, done = head + vectors * WIDTH;
  if (head > 0 && threadIdx.x == 0) f(0, Part{head, false});
#pragma unroll 2
  for (int i = threadIdx.x; i < vectors; i += blockDim.x) f(head + i * WIDTH, WHOLE_PART);
  if (done < v && threadIdx.x == 1) f(done, Part{v - done, false});
}

// losses[r] = log(sum exp(logits[r])) - logits[r][targets[r]]; with `gradients`, logits[r] becomes (softmax - onehot) * scale.
// Rows of ignored targets: 0 and zeros. A block a row.
//
// The largest and the sum are found in one pass (Milakov & Gimelshein 2018): a thread's sum is in units of exp of its largest
// so far, and is brought to the new unit when that grows.
//
// CAPPED: what the softmax is of is cap tanh(logit / cap), made anew in each pass, and the gradient goes on to the logit.
template <bool CAPPED>
__device__ __forceinline__ void losses_of_rows(real* logits, const unsigned* targets, float* losses, int rows, int v, int stride,
                                               float scale, bool gradients, float cap) {
  const float inverse = CAPPED ? 1.0f / cap : 0.0f;
  const auto capped = [&](float logit) { return CAPPED ? cap * tanhf(logit * inverse) : logit; };
  for (int r = blockIdx.x; r < rows; r += gridDim.x) {
    real* row = logits + i64(r) * stride;
    const unsigned target = targets[r];
    if (target == IGNORED) {
      if (threadIdx.x == 0) losses[r] = 0.0f;
      if (gradients) {
        over_row(row, v, [&](int i, Part part) {
          const float zeros[WIDTH] = {};
          store_part(row + i, zeros, part);
        });
      }
      continue;
    }
    const float of_target = capped(to_float(row[target]));
    float largest = -INFINITE, sum = 0.0f;
    over_row(row, v, [&](int i, Part part) {
      float x[WIDTH], top = largest;
      load_part(row + i, x, part);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        if (j >= part.count) continue;
        x[j] = capped(x[j]);
        top = fmaxf(top, x[j]);
      }
      // Both are -infinity only where every element so far was: they add nothing.
      if (top == -INFINITE) return;
      sum *= __expf(largest - top);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        if (j < part.count) sum += __expf(x[j] - top);
      }
      largest = top;
    });
    const float top = block_max(largest);
    const float total = block_sum(largest == -INFINITE ? 0.0f : sum * __expf(largest - top));
    if (threadIdx.x == 0) losses[r] = top + logf(total) - of_target;
    if (!gradients) continue;
    // All threads have read the target's logit: they have met in the sums above.
    const float factor = scale / total;
    over_row(row, v, [&](int i, Part part) {
      float x[WIDTH];
      load_part(row + i, x, part);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) {
        const float logit = capped(x[j]), share = logit * inverse;
        x[j] = __expf(logit - top) * factor - (unsigned(i + j) == target ? scale : 0.0f);
        if (CAPPED) x[j] *= 1.0f - share * share;
      }
      store_part(row + i, x, part);
    });
  }
}

// `cap`: 0 for none.
KERNEL __launch_bounds__(512, 2) softmax_loss(real* logits, const unsigned* targets, float* losses, int rows, int v,
                                            int stride, const float* scale_of, int gradients, float cap) {
  if (cap > 0.0f) losses_of_rows<true>(logits, targets, losses, rows, v, stride, *scale_of, gradients != 0, cap);
  else losses_of_rows<false>(logits, targets, losses, rows, v, stride, *scale_of, gradients != 0, cap);
}

// scale[0] = 1 / how many of targets [n] take part in the loss, of which 1 at least. One block of 1024 threads. Exact: an f32 counts
// to 2^24, and rows of logits are fewer.
KERNEL mean_scale(const unsigned* targets, float* scale, int n) {
  float mine = 0.0f;
#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += blockDim.x) mine += targets[i] == IGNORED ? 0.0f : 1.0f;
  mine = block_sum(mine);
  if (threadIdx.x == 0) scale[0] = 1.0f / fmaxf(mine, 1.0f);
}

// to[0] = scale * the sum of from [n], the scale being read where `scale_of` is not null. One block of 1024 threads.
KERNEL sum(const float* from, float* to, int n, const float* scale_of, float scale) {
  float mine = 0.0f;
#pragma unroll 4
  for (int i = threadIdx.x; i < n; i += blockDim.x) mine += from[i];
  mine = block_sum(mine);
  if (threadIdx.x == 0) to[0] = (scale_of ? *scale_of : scale) * mine;
}

// partial[block] = the block's sum of (x - target)^2; dx = 2 scale (x - target), where wanted.
KERNEL squared_error(const real* x, const real* target, real* dx, float* partial, i64 len, float scale) {
  float mine = 0.0f;
  over(len, aligned(x) && aligned(target) && aligned(dx), [&](i64 i, Part part) {
    float a[WIDTH], b[WIDTH];
    load_part(x + i, a, part);
    load_part(target + i, b, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      a[j] -= b[j];
      mine += a[j] * a[j];
      a[j] *= 2.0f * scale;
    }
    if (dx) store_part(dx + i, a, part);
  });
  mine = block_sum(mine);
  if (threadIdx.x == 0) partial[blockIdx.x] = mine;
}

EXPORT(softmax_loss)
EXPORT(mean_scale)
EXPORT(sum)
EXPORT(squared_error)

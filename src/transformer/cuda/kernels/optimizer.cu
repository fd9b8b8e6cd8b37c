// One optimizer step over all parameters in one launch.
//
// Bytes a parameter, AdamW with bf16 shadows: reads parameter, gradient and both moments (16), writes parameter, moments and
// shadow (14): 30. About 15 FLOPs: bound by memory. That gradients are clipped costs no byte: what they are multiplied by follows
// from one number, which every thread reads (squares.cu).
//
// Sources: Adam and Adamax, Kingma & Ba 2015 (algorithms 1 and 2); AdamW, Loshchilov & Hutter 2019; momentum as in PyTorch (no
// dampening). The corrections are worked into `rate`, `root` and `eps` by the caller, in f64.
#include "common.h"

// A parameter and what belongs to it; `shadow` is its rounded copy, which products read. Null where there is none.
struct Item {
  float* parameter;
  real* shadow;
  const float* gradient;
  float *first, *second;
  i64 len;
};

// In the order of OptimizerKind.
enum { SGD, ADAM, ADAMAX, ADAMW };

struct Step {
  float beta1, beta2;
  // Factor on the first moment over the root: learning rate / (1 - beta1^t); the learning rate itself for SGD.
  float rate;
  // Factor on the root of the second moment: 1 / sqrt(1 - beta2^t).
  float root;
  float eps;
  // 1 - learning rate * weight decay.
  float decay;
};

// What gradients are multiplied by, as Clipping::factor has it: 1 where nothing is clipped.
__device__ __forceinline__ float factor_of(const float* squares, float largest) {
  if (!squares) return 1.0f;
  const float factor = largest / (sqrtf(*squares) + 1e-6f);
  return factor < 1.0f ? factor : 1.0f;
}

// p, m and v after the step; SGD keeps its momentum, beta1, in m.
template <int KIND>
__device__ __forceinline__ void step_of(const Step& s, float g, float& p, float& m, float& v) {
  if constexpr (KIND == SGD) {
    m = s.beta1 * m + g;
    p -= s.rate * m;
  } else if constexpr (KIND == ADAMAX) {
    m = s.beta1 * m + (1.0f - s.beta1) * g;
    v = fmaxf(s.beta2 * v, fabsf(g) + s.eps);
    p -= s.rate * m / v;
  } else {
    m = s.beta1 * m + (1.0f - s.beta1) * g;
    v = s.beta2 * v + (1.0f - s.beta2) * g * g;
    p = p * s.decay - s.rate * m / (sqrtf(v) * s.root + s.eps);
  }
}

// Elements of an item that a block takes.
constexpr int CHUNK = 4096;

template <int KIND, int N>
__device__ __forceinline__ void update_at(const Item& item, const Step& s, float factor, i64 i) {
  float p[N], g[N], m[N] = {}, v[N] = {};
  load(item.parameter + i, p);
  load(item.gradient + i, g);
  if (item.first) load(item.first + i, m);
  if (item.second) load(item.second + i, v);
#pragma unroll
  for (int j = 0; j < N; j++) step_of<KIND>(s, g[j] * factor, p[j], m[j], v[j]);
  store(item.parameter + i, p);
  if (item.shadow) store(item.shadow + i, p);
  if (item.first) store(item.first + i, m);
  if (item.second) store(item.second + i, v);
}

template <int KIND>
__device__ __forceinline__ void update_chunk(const Item& item, const Step& s, float factor, i64 start) {
  constexpr int N = 4;
  const i64 end = min(start + CHUNK, item.len);
  const bool wide = aligned(item.parameter) && aligned(item.gradient) && aligned(item.first) && aligned(item.second) &&
                    aligned(item.shadow, N * sizeof(real));
  i64 i = start + (wide ? threadIdx.x * N : threadIdx.x);
  if (wide) {
    for (; i + N <= end; i += blockDim.x * N) update_at<KIND, N>(item, s, factor, i);
    i = start + (end - start) / N * N + threadIdx.x;
  }
  for (; i < end; i += blockDim.x) update_at<KIND, 1>(item, s, factor, i);
}

// Item k takes blocks first_blocks[k]..first_blocks[k + 1], CHUNK elements each.
KERNEL update(const Item* items, const i64* first_blocks, int count, int kind, const Step* step, const float* squares,
              float largest) {
  // Every warp counts the items that start here or before, 32 at a time: loads that do not wait for one another, as a
  // search's would.
  const int lane = threadIdx.x % 32;
  int started = 0;
#pragma unroll 4
  for (int k = 0; k < count; k += 32) {
    const bool here = k + lane < count && first_blocks[k + lane] <= i64(blockIdx.x);
    started += __popc(__ballot_sync(ALL_LANES, here));
  }
  const int mine = started - 1;
  const Item item = items[mine];
  const Step s = *step;
  const float factor = factor_of(squares, largest);
  const i64 start = (blockIdx.x - first_blocks[mine]) * CHUNK;
  if (kind == SGD) update_chunk<SGD>(item, s, factor, start);
  else if (kind == ADAMAX) update_chunk<ADAMAX>(item, s, factor, start);
  else update_chunk<ADAMW>(item, s, factor, start);
}

EXPORT(update)

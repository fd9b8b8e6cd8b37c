// What attention's kernels are told, and what single families have beside the causal mask (`Scores` of transformer/operands.rs): keys
// of a cache before the queries, windows, caps of scores, ALiBi. Kernels whose names end in `_shaped` or `_window` know of it; the
// others, which most models take, carry none of it but the scale.
#pragma once
#include "attention_order.h"

// Of the forward pass. Queries are those of qkv [N, (H + 2 KV) * D]. Keys and values, of `before` + `tokens` positions, the queries'
// own the last of them, lie at `keys` and `values`: rows `key_stride` elements apart, groups `group_stride`, sequences
// `sequence_stride`. A query sees `window` keys at most, its own the last of them. `cap` is 0 for none. What knows of no window reads
// its keys from qkv.
#define FORWARD_PARAMETERS(T)                                                                                              \
  const T *qkv, T *out, float *lse, int tokens, int heads, int kv_heads, int head_dim, int causal, float scale,            \
      int window, float cap, int alibi, int before, const T *keys, const T *values, int key_stride, i64 group_stride,      \
      i64 sequence_stride
#define FORWARD_ARGUMENTS(T)                                                                                               \
  Forward<T>{qkv,    out, lse,   tokens, heads, kv_heads, head_dim,   causal,       scale,                                 \
             window, cap, alibi, before, keys,  values,   key_stride, group_stride, sequence_stride}

template <class T>
struct Forward {
  const T* qkv;
  T* out;
  float* lse;
  int tokens, heads, kv_heads, head_dim, causal;
  float scale;
  int window;
  float cap;
  int alibi, before;
  const T *keys, *values;
  int key_stride;
  i64 group_stride, sequence_stride;

  // Of elements of a group in the block's sequence, in keys as in values.
  __device__ __forceinline__ i64 group(int group) const { return blockIdx.z * sequence_stride + group * group_stride; }
};

// Of the gradients, whose keys are those of qkv.
#define BACKWARD_PARAMETERS(T)                                                                                             \
  const T *qkv, const T *dout, const float *lse, const float *delta, T *dqkv, int tokens, int heads, int kv_heads,         \
      int head_dim, int causal, float scale, int window, float cap, int alibi
#define BACKWARD_ARGUMENTS(T)                                                                                              \
  Backward<T> { qkv, dout, lse, delta, dqkv, tokens, heads, kv_heads, head_dim, causal, scale, window, cap, alibi }

template <class T>
struct Backward {
  const T *qkv, *dout;
  const float *lse, *delta;
  T* dqkv;
  int tokens, heads, kv_heads, head_dim, causal;
  float scale;
  int window;
  float cap;
  int alibi;
};

// Which keys queries see, by their place among the queries. `window` is no more than all keys are.
struct Sight {
  int keys, before, causal, window;

  // From the first key that a query sees ...
  __device__ __forceinline__ int first(int query) const { return max(0, before + query + 1 - window); }
  // ... to before this one.
  __device__ __forceinline__ int past(int query) const { return causal ? min(keys, before + query + 1) : keys; }
};

// What a head's scores gain with the key's position: `alibi_slope` of transformer/operands.rs.
__device__ __forceinline__ float alibi_slope(int head, int heads) {
  int whole = 1;
  while (2 * whole <= heads) whole *= 2;
  const bool rest = head >= whole;
  const int n = rest ? 2 * whole : whole, i = rest ? 2 * (head - whole) : head;
  return exp2f(-8.0f * float(i + 1) / float(n));
}

// tanh as a quotient of exponentials: off by a few units of 2^-24 of 1, anywhere.
__device__ __forceinline__ float tanh_of(float x) { return 1.0f - __fdividef(2.0f, 1.0f + __expf(2.0f * x)); }

// What becomes of the products of queries and keys of a head, in multiples of 1 / `unit`.
struct Shaping {
  // Of a product, before its cap and in it.
  float scale, inward;
  float cap, slope;

  __device__ __forceinline__ Shaping(float scale, float cap, int alibi, int head, int heads, float unit)
      : scale(scale * unit),
        inward(cap > 0.0f ? scale / cap : 0.0f),
        cap(cap * unit),
        slope(alibi ? alibi_slope(head, heads) * unit : 0.0f) {}
  // The score; minus infinity, for keys that are not seen, stays.
  __device__ __forceinline__ float operator()(float product, int key) const {
    const float gain = slope * float(key);
    return (cap > 0.0f && product != -INFINITE ? cap * tanh_of(product * inward) : product * scale) + gain;
  }
  // How much the score moves with the product, of `scale`.
  __device__ __forceinline__ float derivative(float product) const {
    const float t = cap > 0.0f ? tanh_of(product * inward) : 0.0f;
    return 1.0f - t * t;
  }
};

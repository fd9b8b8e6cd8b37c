// The KV cache of 8 bits: keys and values [B, KV, capacity, D], a byte a number, and the scales of both, [B, KV, capacity]. Places are as
// in cache.cu. A warp takes a vector.
//
// cache_append_few puts keys and values of a pass there, each token of `qkv` at position *first + t of its sequence; cache_context_few
// gathers what a stretch of a prompt looks at, expanded. `floats`: e4m3, else whole numbers.
//
// Bytes: 2 B T KV D reals read (written) and as many bytes written (read), T being the tokens put (gathered).
#include "few_bits.h"

template <class Few>
__device__ __forceinline__ void append(const real* qkv, byte* keys, byte* values, float* key_scales, float* value_scales,
                                       int batch, int tokens, int heads, int kv_heads, int head_dim, int capacity,
                                       int start) {
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, all = i64(batch) * tokens * 2 * kv_heads;
  const i64 warp = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32, step = i64(gridDim.x) * (blockDim.x / 32);
  for (i64 i = warp; i < all; i += step) {
    const int part = int(i % (2 * kv_heads)), head = part % kv_heads;
    const i64 row = i / (2 * kv_heads);
    const int token = int(row % tokens);
    // What another one would overwrite at once is not written.
    if (token + capacity < tokens) continue;
    const real* from = qkv + row * width + i64(heads + part) * head_dim;
    const i64 place = (row / tokens * kv_heads + head) * capacity + (start + token) % capacity;
    const float scale = scale_of<Few>(from, head_dim);
    byte* to = (part < kv_heads ? keys : values) + place * head_dim;
    for (int c = threadIdx.x % 32; c < head_dim; c += 32) to[c] = stored<Few>(to_float(from[c]), scale);
    if (threadIdx.x % 32 == 0) (part < kv_heads ? key_scales : value_scales)[place] = scale;
  }
}

KERNEL cache_append_few(const real* qkv, byte* keys, byte* values, float* key_scales, float* value_scales, int batch,
                        int tokens, int heads, int kv_heads, int head_dim, int capacity, const int* first, int floats) {
  if (floats)
    append<E4m3>(qkv, keys, values, key_scales, value_scales, batch, tokens, heads, kv_heads, head_dim, capacity, *first);
  else
    append<Int8>(qkv, keys, values, key_scales, value_scales, batch, tokens, heads, kv_heads, head_dim, capacity, *first);
}

// `to` as of cache_context.
KERNEL cache_context_few(const real* qkv, const byte* keys, const byte* values, const float* key_scales,
                         const float* value_scales, real* to, int batch, int tokens, int heads, int kv_heads, int head_dim,
                         int capacity, int position, int before, int floats) {
  const int all = before + tokens;
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, half = i64(batch) * kv_heads * all;
  const i64 warp = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32, step = i64(gridDim.x) * (blockDim.x / 32);
  for (i64 i = warp; i < 2 * half; i += step) {
    const bool of_keys = i < half;
    const int at = int(i % all);
    const i64 group = i / all % (i64(batch) * kv_heads);
    real* there = to + i * head_dim;
    if (at < before) {
      const i64 place = group * capacity + (position - before + at) % capacity;
      const byte* from = (of_keys ? keys : values) + place * head_dim;
      const float scale = (of_keys ? key_scales : value_scales)[place];
      for (int c = threadIdx.x % 32; c < head_dim; c += 32) {
        const float x = floats ? E4m3::number(from[c], 0) : Int8::number(from[c], 0);
        there[c] = from_float<real>(x * scale);
      }
    } else {
      const i64 part = heads + group % kv_heads + (of_keys ? 0 : kv_heads), sequence = group / kv_heads;
      const real* from = qkv + (sequence * tokens + at - before) * width + part * head_dim;
      for (int c = threadIdx.x % 32; c < head_dim; c += 32) there[c] = from[c];
    }
  }
}

EXPORT(cache_append_few)
EXPORT(cache_context_few)

// The KV cache, keys and values [B, KV, capacity, D]. A position has the place that is left of it when whole capacities are taken
// off: past the capacity, a token takes the place of the oldest.
//
// cache_append puts keys and values of a pass there, each token of `qkv` at position *first + t of its sequence.
// cache_context gathers what a stretch of a prompt looks at, which need not be in the cache yet.
//
// Bytes: 2 B T KV D reals read and as many written, T being the tokens put or gathered. No FLOPs.
#include "common.h"

KERNEL cache_append(const real* qkv, real* keys, real* values, int batch, int tokens, int heads, int kv_heads, int head_dim,
                    int capacity, const int* first) {
  const int start = *first;
  const i64 width = i64(heads + 2 * kv_heads) * head_dim;
  const bool wide = head_dim % WIDTH == 0 && aligned(qkv) && aligned(keys) && aligned(values);
  const int a_piece = wide ? WIDTH : 1, pieces = head_dim / a_piece;
  const i64 all = i64(batch) * tokens * 2 * kv_heads * pieces, step = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const int column = int(i % pieces) * a_piece, part = int(i / pieces % (2 * kv_heads));
    const i64 row = i / pieces / (2 * kv_heads);
    const int token = int(row % tokens), head = part % kv_heads;
    // What another one would overwrite at once is not written.
    if (token + capacity < tokens) continue;
    const real* from = qkv + row * width + (heads + part) * head_dim + column;
    const i64 place = ((row / tokens * kv_heads + head) * capacity + (start + token) % capacity) * head_dim + column;
    real* to = (part < kv_heads ? keys : values) + place;
    if (wide)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else
      *to = *from;
  }
}

// `to`: keys, then values, [B, KV, before + tokens, D] each: of the last `before` positions before `position`, from the cache, and of
// the `tokens` in `qkv` after them.
KERNEL cache_context(const real* qkv, const real* keys, const real* values, real* to, int batch, int tokens, int heads,
                     int kv_heads, int head_dim, int capacity, int position, int before) {
  const int all = before + tokens;
  const i64 width = i64(heads + 2 * kv_heads) * head_dim, half = i64(batch) * kv_heads * all * head_dim;
  const bool wide = head_dim % WIDTH == 0 && aligned(qkv) && aligned(keys) && aligned(values) && aligned(to);
  const int a_piece = wide ? WIDTH : 1, pieces = head_dim / a_piece;
  const i64 count = 2 * half / a_piece, step = i64(gridDim.x) * blockDim.x;
  for (i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const int column = int(i % pieces) * a_piece, at = int(i / pieces % all);
    const i64 group = i / pieces / all % (i64(batch) * kv_heads), sequence = group / kv_heads;
    const bool of_keys = i < count / 2;
    const real* from;
    if (at < before) {
      from = (of_keys ? keys : values) + (group * capacity + (position - before + at) % capacity) * head_dim;
    } else {
      const i64 part = heads + group % kv_heads + (of_keys ? 0 : kv_heads);
      from = qkv + (sequence * tokens + at - before) * width + part * head_dim;
    }
    if (wide)
      *reinterpret_cast<uint4*>(to + i * WIDTH) = *reinterpret_cast<const uint4*>(from + column);
    else
      to[i] = from[column];
  }
}

EXPORT(cache_append)
EXPORT(cache_context)

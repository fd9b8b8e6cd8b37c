// Appends keys and values of a pass to the cache: keys and values [B, KV, capacity, D], each token of `qkv` at position
// *first + t of its sequence. Tokens past the capacity are left out.
//
// Bytes: 2 B T KV D reals read and as many written. No FLOPs.
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
    const int position = start + int(row % tokens), head = part % kv_heads;
    if (position >= capacity) continue;
    const real* from = qkv + row * width + (heads + part) * head_dim + column;
    const i64 place = ((row / tokens * kv_heads + head) * capacity + position) * head_dim + column;
    real* to = (part < kv_heads ? keys : values) + place;
    if (wide)
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    else
      *to = *from;
  }
}

EXPORT(cache_append)

// Attention of one query a sequence over a cache of `real` (decode.h).
//
// Bytes: 2 B KV length D reals, once.
#include "decode.h"

// Grid: (splits, KV * ceil(H / KV / G), B), 128 threads; a head has at most 8 LANES elements. `partial` holds
// B * H * splits * (8 LANES + 2) elements; `finished`, a count for each (y, z) of the grid, is zero before and after. `lse`
// [B, H], where it is not null, takes the logs of the softmax's denominators.
#define DECODE(LANES, G)                                                                                                   \
  KERNEL __launch_bounds__(128, G < (WIDTH == 4 ? 4 : 8) ? 3 : 2) decode_attention_##LANES##_##G(                          \
      const real* qkv, const real* keys, const real* values, real* out, float* lse, float* partial, unsigned* finished,    \
      int heads, int kv_heads, int head_dim, int capacity, const int* first, float scale, float cap, int alibi) {          \
    decode<LANES, G>(qkv, WholeRows{keys, values}, out, lse, partial, finished, heads, kv_heads, head_dim, capacity, first, \
                     {scale, cap, alibi});                                                                                 \
  }                                                                                                                        \
  EXPORT(decode_attention_##LANES##_##G)
DECODE(8, 1)
DECODE(8, 2)
DECODE(8, 4)
DECODE(8, 8)
DECODE(16, 1)
DECODE(16, 2)
DECODE(16, 4)
DECODE(16, 8)
DECODE(32, 1)
DECODE(32, 2)
DECODE(32, 4)
DECODE(32, 8)

// Dropout in place, without a stored mask: the backward pass makes the same one from the same seed.
//
// Bytes: each element is read and written, 4 with bf16, 8 with f32. Four elements take one Philox4x32-10 (Salmon et al. 2011):
// 20 widening products and about 25 other instructions, below what memory takes.
//
// Word i % 4 of the counter i / 4 decides on number i, as on the CPU (cpu/dropout.rs).
#include "common.h"

struct Words {
  unsigned at[4];
};

__device__ __forceinline__ Words philox(u64 counter, u64 key) {
  unsigned a = unsigned(counter), b = unsigned(counter >> 32), c = 0, d = 0;
  unsigned low = unsigned(key), high = unsigned(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const u64 p = u64(a) * 0xd2511f53u, q = u64(c) * 0xcd9e8d57u;
    a = unsigned(q >> 32) ^ b ^ low;
    c = unsigned(p >> 32) ^ d ^ high;
    b = unsigned(q);
    d = unsigned(p);
    low += 0x9e3779b9u;
    high += 0xbb67ae85u;
  }
  return {{a, b, c, d}};
}

// x[i] = 0 where its word is below `threshold`, else x[i] * keep. The step's seed is read, so that a captured step goes on with
// another mask; where in the model this is follows from `place` and `part` (Dropout::key of transformer/operands.rs).
KERNEL dropout(real* x, i64 len, unsigned threshold, float keep, const u64* step, u64 place, u64 part) {
  u64 seed = mix(*step ^ place);
  if (part) seed = mix(seed ^ part);
  over(len, aligned(x), [&](i64 i, Part of) {
    float v[WIDTH];
    load_part(x + i, v, of);
#pragma unroll
    for (int j = 0; j < WIDTH; j += 4) {
      const Words words = philox(u64(i + j) / 4, seed);
#pragma unroll
      for (int k = 0; k < 4; k++) v[j + k] = words.at[k] < threshold ? 0.0f : v[j + k] * keep;
    }
    store_part(x + i, v, of);
  });
}

EXPORT(dropout)

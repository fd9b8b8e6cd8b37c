// Normal numbers as transformer/random.rs makes them, bit for bit: SplitMix64 of a counter (Steele, Lea & Flood 2014), the sum of
// its four 16-bit words, one subtraction that is exact and one multiplication.
//
// Bytes: each element is written once in each format that its array has, 2, 4 or 6. Instructions: two products of 64 bits, which a GPU
// puts together from three of 32, five shifts, and the sum: 40 an element as compiled for sm_90a, on 64 lanes of a multiprocessor. Bound by
// these: 8e9 elements of bf16 are 16 GB, 5 ms of an H100's memory, and 3.2e11 instructions, 22 ms of its 132 multiprocessors at 1.7 GHz.
// (One thread of a CPU takes 40 s.)
#include "common.h"

// Number i of a row of `columns` is draw i, the next row's are `stride` draws further on; `first` is the counter of the first.
// Into f32 and into `real`, where there are such.
KERNEL normal(float* wide, real* narrow, i64 rows, i64 columns, i64 stride, u64 first, float scale) {
  over(rows * columns, aligned(wide) && aligned(narrow), [&](i64 i, Part part) {
    const i64 row = rows == 1 ? 0 : i / columns;
    i64 column = i - row * columns;
    u64 counter = first + u64(row * stride + column);
    float v[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; j++) {
      const u64 bits = mix(counter);
      const unsigned low = unsigned(bits), high = unsigned(bits >> 32);
      const unsigned sum = (low & 0xffffu) + (low >> 16) + (high & 0xffffu) + (high >> 16);
      v[j] = (float(sum) - 131070.0f) * scale;
      counter++;
      if (++column == columns) {
        column = 0;
        counter += u64(stride - columns);
      }
    }
    if (wide) store_part(wide + i, v, part);
    if (narrow) store_part(narrow + i, v, part);
  });
}

EXPORT(normal)

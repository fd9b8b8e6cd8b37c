// Element by element over flat arrays of any length: fill, add, scale, cap, change of format.
//
// Bytes per number: fill writes one real; add reads two and writes one (6 with bf16, 12 with f32); narrow and widen read one
// format and write the other (6 with bf16); scale and soft_cap read and write one (4 and 8). One FLOP an element, some 20 of
// a cap: bound by memory.
//
// A thread takes 16 bytes of the narrowest operand at a time; what is left over, or not aligned, goes one by one.
#include "common.h"

template <class T>
__device__ __forceinline__ void fill_with(T* to, float value, i64 len) {
  over(len, aligned(to), [&](i64 i, Part part) {
    float v[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; j++) v[j] = value;
    store_part(to + i, v, part);
  });
}

template <class From, class To>
__device__ __forceinline__ void change(const From* from, To* to, i64 len) {
  over(len, aligned(from) && aligned(to), [&](i64 i, Part part) {
    float v[WIDTH];
    load_part(from + i, v, part);
    store_part(to + i, v, part);
  });
}

KERNEL fill(real* to, float value, i64 len) { fill_with(to, value, len); }

KERNEL fill_f32(float* to, float value, i64 len) { fill_with(to, value, len); }

KERNEL add(const real* from, real* to, i64 len) {
  over(len, aligned(from) && aligned(to), [&](i64 i, Part part) {
    float a[WIDTH], b[WIDTH];
    load_part(from + i, a, part);
    load_part(to + i, b, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) b[j] += a[j];
    store_part(to + i, b, part);
  });
}

KERNEL scale(real* x, float factor, i64 len) {
  over(len, aligned(x), [&](i64 i, Part part) {
    float v[WIDTH];
    load_part(x + i, v, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) v[j] *= factor;
    store_part(x + i, v, part);
  });
}

KERNEL soft_cap(real* x, float cap, i64 len) {
  const float inverse = 1.0f / cap;
  over(len, aligned(x), [&](i64 i, Part part) {
    float v[WIDTH];
    load_part(x + i, v, part);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) v[j] = cap * tanhf(v[j] * inverse);
    store_part(x + i, v, part);
  });
}

KERNEL narrow(const float* from, real* to, i64 len) { change(from, to, len); }

KERNEL widen(const real* from, float* to, i64 len) { change(from, to, len); }

EXPORT(fill)
EXPORT(fill_f32)
EXPORT(add)
EXPORT(scale)
EXPORT(soft_cap)
EXPORT(narrow)
EXPORT(widen)

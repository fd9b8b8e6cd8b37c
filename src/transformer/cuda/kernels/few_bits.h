// Numbers of 8 bits in the KV cache: whole ones, or floats of e4m3 (Micikevicius et al. 2022), times a scale for each vector (a head's
// key or value of a token) that brings its largest number to the largest that there is. As in transformer/cpu/cached.rs, bit for bit.
#pragma once
#include "common.h"

typedef unsigned char byte;

struct Int8 {
  static constexpr float LARGEST = 127.0f;
  // To nearest, ties to even.
  __device__ __forceinline__ static byte of(float x) { return byte(int(rintf(fminf(fmaxf(x, -LARGEST), LARGEST)))); }
  // Of the byte `i` of a word.
  __device__ __forceinline__ static float number(unsigned word, int i) { return float(int(word << (24 - 8 * i)) >> 24); }
};

struct E4m3 {
  static constexpr float LARGEST = 448.0f;
  __device__ __forceinline__ static byte of(float x) {
    const float magnitude = fminf(fabsf(x), LARGEST);
    const unsigned bits = __float_as_uint(magnitude);
    // Three bits of mantissa, to nearest, ties to even; then the exponent's other bias. Below 2^-6 steps are of 2^-9.
    const unsigned rounded = (bits + 0x7ffffu + ((bits >> 20) & 1u)) >> 20;
    const unsigned small = __float_as_uint(magnitude + 16384.0f) & 15u;
    const unsigned code = magnitude < 0.015625f ? small : rounded - ((127u - 7u) << 3);
    return byte(((__float_as_uint(x) >> 24) & 0x80u) | (code & 0x7fu));
  }
  // The same in fewer steps, where the device keeps subnormals: sign, exponent and mantissa at their places in an f32 are the number
  // over 2^120.
  __device__ __forceinline__ static float lifted(unsigned word, int i) {
    const unsigned top = word << (24 - 8 * i);
    return __uint_as_float((top & 0x80000000u) | ((top >> 4) & 0x07f00000u)) * 1.329227995784915872903807060280344576e36f;
  }
  __device__ __forceinline__ static float number(unsigned word, int i) {
    const unsigned code = word >> (8 * i), magnitude = code & 0x7fu;
    const float x = __uint_as_float((magnitude << 20) + ((127u - 7u) << 23));
    // Those without an exponent of their own have no leading one either.
    const float value = magnitude < 8u ? 2.0f * (x - 0.0078125f) : x;
    return __uint_as_float(__float_as_uint(value) | (code & 0x80u) << 24);
  }
};

// What a vector's numbers are divided by, by a warp whose lanes all take part. A NaN among them makes all NaN.
template <class Few, class T>
__device__ __forceinline__ float scale_of(const T* vector, int head_dim) {
  float largest = 0.0f, nothing = 0.0f;
  for (int c = threadIdx.x % 32; c < head_dim; c += 32) {
    const float x = to_float(vector[c]);
    largest = fmaxf(largest, fabsf(x)), nothing += x * 0.0f;
  }
  largest = warp_max(largest);
  return (largest == 0.0f ? 1.0f : largest / Few::LARGEST) + warp_sum(nothing);
}

template <class Few>
__device__ __forceinline__ byte stored(float x, float scale) {
  // Of a denormal magnitude nothing is left to divide by.
  return Few::of(scale == 0.0f ? 0.0f : x / scale);
}

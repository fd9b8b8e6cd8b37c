// The functions between the two products of a feed-forward layer, with their slopes.
//
// GELU by tanh is computed as x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3): 0.5 (1 + tanh u) is sigmoid(2 u), and an
// exponential is a fraction of tanhf's work. The intrinsics' error, 2 units of 2^-24 and a few of the argument, is far below
// the format's in bf16 and below that of f32 sums.
#pragma once
#include "common.h"

// In the order of shape::Activation.
enum { GELU_TANH, GELU_ERF, RELU, SWIGLU, GEGLU, CLAMPED_SWIGLU };

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

struct Curve {
  float value, slope;
};

constexpr float CLAMP = 7.0f;

template <int KIND>
__device__ __forceinline__ Curve curve(float x) {
  if constexpr (KIND == GELU_TANH || KIND == GEGLU) {
    constexpr float ROOT = 0.7978845608f, CUBIC = 0.044715f;  // sqrt(2/pi)
    const float s = sigmoid(2.0f * ROOT * x * (1.0f + CUBIC * x * x));
    return {x * s, s + 2.0f * x * s * (1.0f - s) * ROOT * (1.0f + 3.0f * CUBIC * x * x)};
  } else if constexpr (KIND == GELU_ERF) {
    constexpr float ROOT = 0.7071067812f, DENSITY = 0.3989422804f;  // sqrt(1/2), 1/sqrt(2 pi)
    const float phi = 0.5f + 0.5f * erff(x * ROOT);
    return {x * phi, phi + x * DENSITY * __expf(-0.5f * x * x)};
  } else if constexpr (KIND == RELU) {
    return {fmaxf(x, 0.0f), x > 0.0f ? 1.0f : 0.0f};
  } else if constexpr (KIND == CLAMPED_SWIGLU) {
    // gpt-oss's: a steeper sigmoid, of a gate that has an end above.
    constexpr float STEEPNESS = 1.702f;
    const float clamped = fminf(x, CLAMP), s = sigmoid(STEEPNESS * clamped);
    return {clamped * s, x > CLAMP ? 0.0f : s * (1.0f + STEEPNESS * x * (1.0f - s))};
  } else {
    const float s = sigmoid(x);
    return {x * s, s * (1.0f + x * (1.0f - s))};
  }
}

// What a gate's other half is as a factor.
template <int KIND>
__device__ __forceinline__ Curve other_half(float up) {
  if constexpr (KIND == CLAMPED_SWIGLU) {
    return {fminf(fmaxf(up, -CLAMP), CLAMP) + 1.0f, fabsf(up) > CLAMP ? 0.0f : 1.0f};
  } else {
    return {up, 1.0f};
  }
}

__device__ __forceinline__ bool is_gated(int kind) { return kind == SWIGLU || kind == GEGLU || kind == CLAMPED_SWIGLU; }

// The function of a kind that is told at run time, without a gate and with one.
__device__ __forceinline__ float value_of(int kind, float x) {
  if (kind == GELU_TANH) return curve<GELU_TANH>(x).value;
  if (kind == GELU_ERF) return curve<GELU_ERF>(x).value;
  return curve<RELU>(x).value;
}
__device__ __forceinline__ float gated_value(int kind, float gate, float up) {
  if (kind == SWIGLU) return curve<SWIGLU>(gate).value * up;
  if (kind == GEGLU) return curve<GEGLU>(gate).value * up;
  return curve<CLAMPED_SWIGLU>(gate).value * other_half<CLAMPED_SWIGLU>(up).value;
}

// Sine and cosine of a rotary position (Su et al. 2021, equation 34).
//
// Angles are position * frequency, up to 1e5 radians and more, where an f32 is off by 4e-3. They are computed as turns, in two
// floats, of which only the fraction is kept: the error is then below 1e-6 radians at any position below 2^24.
#pragma once
#include "common.h"

constexpr float TURNS = 0.15915494f, TURNS_REST = 6.42063824e-09f;  // 1 / (2 pi) = TURNS + TURNS_REST

struct Turn {
  float sine, cosine;
};

// Both times `longer`, which stretched positions multiply queries and keys by.
__device__ __forceinline__ Turn turn(float position, float frequency, float longer) {
  const float high = frequency * TURNS;
  const float low = fmaf(frequency, TURNS, -high) + frequency * TURNS_REST;
  const float whole = position * high;
  const float rest = fmaf(position, high, -whole) + position * low;
  Turn t;
  sincospif(2.0f * ((whole - rintf(whole)) + rest), &t.sine, &t.cosine);
  t.sine *= longer, t.cosine *= longer;
  return t;
}

// Rotary positions (Su et al. 2021, equation 34), pairs (i, i + R/2) of the first R elements of a head: queries and keys of
// qkv rotated in place.
//
// Bytes: each number of queries and keys is read and written once, 4 with bf16, 8 with f32. 3 FLOPs a number; sines and
// cosines are made once for the heads that a warp turns: bound by memory.
#include "rotation.h"

// Heads that a warp turns by the angles it has made, at most. More save sines, fewer spread a single token over warps.
constexpr int GROUP = 16;

// A warp takes a group of heads of a row. `lanes` of its lanes share the pairs of a head, the others take other heads.
template <int N>
__device__ __forceinline__ void turn_rows(real* qkv, const float* frequencies, int n, int tokens, int heads, int kv_heads,
                                          int head_dim, int half, float longer, int first, bool inverse) {
  const int vectors = half / N, rotated = heads + kv_heads;
  const unsigned groups = unsigned(rotated + GROUP - 1) / GROUP, step = gridDim.x * (blockDim.x / 32);
  const i64 width = i64(heads + 2 * kv_heads) * head_dim;
  const int lane = threadIdx.x % 32, lanes = vectors < 32 && 32 % vectors == 0 ? vectors : 32;
  const float sign = inverse ? -1.0f : 1.0f;
  for (unsigned item = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; item < unsigned(n) * groups; item += step) {
    const int row = int(item / groups), group = int(item % groups) * GROUP;
    const float position = float(first + row % tokens);
    const int end = min(group + GROUP, rotated);
    for (int v = lane % lanes; v < vectors; v += lanes) {
      float frequency[N];
      load(frequencies + v * N, frequency);
      Turn by[N];
#pragma unroll
      for (int j = 0; j < N; j++) by[j] = turn(position, frequency[j], longer);
      for (int head = group + lane / lanes; head < end; head += 32 / lanes) {
        real* low = qkv + row * width + i64(head) * head_dim + v * N;
        float a[N], b[N];
        load(low, a);
        load(low + half, b);
#pragma unroll
        for (int j = 0; j < N; j++) {
          const float x = a[j], sine = sign * by[j].sine;
          a[j] = x * by[j].cosine - b[j] * sine;
          b[j] = b[j] * by[j].cosine + x * sine;
        }
        store(low, a);
        store(low + half, b);
      }
    }
  }
}

// qkv [n, (heads + 2 kv_heads) * head_dim]; row r is at position *first + r % tokens. frequencies [half]; what is rotated is
// multiplied by `longer`.
KERNEL rope(real* qkv, const float* frequencies, int n, int tokens, int heads, int kv_heads, int head_dim, int half, float longer,
            const int* first, int inverse) {
  const bool wide = half % WIDTH == 0 && head_dim % WIDTH == 0 && aligned(qkv) && aligned(frequencies);
  if (wide) turn_rows<WIDTH>(qkv, frequencies, n, tokens, heads, kv_heads, head_dim, half, longer, *first, inverse != 0);
  else turn_rows<1>(qkv, frequencies, n, tokens, heads, kv_heads, head_dim, half, longer, *first, inverse != 0);
}

EXPORT(rope)

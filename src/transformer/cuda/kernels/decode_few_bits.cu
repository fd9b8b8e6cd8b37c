// Attention of one query a sequence over a cache of 8 bits (decode.h): keys and values [B, KV, capacity, D], a byte a number, expanded
// as they are multiplied; scales [B, KV, capacity] multiply the sum over a key's numbers and the share that a value is weighed by.
//
// Bytes: 2 B KV length (D + 4), once.
#include "decode.h"
#include "few_bits.h"

template <class Few>
struct FewRows {
  const byte *keys, *values;
  const float *key_scales, *value_scales;

  // Eight bytes.
  typedef uint2 Piece;
  static constexpr bool SCALED = true;
  __device__ __forceinline__ static Piece load(const byte* row, int column, int head_dim, bool there) {
    Piece piece = {};
    const byte* from = row + column;
    if (head_dim % ELEMENTS == 0) {
      if (there && column < head_dim) piece = *reinterpret_cast<const uint2*>(from);
    } else {
      const int inside = there ? head_dim - column : 0;
#pragma unroll
      for (int i = 0; i < ELEMENTS; i++) {
        if (i < inside) (i < 4 ? piece.x : piece.y) |= unsigned(from[i]) << (8 * (i % 4));
      }
    }
    return piece;
  }
  __device__ __forceinline__ static float number(const Piece& piece, int i) {
    return Few::number(i < 4 ? piece.x : piece.y, i % 4);
  }
  __device__ __forceinline__ float key_scale(i64 row, bool there) const { return there ? key_scales[row] : 0.0f; }
  __device__ __forceinline__ float value_scale(i64 row, bool there) const { return there ? value_scales[row] : 0.0f; }
};

// As DECODE of decode.cu.
#define FEW_BITS(name, Few, LANES, G)                                                                                      \
  KERNEL __launch_bounds__(128, G < (WIDTH == 4 ? 4 : 8) ? 3 : 2) decode_##name##_##LANES##_##G(                           \
      const real* qkv, const byte* keys, const byte* values, const float* key_scales, const float* value_scales,           \
      real* out, float* lse, float* partial, unsigned* finished, int heads, int kv_heads, int head_dim, int capacity,      \
      const int* first, float scale, float cap, int alibi) {                                                               \
    decode<LANES, G>(qkv, FewRows<Few>{keys, values, key_scales, value_scales}, out, lse, partial, finished, heads,        \
                     kv_heads, head_dim, capacity, first, {scale, cap, alibi});                                            \
  }                                                                                                                        \
  EXPORT(decode_##name##_##LANES##_##G)
FEW_BITS(int8, Int8, 8, 1)
FEW_BITS(int8, Int8, 8, 2)
FEW_BITS(int8, Int8, 8, 4)
FEW_BITS(int8, Int8, 8, 8)
FEW_BITS(int8, Int8, 16, 1)
FEW_BITS(int8, Int8, 16, 2)
FEW_BITS(int8, Int8, 16, 4)
FEW_BITS(int8, Int8, 16, 8)
FEW_BITS(int8, Int8, 32, 1)
FEW_BITS(int8, Int8, 32, 2)
FEW_BITS(int8, Int8, 32, 4)
FEW_BITS(int8, Int8, 32, 8)
FEW_BITS(f8, E4m3, 8, 1)
FEW_BITS(f8, E4m3, 8, 2)
FEW_BITS(f8, E4m3, 8, 4)
FEW_BITS(f8, E4m3, 8, 8)
FEW_BITS(f8, E4m3, 16, 1)
FEW_BITS(f8, E4m3, 16, 2)
FEW_BITS(f8, E4m3, 16, 4)
FEW_BITS(f8, E4m3, 16, 8)
FEW_BITS(f8, E4m3, 32, 1)
FEW_BITS(f8, E4m3, 32, 2)
FEW_BITS(f8, E4m3, 32, 4)
FEW_BITS(f8, E4m3, 32, 8)

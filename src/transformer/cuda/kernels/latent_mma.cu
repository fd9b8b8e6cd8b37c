// latent_attend of latent_decode.cu on tensor cores, of latents of 512 numbers and 64 rotated ones, as DeepSeek's models and those after
// them have. A block has 16 heads' queries, rounded to bf16, in shared memory and passes over its part of the context, 32 positions at a
// time: each of four warps multiplies the queries with 8 positions, and the probabilities, which all warps compute from the scores in
// shared memory, with its own 128 columns of the latents.
//
// FLOPs: 2 n H length (2 R + P), 16 heads at a time; bytes of the cache: once from memory, and once more from the L2 cache for every further
// 16 heads. For 16 heads and 32 positions there are 272 m16n8k16, under which 144 KB of shared memory are read: half of what tensor cores
// could do where nothing but these were the limit, and over ten times what f32 arithmetic does. 90 KB of shared memory, which every GPU
// has since 8.0.
#include "tensor_cores.h"

constexpr int RANK = 512, ROPE = 64, WIDTH_OF_ROW = RANK + ROPE, CHUNKS = WIDTH_OF_ROW / 8, STEPS = WIDTH_OF_ROW / 16;
constexpr int HEADS = 16, KEYS = 32, WARPS = 4, COLUMNS = RANK / WARPS, ROW_BYTES = WIDTH_OF_ROW * 2;

// Numbers from a row of scores to the next, so that the rows that a warp reads lie in different banks.
constexpr int SCORES = KEYS + 4;

// Byte offset of 16 bytes of a row: rows that lie in the same banks have theirs exchanged.
__device__ __forceinline__ unsigned at_chunk(unsigned row, unsigned chunk) { return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4); }

// Starts the copy of a tile of positions; those past `inside` become zeros.
__device__ __forceinline__ void load_keys(SharedAddress to, const bf16* from, int inside) {
  for (int i = threadIdx.x; i < KEYS * CHUNKS; i += WARPS * 32) {
    const int row = i / CHUNKS, chunk = i % CHUNKS;
    copy_async_16(to + at_chunk(row, chunk), from + i64(row) * WIDTH_OF_ROW + chunk * 8, row < inside);
  }
  commit_copies();
}

// As latent_attend_1 of latent_decode.cu. Grid: (rows, tiles of 16 heads, splits), 128 threads.
KERNEL __launch_bounds__(128, 2) latent_attend_mma(const float* absorbed, const bf16* cache, float* partial, int heads,
                                                   int tokens, int, int, int capacity, const int* first) {
  SHARED_BUFFER(char, shared);
  __shared__ float4 of_tile[HEADS * SCORES / 4];
  float(*scores)[SCORES] = reinterpret_cast<float(*)[SCORES]>(of_tile);
  const SharedAddress queries = shared_address(shared), stages = queries + HEADS * ROW_BYTES;
  const int row = blockIdx.x, head = int(blockIdx.y) * HEADS, counted = min(HEADS, heads - head);
  const int splits = gridDim.z, split = blockIdx.z;
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int length = *first + row % tokens + 1;
  const int share = ((length + splits - 1) / splits + KEYS - 1) / KEYS * KEYS;
  const int begin = split * share, end = min(length, begin + share);
  const i64 part = (i64(row) * heads + head) * splits + split;
  float* statistics = partial + i64(gridDim.x) * heads * splits * RANK;
  if (begin >= end) {
    if (int(threadIdx.x) < counted) {
      const i64 own = part + i64(threadIdx.x) * splits;
      statistics[2 * own] = -INFINITE, statistics[2 * own + 1] = 0.0f;
    }
    return;
  }
  const bf16* of_sequence = cache + i64(row / tokens) * capacity * WIDTH_OF_ROW;
  load_keys(stages, of_sequence + i64(begin) * WIDTH_OF_ROW, end - begin);
  const float* from = absorbed + (i64(row) * heads + head) * WIDTH_OF_ROW;
  for (int i = threadIdx.x; i < HEADS * CHUNKS; i += WARPS * 32) {
    const int of_head = i / CHUNKS, chunk = i % CHUNKS;
    float x[8] = {};
    if (of_head < counted) load(from + i64(i) * 8, x);
    store(reinterpret_cast<bf16*>(shared + at_chunk(of_head, chunk)), x);
  }

  // Rows lane / 4 and 8 more are this lane's heads.
  float sums[COLUMNS / 8][4] = {};
  float largest[2] = {-INFINITE, -INFINITE}, total[2] = {};
  const unsigned query_row = lane % 16, key_row = 8 * warp + lane % 8;
  for (int at = begin, stage = 0; at < end; at += KEYS, stage ^= 1) {
    wait_for_copies<0>();
    // The tile has come for all threads, and all are done with the one before, its scores and its place.
    __syncthreads();
    if (at + KEYS < end) {
      const bf16* next = of_sequence + i64(at + KEYS) * WIDTH_OF_ROW;
      load_keys(stages + (stage ^ 1) * KEYS * ROW_BYTES, next, end - at - KEYS);
    }
    const SharedAddress keys = stages + stage * KEYS * ROW_BYTES;
    float s[4] = {};
#pragma unroll 4
    for (int step = 0; step < STEPS; step += 2) {
      unsigned k[4], q[2][4];
      load_matrices(k, keys + at_chunk(key_row, 2 * step + lane / 8));
      load_matrices(q[0], queries + at_chunk(query_row, 2 * step + lane / 16));
      load_matrices(q[1], queries + at_chunk(query_row, 2 * step + 2 + lane / 16));
      multiply_add(s, q[0], k[0], k[1]);
      multiply_add(s, q[1], k[2], k[3]);
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int column = 8 * warp + 2 * (lane % 4);
      float* to = &scores[lane / 4 + 8 * i][column];
      to[0] = at + column < end ? s[2 * i] : -INFINITE;
      to[1] = at + column + 1 < end ? s[2 * i + 1] : -INFINITE;
    }
    __syncthreads();
    // A lane's scores as they lie in the first factor: rows lane / 4 and 8 more, columns 2 (lane % 4) and the next, and 8 further.
    float p[KEYS / 16][4][2];
    float most[2] = {largest[0], largest[1]};
#pragma unroll
    for (int inner = 0; inner < KEYS / 16; inner++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        load(&scores[lane / 4 + 8 * (i % 2)][16 * inner + 8 * (i / 2) + 2 * (lane % 4)], p[inner][i]);
        most[i % 2] = fmaxf(most[i % 2], fmaxf(p[inner][i][0], p[inner][i][1]));
      }
    }
    float shrink[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
      most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 1));
      most[i] = fmaxf(most[i], __shfl_xor_sync(ALL_LANES, most[i], 2));
      shrink[i] = exp2_fast(largest[i] - (most[i] == -INFINITE ? 0.0f : most[i]));
      largest[i] = most[i];
      total[i] *= shrink[i];
    }
    unsigned weights[KEYS / 16][4];
#pragma unroll
    for (int inner = 0; inner < KEYS / 16; inner++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float offset = most[i % 2] == -INFINITE ? 0.0f : most[i % 2];
        const float low = exp2_fast(p[inner][i][0] - offset), high = exp2_fast(p[inner][i][1] - offset);
        total[i % 2] += low + high;
        weights[inner][i] = to_bf16_pair(low, high);
      }
    }
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) {
      sums[n][0] *= shrink[0], sums[n][1] *= shrink[0];
      sums[n][2] *= shrink[1], sums[n][3] *= shrink[1];
    }
#pragma unroll
    for (int inner = 0; inner < KEYS / 16; inner++) {
#pragma unroll
      for (int n = 0; n < COLUMNS / 8; n += 2) {
        unsigned v[4];
        load_matrices_transposed(v, keys + at_chunk(16 * inner + lane % 16, warp * (COLUMNS / 8) + n + lane / 16));
        multiply_add(sums[n], weights[inner], v[0], v[1]);
        multiply_add(sums[n + 1], weights[inner], v[2], v[3]);
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 2; i++) {
    total[i] += __shfl_xor_sync(ALL_LANES, total[i], 1);
    total[i] += __shfl_xor_sync(ALL_LANES, total[i], 2);
    const int of_head = int(lane) / 4 + 8 * i;
    if (of_head >= counted) continue;
    const i64 own = part + i64(of_head) * splits;
    float* to = partial + own * RANK + int(warp) * COLUMNS + 2 * int(lane % 4);
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++) *reinterpret_cast<float2*>(to + 8 * n) = make_float2(sums[n][2 * i], sums[n][2 * i + 1]);
    if (warp == 0 && lane % 4 == 0) statistics[2 * own] = largest[i], statistics[2 * own + 1] = total[i];
  }
}

EXPORT(latent_attend_mma)

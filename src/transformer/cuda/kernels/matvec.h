// Products of a few rows, as decoding has them: y [n, m] = x [n, k] w[m, k]^T, n <= 8, with what comes before (a norm of x) and
// after (an End: bias and residual, activation, rotary positions and cache) in the same launch.
//
// Bytes: w once, m k reals; all else is small. FLOPs: 2 n m k, at most 8 for a byte in bf16: bound by memory. What it takes to be:
//   Loads in flight. 3.35 TB/s (H100) at 600 to 900 ns of latency are 2 to 3 MB under way, 15 to 23 KB for each of 132
//     multiprocessors. A lane has STAGES * 4 = 16 loads of 16 bytes under way, a block of 8 warps 64 KB; two blocks stay on a
//     multiprocessor (128 registers): 128 KB, and 64 KB where there is one tile a multiprocessor (m = 2048).
//   No pause. The weights do not depend on what was computed before: their first loads are asked for before x is there, and
//     the next tile's while this one's sums are put together. 128 KB on each multiprocessor are 5 us of traffic, more than the
//     norm of x takes (about 2 us), which every block computes anew: x is 8 KB a row, gains another 8.
//   No more launches than needed: 5 a layer and 3 more. At 1.2 us from one's end to the next one's first load, a Llama of 1B (16
//     layers of 122 MB, head 525 MB: 738 us at 3.35 TB/s) loses 83 * 1.2 = 100 us, and attention's launches, which read no
//     weights, take some 4 us each beside what they read of the cache, 64 us.
//   What comes next begun early (programmatic dependent launch): where a multiprocessor has room, and a product of m = 2048 or
//     attention leaves room, the next product's first 64 KB a block are asked for while this one still runs.
// In bf16 the sums are tensor cores': 16 rows of w by 8 rows of x, so that 1 row and 8 cost the same, no lane adds up another's
// sums, and one kernel serves every n. (Multiply-adds of f32 would be 70 % of all issue slots at n = 8.) In f32, which is for
// correctness first, they are n multiply-adds an element.
// With n rows, x is read n / 16 times as often as w, from shared memory where it fits (always after a norm), else by way of
// the L2 cache: at n = 8 and k = 14336 half of w's bytes once more, of that cache's 5.5 TB/s.
//
// A block takes a tile: 8 pairs of rows of w, `apart` from each other: what an End needs both of for one result (a gate and its
// other half, the two elements that a rotation mixes) is then in one thread. Its warps share the columns, a k-block of 128 bytes a row
// in turn; lane 4 g + t has 16 bytes of row g and of its partner, at t and at t + 4. The order of sums depends on k alone.
//
// Weights may be floats of 8 bits with a scale for each row of w (the kernels whose names end in _f8): half of bf16's bytes, or a quarter
// of f32's. A lane then has 8 or 4 of them in a load, and more loads under way, 40 KB or 16 KB a block. Each is made a
// real, which holds it exactly, in 5 instructions of integers and a multiplication: at 3.35 TB/s 2e13 a second, of the 2.8e13 that an
// H100 issues. Sums are scaled once, at the end.
#pragma once
#include "few_bits.h"
#include "tensor_cores.h"

constexpr int WARPS = 8, MOST_ROWS = 8, PAIRS = 8;
// Columns of a k-block.
constexpr int K_BLOCK = 8 * WIDTH;

// Rows of w: the two of a pair.
struct RowPair {
  int low, high;
};
// Stretches of 2 * `apart` rows. Of each the first 2 * `inner` are pairs `inner` apart, and the rest are pairs as far apart as
// half of the rest; where `inner` is `apart`, the first half is the low ones.
__device__ __forceinline__ RowPair rows_of(int pair, int apart, int inner) {
  const int at = pair % apart, first = pair / apart * 2 * apart;
  if (at < inner) return {first + at, first + at + inner};
  return {first + inner + at, first + at + apart};
}

// How weights lie in memory, what a lane loads of WIDTH of them, and how many loads of each kind are under way.
struct Whole {
  typedef real Number;
  typedef uint4 Piece;
  static constexpr bool SCALED = false;
  // Fewer in f32, whose sums of 8 rows take the registers: 32 KB a block under way.
  static constexpr int STAGES = sizeof(real) == 2 ? 4 : 2;
  __device__ __forceinline__ static uint4 expand(const uint4& piece) { return piece; }
};
struct Floats8 {
  typedef byte Number;
  static constexpr bool SCALED = true;
  // As many as leave registers for what they are expanded to.
  static constexpr int STAGES = sizeof(real) == 2 ? 5 : 4;
#ifdef REAL_BF16
  typedef uint2 Piece;
  __device__ __forceinline__ static unsigned pair(unsigned word, int i) {
    return to_bf16_pair(E4m3::lifted(word, i), E4m3::lifted(word, i + 1));
  }
  __device__ __forceinline__ static uint4 expand(const uint2& piece) {
    return make_uint4(pair(piece.x, 0), pair(piece.x, 2), pair(piece.y, 0), pair(piece.y, 2));
  }
#else
  typedef unsigned Piece;
  __device__ __forceinline__ static uint4 expand(unsigned piece) {
    return make_uint4(__float_as_uint(E4m3::lifted(piece, 0)), __float_as_uint(E4m3::lifted(piece, 1)),
                      __float_as_uint(E4m3::lifted(piece, 2)), __float_as_uint(E4m3::lifted(piece, 3)));
  }
#endif
};

// What is multiplied, and what comes before.
template <class W>
struct Matvec {
  const real *x;
  const typename W::Number* w;
  // Of the rows of w, where they have any.
  const float* scales;
  int n, k, m, apart, inner;
  // Of the norm, or null; `stats` [n, 2] takes mean and reciprocal deviation.
  const real *gain, *shift;
  float* stats;
  float eps;
  // How much more a gain is than its parameter.
  float offset;
  bool rms;
  // Whether x goes through shared memory: n rows, and two more for gain and shift where there is a norm.
  bool staged;

  __device__ __forceinline__ int k_blocks() const { return (k + K_BLOCK - 1) / K_BLOCK; }
  // Elements from a row of x to the next in shared memory: 64 bytes more than a multiple of 128, so that the 8 lanes that read at once
  // meet in no bank.
  __device__ __forceinline__ int staged_stride() const { return k_blocks() * K_BLOCK + 4 * WIDTH; }
  __device__ __forceinline__ int tiles() const { return ((m + 2 * apart - 1) / (2 * apart) * apart + PAIRS - 1) / PAIRS; }
};

// Bytes that nothing reads again; zeros unless `there`. In the order of the program: the first to be used are asked for first.
__device__ __forceinline__ void load_once(uint4& v, const void* from, bool there) {
  v = {0, 0, 0, 0};
#ifdef CENTIME_HOST
  if (there) v = *reinterpret_cast<const uint4*>(from);
#else
  asm volatile(
      "{ .reg .pred there; setp.ne.b32 there, %5, 0;\n"
      "@there ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4]; }"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(from), "r"(int(there)));
#endif
}
__device__ __forceinline__ void load_once(uint2& v, const void* from, bool there) {
  v = {0, 0};
#ifdef CENTIME_HOST
  if (there) v = *reinterpret_cast<const uint2*>(from);
#else
  asm volatile(
      "{ .reg .pred there; setp.ne.b32 there, %3, 0;\n"
      "@there ld.global.nc.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2]; }"
      : "+r"(v.x), "+r"(v.y)
      : "l"(from), "r"(int(there)));
#endif
}
__device__ __forceinline__ void load_once(unsigned& v, const void* from, bool there) {
  v = 0;
#ifdef CENTIME_HOST
  if (there) v = *reinterpret_cast<const unsigned*>(from);
#else
  asm volatile(
      "{ .reg .pred there; setp.ne.b32 there, %2, 0;\n"
      "@there ld.global.nc.L1::no_allocate.L2::128B.u32 %0, [%1]; }"
      : "+r"(v)
      : "l"(from), "r"(int(there)));
#endif
}

// This lane's part of a k-block: for t and t + 4, of the low row and of the high one.
template <class Piece>
struct Stage {
  Piece low[2], high[2];
};

// The same as elements.
template <class W>
__device__ __forceinline__ Stage<uint4> expand(const Stage<typename W::Piece>& stage) {
  return {{W::expand(stage.low[0]), W::expand(stage.low[1])}, {W::expand(stage.high[0]), W::expand(stage.high[1])}};
}

// Columns from one k-block of a warp to its next.
constexpr int STRIDE = WARPS * K_BLOCK;

// Where a lane's first piece of a row stands; the second is 4 WIDTH further on.
__device__ __forceinline__ int first_column() { return threadIdx.x / 32 * K_BLOCK + threadIdx.x % 4 * WIDTH; }

// Asks for weights one round ahead of the sums.
template <class W>
struct Ahead {
  // Columns in a round of a warp's stages.
  static constexpr int ROUND = W::STAGES * STRIDE;
  const typename W::Number *low, *high;
  // Columns from this lane's place to the row's end; none past the last tile.
  int tile, left;

  __device__ __forceinline__ explicit Ahead(const Matvec<W>& p) : tile(blockIdx.x) { begin(p); }
  __device__ __forceinline__ void begin(const Matvec<W>& p) {
    const RowPair rows = rows_of(tile * PAIRS + threadIdx.x % 32 / 4, p.apart, p.inner);
    // Past the last row: any row, and its sums are left out.
    low = p.w + i64(min(rows.low, p.m - 1)) * p.k + first_column();
    high = p.w + i64(min(rows.high, p.m - 1)) * p.k + first_column();
    left = tile < p.tiles() ? p.k - first_column() : 0;
  }
  __device__ __forceinline__ void load(Stage<typename W::Piece>& stage, int step) const {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int at = step * STRIDE + h * 4 * WIDTH;
      load_once(stage.low[h], low + at, at < left);
      load_once(stage.high[h], high + at, at < left);
    }
  }
  // The next round of the tile, or the first one of the next tile.
  __device__ __forceinline__ void advance(const Matvec<W>& p, bool same_tile) {
    low += ROUND, high += ROUND, left -= ROUND;
    if (same_tile) return;
    tile += gridDim.x;
    begin(p);
  }
};

// A warp's sums of a tile over its columns.
#ifdef REAL_BF16
struct Sums {
  float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};

  // Row lane / 4 of x is this lane's; what is not there counts as zeros.
  __device__ __forceinline__ static int row() { return threadIdx.x % 32 / 4; }
  __device__ __forceinline__ void add(const Stage<uint4>& w, const real* x, int, int, int at, int left) {
#pragma unroll
    for (int h = 0; h < 2; h++, at += 4 * WIDTH) {
      uint4 b = {0, 0, 0, 0};
      if (at < left) b = *reinterpret_cast<const uint4*>(x + at);
      // The same columns of both in each product, if not in their order.
      const unsigned first[4] = {w.low[h].x, w.high[h].x, w.low[h].y, w.high[h].y};
      const unsigned second[4] = {w.low[h].z, w.high[h].z, w.low[h].w, w.high[h].w};
      multiply_add(c, first, b.x, b.y);
      multiply_add(c, second, b.z, b.w);
    }
  }
  __device__ __forceinline__ void put(float (&to)[2][PAIRS][MOST_ROWS]) const {
    const int lane = threadIdx.x % 32;
    *reinterpret_cast<float2*>(&to[0][lane / 4][lane % 4 * 2]) = make_float2(c[0], c[1]);
    *reinterpret_cast<float2*>(&to[1][lane / 4][lane % 4 * 2]) = make_float2(c[2], c[3]);
  }
};
#else
struct Sums {
  float low[MOST_ROWS] = {}, high[MOST_ROWS] = {};

  // Each lane goes over all rows of x.
  __device__ __forceinline__ static int row() { return 0; }
  __device__ __forceinline__ void add(const Stage<uint4>& w, const real* x, int stride, int n, int at, int left) {
#pragma unroll
    for (int h = 0; h < 2; h++, at += 4 * WIDTH) {
      if (at >= left) break;
      const unsigned bits[2][4] = {{w.low[h].x, w.low[h].y, w.low[h].z, w.low[h].w},
                                   {w.high[h].x, w.high[h].y, w.high[h].z, w.high[h].w}};
#pragma unroll
      for (int row = 0; row < MOST_ROWS; row++) {
        if (row >= n) break;
        float elements[WIDTH];
        load(x + row * stride + at, elements);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
          low[row] += __uint_as_float(bits[0][i]) * elements[i];
          high[row] += __uint_as_float(bits[1][i]) * elements[i];
        }
      }
    }
  }
  __device__ __forceinline__ void put(float (&to)[2][PAIRS][MOST_ROWS]) {
#pragma unroll
    for (int row = 0; row < MOST_ROWS; row++) {
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        low[row] += __shfl_xor_sync(ALL_LANES, low[row], step);
        high[row] += __shfl_xor_sync(ALL_LANES, high[row], step);
      }
    }
    if (threadIdx.x % 4 != 0) return;
    store(to[0][threadIdx.x % 32 / 4], low);
    store(to[1][threadIdx.x % 32 / 4], high);
  }
};
#endif

// Starts the copies of x, and of gain and shift after it, into shared memory.
template <class W>
__device__ __forceinline__ void stage_rows(const Matvec<W>& p, real* to) {
  const int stride = p.staged_stride(), pieces = p.k / WIDTH, rows = p.n + (p.gain ? 1 : 0) + (p.shift ? 1 : 0);
  for (int i = threadIdx.x; i < rows * pieces; i += WARPS * 32) {
    const int row = i / pieces, column = i % pieces * WIDTH;
    const real* from = row < p.n ? p.x + i64(row) * p.k : row == p.n ? p.gain : p.shift;
    copy_async_16(shared_address(to + row * stride + column), from + column, true);
  }
  commit_copies();
}

// The norm of the rows in shared memory, in place: mean, then the mean of squares of what is left, as in norm.cu. The warps are
// divided among the rows, all of them to a single one.
template <class W>
__device__ __forceinline__ void normalise(const Matvec<W>& p, real* rows) {
  __shared__ float parts[2][WARPS];
  const int stride = p.staged_stride(), warp = threadIdx.x / 32;
  const int team = p.n == 1 ? WARPS : p.n == 2 ? WARPS / 2 : p.n <= 4 ? WARPS / 4 : 1, row = warp / team;
  const int first = (threadIdx.x - row * team * 32) * WIDTH, step = team * 32 * WIDTH, end = row < p.n ? p.k : 0;
  real* mine = rows + row * stride;
  const real *gain = rows + p.n * stride, *shift = gain + stride;
  const auto sum = [&](int which, float x) {
    x = warp_sum(x);
    if (threadIdx.x % 32 == 0) parts[which][warp] = x;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < team; i++) total += parts[which][row * team + i];
    return total;
  };
  float mean = 0.0f, total = 0.0f;
  if (!p.rms) {
    for (int i = first; i < end; i += step) {
      float x[WIDTH];
      load(mine + i, x);
#pragma unroll
      for (int j = 0; j < WIDTH; j++) total += x[j];
    }
    mean = sum(0, total) / float(p.k), total = 0.0f;
  }
  for (int i = first; i < end; i += step) {
    float x[WIDTH];
    load(mine + i, x);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) total += (x[j] - mean) * (x[j] - mean);
  }
  const float rstd = rsqrtf(sum(1, total) / float(p.k) + p.eps);
  for (int i = first; i < end; i += step) {
    float x[WIDTH], g[WIDTH], result[WIDTH] = {};
    load(mine + i, x);
    load(gain + i, g);
    if (p.shift) load(shift + i, result);
#pragma unroll
    for (int j = 0; j < WIDTH; j++) result[j] += (x[j] - mean) * rstd * (p.offset + g[j]);
    store(mine + i, result);
  }
  if (blockIdx.x == 0 && first == 0 && row < p.n) p.stats[2 * row] = mean, p.stats[2 * row + 1] = rstd;
}

// Calls end(row of x, pair of rows of w, its two sums) for every row and pair; a pair's rows may be past the last.
template <class W, class End>
__device__ __forceinline__ void matvec(const Matvec<W>& p, const End& end) {
  __shared__ float partial[2][WARPS][2][PAIRS][MOST_ROWS];
  SHARED_BUFFER(real, staged);
  let_next_begin();
  // Where x is there from the start, its copies are ahead of the weights' traffic.
  if (!BEGINS_EARLY && p.staged) stage_rows(p, staged);
  constexpr int ROUND = Ahead<W>::ROUND;
  const int rounds = (p.k + ROUND - 1) / ROUND;
  Ahead<W> ahead(p);
  Stage<typename W::Piece> ring[W::STAGES];
#pragma unroll
  for (int s = 0; s < W::STAGES; s++) ahead.load(ring[s], s);
  ahead.advance(p, rounds > 1);
  wait_for_before();
  if (BEGINS_EARLY && p.staged) stage_rows(p, staged);
  if (p.staged) {
    wait_for_copies<0>();
    __syncthreads();
    if (p.gain) {
      normalise(p, staged);
      __syncthreads();
    }
  }
  const int stride = p.staged ? p.staged_stride() : p.k, tiles = p.tiles();
  const real* x = (p.staged ? staged : p.x) + first_column();
  const int columns = Sums::row() < p.n ? p.k - first_column() : 0;
  if (columns > 0) x += i64(Sums::row()) * stride;
  int turn = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x, turn ^= 1) {
    Sums sums;
    const real* from = x;
    int left = columns;
#pragma unroll 1
    for (int round = rounds; round > 0; round--, from += ROUND, left -= ROUND) {
#pragma unroll
      for (int s = 0; s < W::STAGES; s++) {
        sums.add(expand<W>(ring[s]), from, stride, p.n, s * STRIDE, left);
        ahead.load(ring[s], s);
      }
      // Weights are a round ahead: past the last but one of a tile begins the next.
      ahead.advance(p, round > 2 || (round == 1 && rounds > 1));
    }
    // Two sets of partial sums in turn: whoever writes the one has passed the barrier after the last reading of it.
    sums.put(partial[turn][threadIdx.x / 32]);
    __syncthreads();
    const int row = threadIdx.x % MOST_ROWS, pair = threadIdx.x / MOST_ROWS;
    if (pair < PAIRS && row < p.n) {
      float low = 0.0f, high = 0.0f;
#pragma unroll
      for (int w = 0; w < WARPS; w++) low += partial[turn][w][0][pair][row], high += partial[turn][w][1][pair][row];
      const RowPair rows = rows_of(tile * PAIRS + pair, p.apart, p.inner);
      if (W::SCALED) low *= p.scales[min(rows.low, p.m - 1)], high *= p.scales[min(rows.high, p.m - 1)];
      end(row, rows, low, high);
    }
  }
}

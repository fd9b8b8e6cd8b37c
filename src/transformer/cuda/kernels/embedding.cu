// Rows out of the embedding tables, and gradients back into them. No arithmetic but the additions: bound by memory.
//
// embed: n rows of c: reads a row of the table (and one of positions, which the cache holds after the first sequence), writes
// one: 4 (6) bytes an element with bf16, 8 (12) with f32; n * c additions with positions.
// embed_backward: reads each row of dout once, reads and writes each row of the table's gradient that occurs once.
// positions_backward: reads dout once, writes [context, c] f32.
//
// Gradients are summed in the order of the rows by one thread a column: the same bits every time, no atomics.
#include "common.h"

// A token without a row in the table.
constexpr unsigned IGNORED = 0xffffffffu;

// out [n, c]: row r is table[ids[r]] (+ positions[*first + r % tokens]); of IGNORED the table has zeros.
template <int N>
__device__ __forceinline__ void embed_rows(const unsigned* ids, const real* table, const real* positions, real* out,
                                           int n, int tokens, int c, int first) {
  over_rows<N>(n, c, [&](int r, int i) {
    float row[N] = {};
    if (ids[r] != IGNORED) load(table + i64(ids[r]) * c + i, row);
    if (positions) {
      float position[N];
      load(positions + i64(first + r % tokens) * c + i, position);
#pragma unroll
      for (int j = 0; j < N; j++) row[j] += position[j];
    }
    store(out + i64(r) * c + i, row);
  });
}

KERNEL embed(const unsigned* ids, const real* table, const real* positions, real* out, int n, int tokens, int c,
             const int* first) {
  const bool wide = c % WIDTH == 0 && aligned(table) && aligned(positions) && aligned(out);
  if (wide) embed_rows<WIDTH>(ids, table, positions, out, n, tokens, c, *first);
  else embed_rows<1>(ids, table, positions, out, n, tokens, c, *first);
}

// Adds to `sum` the rows of dout that `row(k)` names, k in [0, count), at column i.
template <int N, class Row>
__device__ __forceinline__ void add_rows(float (&sum)[N], const real* dout, i64 c, int i, int count, Row row) {
#pragma unroll 4
  for (int k = 0; k < count; k++) {
    float d[N];
    load(dout + row(k) * c + i, d);
#pragma unroll
    for (int j = 0; j < N; j++) sum[j] += d[j];
  }
}

// Rows in the order of their ids, and of equal ids in their own: what adds up an id's gradients in an order that nothing else
// decides. An entry is the id in the high word and the row in the low one.
//
// Least significant digit first, 8 bits a pass (2 for a vocabulary of up to 65,536): a warp takes a stretch of the entries, counts
// its digits, and puts each entry behind those of the warps before it and its own before it. By one block, in one launch: a pass
// over 32,768 rows is some 60 instructions for each of a warp's 32 rounds, twice, 20 us; sorted on the host, where the device
// waits for it between two steps, they take 1 to 2 ms. At 2^20 rows it is 1 ms of a step of a second or more.
constexpr int DIGITS = 256, SORTERS = 32;

// The bit set of lanes with the same digit; all lanes call, and those not `here` match none.
__device__ __forceinline__ unsigned same_digit(unsigned digit, bool here) {
  unsigned same = __ballot_sync(ALL_LANES, here);
#pragma unroll
  for (int bit = 0; bit < 8; bit++) {
    const bool one = digit >> bit & 1;
    const unsigned ones = __ballot_sync(ALL_LANES, one);
    same &= one ? ones : ~ones;
  }
  return same;
}

// counts [SORTERS][DIGITS] become the places where each warp's first entry of each digit goes: digit by digit, and within a digit
// warp by warp. Thread t of 1024 has digit t / 4 of 8 warps.
__device__ __forceinline__ void counts_to_places(int (&counts)[SORTERS][DIGITS]) {
  __shared__ int of_warps[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, digit = threadIdx.x / 4, first = threadIdx.x % 4 * 8;
  int mine = 0;
#pragma unroll
  for (int w = 0; w < 8; w++) mine += counts[first + w][digit];
  int before = mine;  // and mine: what is above is taken off below
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int of_lower = __shfl_up_sync(ALL_LANES, before, step);
    if (lane >= step) before += of_lower;
  }
  if (lane == 31) of_warps[warp] = before;
  __syncthreads();
  before -= mine;
  for (int w = 0; w < warp; w++) before += of_warps[w];
#pragma unroll
  for (int w = 0; w < 8; w++) {
    const int count = counts[first + w][digit];
    counts[first + w][digit] = before;
    before += count;
  }
  __syncthreads();
}

// ids [n], sorted by their lowest 8 * passes bits. The result is in `one` after an odd number of passes, else in `other`; n
// entries each. One block of 1024 threads.
KERNEL __launch_bounds__(1024, 1) sort_rows(const unsigned* ids, u64* one, u64* other, int n, int passes) {
  __shared__ int places[SORTERS][DIGITS];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int each = (n + 32 * SORTERS - 1) / (32 * SORTERS) * 32;
  const int first = min(warp * each, n), end = min(first + each, n);
  for (int pass = 0; pass < passes; pass++) {
    const u64* from = pass % 2 ? one : other;
    u64* to = pass % 2 ? other : one;
    const int shift = 32 + 8 * pass;
    auto entry = [&](int i) { return pass == 0 ? u64(ids[i]) << 32 | unsigned(i) : from[i]; };
    for (int i = threadIdx.x; i < SORTERS * DIGITS; i += blockDim.x) places[i / DIGITS][i % DIGITS] = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = first + lane; i < end; i += 32) atomicAdd(&places[warp][entry(i) >> shift & 255], 1);
    __syncthreads();
    counts_to_places(places);
#pragma unroll 2
    for (int start = first; start < end; start += 32) {
      const bool here = start + lane < end;
      const u64 mine = here ? entry(start + lane) : 0;
      const unsigned digit = unsigned(mine >> shift) & 255u, same = same_digit(digit, here);
      const int before = __popc(same & ((1u << lane) - 1u));
      const int place = here ? places[warp][digit] : 0;
      __syncwarp();
      if (here && before == 0) places[warp][digit] = place + __popc(same);
      if (here) to[place + before] = mine;
      __syncwarp();
    }
    __syncthreads();
  }
}

// The first place after k of another id: by steps that double, then by halves, since most ids are there once and some often.
__device__ __forceinline__ int end_of_id(const u64* sorted, int k, int n, unsigned id) {
  int step = 1;
  while (k + step < n && unsigned(sorted[k + step] >> 32) == id) step *= 2;
  int low = k + step / 2, high = min(k + step, n);
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (unsigned(sorted[middle] >> 32) == id) low = middle;
    else high = middle;
  }
  return high;
}

// dtable[id] += the sum of the rows of dout that hold it. Each place of `sorted` where a new id begins stands for it. Rows of
// `padding`, and those whose id is ignored, go nowhere.
template <int N>
__device__ __forceinline__ void embed_gradients(const u64* sorted, const real* dout, float* dtable, int n, int c,
                                                unsigned padding) {
  over_rows<N>(n, c, [&](int k, int i) {
    const unsigned id = unsigned(sorted[k] >> 32);
    if (id == padding || id == IGNORED) return;
    if (k > 0 && unsigned(sorted[k - 1] >> 32) == id) return;
    const int count = end_of_id(sorted, k, n, id) - k;
    float* to = dtable + i64(id) * c + i;
    float sum[N];
    load(to, sum);
    add_rows(sum, dout, c, i, count, [&](int at) { return i64(unsigned(sorted[k + at])); });
    store(to, sum);
  });
}

KERNEL embed_backward(const u64* sorted, const real* dout, float* dtable, int n, int c, int padding) {
  const bool wide = c % WIDTH == 0 && aligned(dout) && aligned(dtable);
  if (wide) embed_gradients<WIDTH>(sorted, dout, dtable, n, c, unsigned(padding));
  else embed_gradients<1>(sorted, dout, dtable, n, c, unsigned(padding));
}

// dpositions [context, c]: row first + t is the sum over the batch of dout[b * tokens + t]; all others are zero.
template <int N>
__device__ __forceinline__ void position_gradients(const real* dout, float* dpositions, int batch, int tokens,
                                                   int context, int first, int c) {
  over_rows<N>(context, c, [&](int row, int i) {
    const int t = row - first;
    float sum[N] = {};
    if (t >= 0 && t < tokens) add_rows(sum, dout, c, i, batch, [&](int b) { return i64(b) * tokens + t; });
    store(dpositions + i64(row) * c + i, sum);
  });
}

KERNEL positions_backward(const real* dout, float* dpositions, int batch, int tokens, int context, int first,
                          int c) {
  const bool wide = c % WIDTH == 0 && aligned(dout) && aligned(dpositions);
  if (wide) position_gradients<WIDTH>(dout, dpositions, batch, tokens, context, first, c);
  else position_gradients<1>(dout, dpositions, batch, tokens, context, first, c);
}

EXPORT(embed)
EXPORT(sort_rows)
EXPORT(embed_backward)
EXPORT(positions_backward)

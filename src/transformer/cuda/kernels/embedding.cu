// Rows out of the embedding tables, and gradients back into them. No arithmetic but the additions: bound by memory.
//
// embed: n rows of c: reads a row of the table (and one of positions, which the cache holds after the first sequence), writes
// one: 4 (6) bytes a number with bf16, 8 (12) with f32; n * c additions with positions.
// embed_backward: reads each row of dout once, reads and writes each row of the table's gradient that occurs once.
// positions_backward: reads dout once, writes [context, c] f32.
//
// Gradients are summed in the order of the rows by one thread a column: the same bits every time, no atomics.
#include "common.h"

// out [n, c]: row r is table[ids[r]] (+ positions[*first + r % tokens]).
template <int N>
__device__ __forceinline__ void embed_rows(const unsigned* ids, const real* table, const real* positions, real* out,
                                           int n, int tokens, int c, int first) {
  over_rows<N>(n, c, [&](int r, int i) {
    float row[N];
    load(table + i64(ids[r]) * c + i, row);
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

// dtable[ids[k]] += the sum of the rows of dout that hold it: rows[starts[k]..starts[k + 1]], for `distinct` ids.
template <int N>
__device__ __forceinline__ void embed_gradients(const unsigned* ids, const int* starts, const int* rows,
                                                const real* dout, float* dtable, int distinct, int c) {
  over_rows<N>(distinct, c, [&](int k, int i) {
    const int start = starts[k], count = starts[k + 1] - start;
    float* to = dtable + i64(ids[k]) * c + i;
    float sum[N];
    load(to, sum);
    add_rows(sum, dout, c, i, count, [&](int at) { return i64(rows[start + at]); });
    store(to, sum);
  });
}

KERNEL embed_backward(const unsigned* ids, const int* starts, const int* rows, const real* dout, float* dtable,
                      int distinct, int c) {
  const bool wide = c % WIDTH == 0 && aligned(dout) && aligned(dtable);
  if (wide) embed_gradients<WIDTH>(ids, starts, rows, dout, dtable, distinct, c);
  else embed_gradients<1>(ids, starts, rows, dout, dtable, distinct, c);
}

// dpositions [context, c]: row t is the sum over the batch of dout[b * tokens + t]; zero from `tokens` on.
template <int N>
__device__ __forceinline__ void position_gradients(const real* dout, float* dpositions, int batch, int tokens,
                                                   int context, int c) {
  over_rows<N>(context, c, [&](int t, int i) {
    float sum[N] = {};
    if (t < tokens) add_rows(sum, dout, c, i, batch, [&](int b) { return i64(b) * tokens + t; });
    store(dpositions + i64(t) * c + i, sum);
  });
}

KERNEL positions_backward(const real* dout, float* dpositions, int batch, int tokens, int context, int c) {
  const bool wide = c % WIDTH == 0 && aligned(dout) && aligned(dpositions);
  if (wide) position_gradients<WIDTH>(dout, dpositions, batch, tokens, context, c);
  else position_gradients<1>(dout, dpositions, batch, tokens, context, c);
}

EXPORT(embed)
EXPORT(embed_backward)
EXPORT(positions_backward)

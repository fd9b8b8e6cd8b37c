// What the products of groups of rows share: which rows, of which expert, and which columns a block has. An expert's weights are
// w[e] [m, k], as a linear layer's; groups are what group_rows of experts.cu makes.
//
// A launch has a block for every tile of rows that there may be, whatever the routing: rows / tile + E, and those beyond what there
// is end at once.
#pragma once
#include "common.h"

// Tiles of rows that blocks take together before the next columns: a wave of 264 blocks then reads 8 tiles of rows and 33 of weights,
// not one of these and all of those, whichever is the larger.
constexpr int TOGETHER = 8;

struct Stretch {
  int expert, first, count, column;
};

// What the block has of `columns` columns, COLUMNS at a time; expert -1 for nothing. Before anything else: kernels begin early (common.h),
// and which weights they read hangs on what was computed before.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ Stretch stretch_of_block(const int* starts, const int2* tiles, int most, int columns) {
  let_next_begin();
  wait_for_before();
  const int across = (columns + COLUMNS - 1) / COLUMNS, together = across * TOGETHER;
  const int within = int(blockIdx.x) % together, tile = int(blockIdx.x) / together * TOGETHER + within % TOGETHER;
  const int2 at = tile < most ? tiles[tile] : make_int2(-1, 0);
  const int end = at.x < 0 ? 0 : starts[at.x + 1];
  return {at.x, at.y, min(end - at.y, ROWS), within / TOGETHER * COLUMNS};
}

// Which tile of which head a block works on, and in which order blocks start.
//
// Grid: (heads, tiles, sequences). Blocks start in the order of their index, x first: all heads of a sequence with their
// first tile, then with their second. Where attention is causal, tiles differ in length from one step to as many as there
// are, and the longest come first, so that what runs last is short. Were heads taken one after another instead, each with its tiles,
// the last head's longest tile would start among the last. Blocks' steps, handed out one by one to 132 multiprocessors:
//   T 4096, 8 heads of keys, dkv       256 blocks: the whole takes 1.57 times its work shared out evenly; here 1.00
//   B 4, T 2048, 8 heads of keys       512 blocks: 1.28, here 1.03
//   T 4096, 32 heads                  1024 blocks: 1.13, here 1.01
// The blocks of a head that run at once are then fewer, and read their keys from memory as often as they must: at D = 128 a
// block of 128 queries does 128 FLOPs for a byte of keys and values, and 132 blocks have 4 of each of 32 heads at work.
#pragma once
#include "common.h"

// The tile of a block that holds queries: the last, which see the most keys, first.
__device__ __forceinline__ int query_tile(int causal) { return causal ? gridDim.y - 1 - blockIdx.y : blockIdx.y; }
// The tile of a block that holds keys: the first, which the most queries see, first.
__device__ __forceinline__ int key_tile() { return blockIdx.y; }

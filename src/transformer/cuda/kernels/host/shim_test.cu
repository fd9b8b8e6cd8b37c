// Kernels that do what they must not, and a few that must come out right, for the tests of the shim itself.
#include "common.h"

KERNEL write_at(float* to, i64 index) { to[index + threadIdx.x] = 1.0f; }
EXPORT(write_at)

KERNEL read_at(const float* from, float* to, i64 index) { to[threadIdx.x] = from[index + threadIdx.x]; }
EXPORT(read_at)

KERNEL misaligned(float* to, i64 index) {
  *reinterpret_cast<float4*>(to + index) = make_float4(1.0f, 2.0f, 3.0f, 4.0f);
}
EXPORT(misaligned)

KERNEL past_shared(float* to, int count) {
  SHARED_BUFFER(float, shared);
  for (int i = threadIdx.x; i < count; i += blockDim.x) shared[i] = 1.0f;
  __syncthreads();
  to[0] = shared[0];
}
EXPORT(past_shared)

KERNEL past_static(float* to, int index) {
  __shared__ float table[8];
  table[index] = float(threadIdx.x);
  to[0] = table[index];
}
EXPORT(past_static)

KERNEL end_early(float* to, int who) {
  if (int(threadIdx.x) == who) return;
  __syncthreads();
  to[threadIdx.x] = 1.0f;
}
EXPORT(end_early)

KERNEL wait_apart(float* to) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  to[threadIdx.x] = 1.0f;
}
EXPORT(wait_apart)

KERNEL shuffle_apart(float* to) {
  float x = 1.0f;
  if (threadIdx.x != 5) x = __shfl_xor_sync(ALL_LANES, x, 1);
  __syncthreads();
  to[threadIdx.x] = x;
}
EXPORT(shuffle_apart)

// Every shuffle of the shim on the lane's number; `to` is [8, 32].
KERNEL shuffles(int* to) {
  int lane = threadIdx.x;
  to[lane] = __shfl_sync(ALL_LANES, lane, 7);
  to[32 + lane] = __shfl_sync(ALL_LANES, lane, 3, 8);
  to[64 + lane] = __shfl_xor_sync(ALL_LANES, lane, 5);
  to[96 + lane] = __shfl_down_sync(ALL_LANES, lane, 4);
  to[128 + lane] = __shfl_up_sync(ALL_LANES, lane, 4);
  to[160 + lane] = int(__ballot_sync(ALL_LANES, lane % 3 == 0));
  if (lane < 16) to[192 + lane] = __shfl_xor_sync(0xffffu, lane, 1);
  __syncwarp();
  to[224 + lane] = __any_sync(ALL_LANES, lane == 9) && __all_sync(ALL_LANES, lane < 32);
}
EXPORT(shuffles)

// Each block's sum and largest of its threads' elements, by common.h.
KERNEL reductions(const float* from, float* to) {
  float x = from[blockIdx.x * blockDim.x + threadIdx.x];
  float sum = block_sum(x), largest = block_max(x), again = block_sum(x);
  if (threadIdx.x == 0) {
    to[3 * blockIdx.x] = sum;
    to[3 * blockIdx.x + 1] = largest;
    to[3 * blockIdx.x + 2] = again;
  }
}
EXPORT(reductions)

// A reversal through shared memory; without the barrier it reads what is not yet there.
KERNEL reverse(float* x, int barrier) {
  SHARED_BUFFER(float, shared);
  unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
  shared[threadIdx.x] = x[at];
  if (barrier) __syncthreads();
  x[at] = shared[blockDim.x - 1 - threadIdx.x];
}
EXPORT(reverse)

// Bits of every bf16 and of the pair with one.
KERNEL round_to_bf16(const float* from, unsigned* to, int len) {
  for (int i = threadIdx.x; i < len; i += blockDim.x) to[i] = to_bf16_pair(from[i], 1.0f);
}
EXPORT(round_to_bf16)

// Which experts each token goes to, by its logits, and the gradient of that choice; a warp a token.
//
// Bytes: the logits [n, E] once, f32, and K words each of choices and weights a token; a few instructions a logit and a choice: small
// beside the experts themselves, and beside the product that makes the logits. A lane holds every 32nd logit in registers.
#include "common.h"

// Experts of a layer that a warp holds.
constexpr int MOST_EXPERTS = 512, HELD = MOST_EXPERTS / 32;

// A row's logits as e^(l - max), and their sum.
struct Softmax {
  float logits[HELD], largest, total;

  __device__ __forceinline__ Softmax(const float* row, int experts) {
    const int lane = threadIdx.x % 32;
    largest = -INFINITE;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      logits[i] = lane + 32 * i < experts ? row[lane + 32 * i] : -INFINITE;
      largest = fmaxf(largest, logits[i]);
    }
    largest = warp_max(largest);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < HELD; i++) sum += weight(i);
    total = warp_sum(sum);
  }
  // Of this lane's i-th logit, before it is divided by the total.
  __device__ __forceinline__ float weight(int i) const { return logits[i] == -INFINITE ? 0.0f : expf(logits[i] - largest); }
  // Of any.
  __device__ __forceinline__ float weight_of(float logit) const { return expf(logit - largest); }
};

struct Candidate {
  float logit;
  unsigned expert;
};

// The larger, of equals the first; what is not a number is never larger.
__device__ __forceinline__ Candidate better(Candidate a, Candidate b) {
  return b.logit > a.logit || (b.logit == a.logit && b.expert < a.expert) ? b : a;
}

// The best of a warp's, in every lane.
__device__ __forceinline__ Candidate warp_best(Candidate mine) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    Candidate other;
    other.logit = __shfl_xor_sync(ALL_LANES, mine.logit, step);
    other.expert = __shfl_xor_sync(ALL_LANES, mine.expert, step);
    mine = better(mine, other);
  }
  return mine;
}

// chosen [n, K]: of each row of logits [n, E] the K largest, the first of equals first; weights [n, K]: their shares of the softmax,
// or, `normalised`, of its sum over them. K <= E <= 512. Threads: a multiple of 32; a warp takes every so many rows.
KERNEL route(const float* logits, unsigned* chosen, float* weights, int n, int experts, int k, int normalised) {
  let_next_begin();
  wait_for_before();
  const int lane = threadIdx.x % 32, warps = gridDim.x * (blockDim.x / 32);
  for (int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < n; row += warps) {
    const float* of_row = logits + i64(row) * experts;
    const Softmax p(of_row, experts);
    unsigned taken = 0;
    float sum = 0.0f;
    for (int slot = 0; slot < k; slot++) {
      Candidate mine = {-INFINITE, 0xffffffffu};
#pragma unroll
      for (int i = 0; i < HELD; i++) {
        if (lane + 32 * i < experts && !(taken >> i & 1)) mine = better(mine, {p.logits[i], unsigned(lane + 32 * i)});
      }
      // Where no logit is a number, there is no best.
      const unsigned expert = min(warp_best(mine).expert, unsigned(experts - 1));
      if (expert % 32 == unsigned(lane)) taken |= 1u << expert / 32;
      const float weight = p.weight_of(of_row[expert]);
      sum += weight;
      if (lane == 0) chosen[i64(row) * k + slot] = expert, weights[i64(row) * k + slot] = weight;
    }
    __syncwarp();
    const float by = normalised ? sum : p.total;
    for (int slot = lane; slot < k; slot += 32) weights[i64(row) * k + slot] /= by;
    __syncwarp();
  }
}

// dlogits [n, E] from dweights [n, K]: a share p of the softmax gains p (g - mean), g being 0 for what was not chosen and mean the
// sum of p g over the chosen; `normalised`, shares are of the chosen alone, and the others gain nothing.
KERNEL route_backward(const float* logits, const unsigned* chosen, const float* dweights, float* dlogits, int n, int experts, int k,
                      int normalised) {
  let_next_begin();
  wait_for_before();
  const int lane = threadIdx.x % 32, warps = gridDim.x * (blockDim.x / 32);
  for (int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < n; row += warps) {
    const float* of_row = logits + i64(row) * experts;
    const Softmax p(of_row, experts);
    const unsigned* own = chosen + i64(row) * k;
    const float* gradient = dweights + i64(row) * k;
    float sum = 0.0f, along = 0.0f;
    for (int slot = lane; slot < k; slot += 32) {
      const float weight = p.weight_of(of_row[own[slot]]);
      sum += weight;
      along += weight * gradient[slot];
    }
    const float by = normalised ? warp_sum(sum) : p.total, mean = warp_sum(along) / by;
    float* to = dlogits + i64(row) * experts;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (lane + 32 * i < experts) to[lane + 32 * i] = normalised ? 0.0f : -(p.weight(i) / by) * mean;
    }
    // What is chosen is written after what all get.
    __syncwarp();
    for (int slot = lane; slot < k; slot += 32) {
      to[own[slot]] = p.weight_of(of_row[own[slot]]) / by * (gradient[slot] - mean);
    }
    __syncwarp();
  }
}

EXPORT(route)
EXPORT(route_backward)

// Which experts each token goes to, by its logits, and the gradient of that choice; a warp a token.
//
// Bytes: the logits [n, E] once, f32, and K words each of choices and weights a token; a few instructions a logit and a choice: small
// beside the experts themselves, and beside the product that makes the logits. A lane holds every 32nd logit in registers.
#include "best.h"

// Experts of a layer that a warp holds.
constexpr int MOST_EXPERTS = 512, HELD = MOST_EXPERTS / 32;

// Warps of a block, at the most.
constexpr int WARPS = 8;

// What a row's logits say of its experts, and what the shares are of: e^(l - max) and their sum, or sigmoids.
struct Scores {
  float logits[HELD], largest, total;
  bool sigmoid;

  __device__ __forceinline__ Scores(const float* row, int experts, bool sigmoid) : sigmoid(sigmoid) {
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
    total = sigmoid ? 1.0f : warp_sum(sum);
  }
  // Of this lane's i-th logit, before it is divided by the total.
  __device__ __forceinline__ float weight(int i) const { return logits[i] == -INFINITE ? 0.0f : weight_of(logits[i]); }
  // Of any.
  __device__ __forceinline__ float weight_of(float logit) const {
    return sigmoid ? 1.0f / (1.0f + expf(-logit)) : expf(logit - largest);
  }
};

// Of a row, the K experts with the largest keys, the first of equals first, by their places in `keys`, and their weights: shares of
// the total, or, `normalised`, of their sum, times `scale`.
__device__ __forceinline__ void choose(const float (&keys)[HELD], const Scores& p, const float* logits, unsigned* chosen,
                                       float* weights, int experts, int k, bool normalised, float scale) {
  const int lane = threadIdx.x % 32;
  unsigned taken = 0;
  float sum = 0.0f;
  for (int slot = 0; slot < k; slot++) {
    Best mine = {-INFINITE, 0xffffffffu};
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (lane + 32 * i < experts && !(taken >> i & 1)) mine = better(mine, {keys[i], unsigned(lane + 32 * i)});
    }
    // Where no key is a number, there is no best.
    const unsigned expert = min(warp_best(mine).index, unsigned(experts - 1));
    if (expert % 32 == unsigned(lane)) taken |= 1u << expert / 32;
    const float weight = p.weight_of(logits[expert]);
    sum += weight;
    if (lane == 0) chosen[slot] = expert, weights[slot] = weight;
  }
  __syncwarp();
  const float by = normalised ? sum : p.total;
  for (int slot = lane; slot < k; slot += 32) weights[slot] = weights[slot] / by * scale;
  __syncwarp();
}

// chosen [n, K]: of each row of logits [n, E] the K largest, the first of equals first; weights [n, K]: their shares of the softmax,
// or, `normalised`, of its sum over them. K <= E <= 512. Threads: a multiple of 32; a warp takes every so many rows.
KERNEL route(const float* logits, unsigned* chosen, float* weights, int n, int experts, int k, int normalised) {
  let_next_begin();
  wait_for_before();
  const int warps = gridDim.x * (blockDim.x / 32);
  for (int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < n; row += warps) {
    const float* of_row = logits + i64(row) * experts;
    const Scores p(of_row, experts, false);
    choose(p.logits, p, of_row, chosen + i64(row) * k, weights + i64(row) * k, experts, k, normalised, 1.0f);
  }
}

// What a group of experts is chosen by: its largest key, or its two largest together.
__device__ __forceinline__ float group_key(const float* keys, int each, bool of_two) {
  float first = -INFINITE, second = -INFINITE;
  for (int i = 0; i < each; i++) {
    const float key = keys[i];
    if (key > first) second = first, first = key;
    else second = fmaxf(second, key);
  }
  return of_two && each > 1 ? first + second : first;
}

// Takes all experts but those of the best groups out of `keys`, which lie in `row` as well.
__device__ __forceinline__ void keep_groups(float (&keys)[HELD], float* row, int experts, int groups, int groups_per_token,
                                            bool of_two) {
  const int lane = threadIdx.x % 32, each = experts / groups;
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    if (lane + 32 * i < experts) row[lane + 32 * i] = keys[i];
  }
  __syncwarp();
  float of_groups[HELD];
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    of_groups[i] = lane + 32 * i < groups ? group_key(row + (lane + 32 * i) * each, each, of_two) : -INFINITE;
  }
  unsigned taken = 0, kept = 0;
  for (int slot = 0; slot < groups_per_token; slot++) {
    Best mine = {-INFINITE, 0xffffffffu};
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (lane + 32 * i < groups && !(taken >> i & 1)) mine = better(mine, {of_groups[i], unsigned(lane + 32 * i)});
    }
    const unsigned group = min(warp_best(mine).index, unsigned(groups - 1));
    if (group % 32 == unsigned(lane)) taken |= 1u << group / 32;
    const int first = int(group) * each;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (lane + 32 * i >= first && lane + 32 * i < first + each) kept |= 1u << i;
    }
  }
#pragma unroll
  for (int i = 0; i < HELD; i++) {
    if (!(kept >> i & 1)) keys[i] = -INFINITE;
  }
}

// route by a rule: scores are shares of a softmax or sigmoids; `correction` [E], unless null, is added to them where experts are
// chosen, and not where they are weighed; of `groups` of neighbouring experts, the best `groups_per_token` are chosen first, by the
// sum of their two best where there is a correction; weights are multiplied by `scale`. At most 256 threads.
KERNEL route_by(const float* logits, const float* correction, unsigned* chosen, float* weights, int n, int experts, int k,
                int normalised, int sigmoid, int groups, int groups_per_token, float scale) {
  __shared__ float rows[WARPS][MOST_EXPERTS];
  let_next_begin();
  wait_for_before();
  const int lane = threadIdx.x % 32, warps = gridDim.x * (blockDim.x / 32);
  for (int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < n; row += warps) {
    const float* of_row = logits + i64(row) * experts;
    const Scores p(of_row, experts, sigmoid);
    float keys[HELD];
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      // The softmax's order is that of the logits, which have fewer equals.
      keys[i] = sigmoid || correction ? p.weight(i) / p.total : p.logits[i];
      if (correction && lane + 32 * i < experts) keys[i] += correction[lane + 32 * i];
    }
    if (groups_per_token < groups) keep_groups(keys, rows[threadIdx.x / 32], experts, groups, groups_per_token, correction);
    choose(keys, p, of_row, chosen + i64(row) * k, weights + i64(row) * k, experts, k, normalised, scale);
  }
}

// dlogits [n, E] from dweights [n, K], which are multiplied by `scale` first. A share p of the softmax gains p (g - mean), g being 0
// for what was not chosen and mean the sum of p g over the chosen; `normalised`, shares are of the chosen alone, and the others gain
// nothing. A sigmoid s gains s (1 - s) g; `normalised`, with shares p of the chosen, p (1 - s) (g - mean).
KERNEL route_backward(const float* logits, const unsigned* chosen, const float* dweights, float* dlogits, int n, int experts, int k,
                      int normalised, int sigmoid, float scale) {
  let_next_begin();
  wait_for_before();
  const int lane = threadIdx.x % 32, warps = gridDim.x * (blockDim.x / 32);
  for (int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; row < n; row += warps) {
    const float* of_row = logits + i64(row) * experts;
    const Scores p(of_row, experts, sigmoid);
    const unsigned* own = chosen + i64(row) * k;
    const float* gradient = dweights + i64(row) * k;
    float sum = 0.0f, along = 0.0f;
    for (int slot = lane; slot < k; slot += 32) {
      const float weight = p.weight_of(of_row[own[slot]]);
      sum += weight;
      along += weight * gradient[slot];
    }
    const float by = normalised ? warp_sum(sum) : p.total, mean = warp_sum(along) * scale / by;
    // What the others lose by a share that they are not of, and a chosen one by its own sum.
    const bool alone = normalised || sigmoid;
    const float lost = sigmoid && !normalised ? 0.0f : mean;
    float* to = dlogits + i64(row) * experts;
#pragma unroll
    for (int i = 0; i < HELD; i++) {
      if (lane + 32 * i < experts) to[lane + 32 * i] = alone ? 0.0f : -(p.weight(i) / by) * mean;
    }
    // What is chosen is written after what all get.
    __syncwarp();
    for (int slot = lane; slot < k; slot += 32) {
      const float weight = p.weight_of(of_row[own[slot]]);
      to[own[slot]] = weight / by * (sigmoid ? 1.0f - weight : 1.0f) * (gradient[slot] * scale - lost);
    }
    __syncwarp();
  }
}

EXPORT(route)
EXPORT(route_by)
EXPORT(route_backward)

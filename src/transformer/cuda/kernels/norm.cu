// LayerNorm and RMSNorm over the last dimension, and their gradients.
//
// Bytes per number, bf16 (f32 twice as many): norm_forward reads x and writes out, 4; norm_backward reads x, dout
// and dx and writes dx, 8, and a block writes 8 bytes a column of partial sums. Gains, biases and statistics are a row's or a
// column's worth. 5 to 15 FLOPs an element: bound by memory.
//
// The backward pass has few warps a multiprocessor, 8 or 16, for the sums that they hold. Its bound on an H100 (3.35 TB/s: 14.5
// bytes a clock for each multiprocessor; 1000 clocks until memory answers; instructions as counted in the machine code):
//   c = 768, bf16     8 rows move 49 KB, 3390 clocks; a row's wait and instructions, 650 of each warp, take 2300
//   c = 4096, bf16    2 rows move 66 KB, 4520 clocks; a row's wait and instructions, 650 of each warp, take 3600
// The next row's elements, asked for early, would take registers that f32 rows do not have (they spill), for a wait that the
// other warps' reading covers.
//
// A row of up to 1024 elements is a warp's, a longer one a block's, so that all of it is held in registers between the passes
// over it: mean, variance, result. What is longer still is read again in each pass, from caches at best.
//
// Variance is the mean of squares of what is left after the mean is taken off (two passes, in registers), as in the oracle:
// E[x^2] - E[x]^2 loses its digits where the mean is large.
#include "common.h"

// A row's team: a warp, or the block. Each member holds elements `at(j)..at(j) + N`, j < HELD, in registers.
template <int N, int HELD, bool WHOLE>
struct Team {
  int members, me;

  __device__ __forceinline__ Team() : members(WHOLE ? blockDim.x : 32), me(WHOLE ? threadIdx.x : threadIdx.x % 32) {}
  __device__ __forceinline__ int at(int j) const { return (j * members + me) * N; }
  __device__ __forceinline__ float sum(float x) const { return WHOLE ? block_sum(x) : warp_sum(x); }
  // The first row, and how far the next one is.
  __device__ __forceinline__ int first() const {
    return WHOLE ? blockIdx.x : (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  }
  __device__ __forceinline__ int step() const { return WHOLE ? gridDim.x : gridDim.x * blockDim.x / 32; }

  // f(j, column) for what this member holds of a row of c; g(column) for its columns past that.
  template <class F>
  __device__ __forceinline__ void over_held(int c, F f) const {
#pragma unroll
    for (int j = 0; j < HELD; j++) {
      if (at(j) < c) f(j, at(j));
    }
  }
  template <class G>
  __device__ __forceinline__ void over_rest(int c, G g) const {
#pragma unroll 1
    for (int i = at(HELD); i < c; i += members * N) g(i);
  }
};

// Vectors of 16 bytes that a thread holds: 32 elements of a warp's 1024, 16 of a block's (512 threads hold 8192). Rows that are
// not vectors are for correctness alone.
constexpr int OF_WARP = 32 / WIDTH, OF_BLOCK = 16 / WIDTH, SINGLE = 4;

// Elements as they lie in memory: fewer registers than their f32 take.
template <int N>
struct Raw {
  static_assert(N == WIDTH);
  uint4 bits;
  __device__ __forceinline__ void get(const real* p) { bits = *reinterpret_cast<const uint4*>(p); }
  __device__ __forceinline__ void to(float (&v)[N]) const {
    const unsigned words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (N == 4) v[i] = __uint_as_float(words[i]);
      else unpack(words[i], v + 2 * i);
    }
  }
};
template <>
struct Raw<1> {
  real number;
  __device__ __forceinline__ void get(const real* p) { number = *p; }
  __device__ __forceinline__ void to(float (&v)[1]) const { v[0] = to_float(number); }
};

// stats[2 r], stats[2 r + 1] = mean and rstd of row r of x; out = (x - mean) * rstd * (offset + gain) (+ bias).
template <int N, int HELD, bool WHOLE>
__device__ __forceinline__ void norm_rows(const real* x, const real* gain, const real* bias, real* out, float* stats,
                                          int n, int c, float eps, float offset, bool rms) {
  const Team<N, HELD, WHOLE> team;
  for (int r = team.first(); r < n; r += team.step()) {
    const i64 start = i64(r) * c;
    float held[HELD][N], total = 0.0f;
    const auto get = [&](float (&v)[N], int i) { load(x + start + i, v); };
    const auto add = [&](const float (&v)[N]) {
#pragma unroll
      for (int k = 0; k < N; k++) total += v[k];
    };
    const auto add_squares = [&](const float (&v)[N], float mean) {
#pragma unroll
      for (int k = 0; k < N; k++) total += (v[k] - mean) * (v[k] - mean);
    };
    const auto finish = [&](const float (&v)[N], float mean, float rstd, int i) {
      float g[N], result[N] = {};
      load(gain + i, g);
      if (bias) load(bias + i, result);
#pragma unroll
      for (int k = 0; k < N; k++) result[k] += (v[k] - mean) * rstd * (offset + g[k]);
      store(out + start + i, result);
    };

    team.over_held(c, [&](int j, int i) { get(held[j], i); });
    team.over_held(c, [&](int j, int) { add(held[j]); });
    team.over_rest(c, [&](int i) {
      float v[N];
      get(v, i);
      add(v);
    });
    const float mean = rms ? 0.0f : team.sum(total) / float(c);

    total = 0.0f;
    team.over_held(c, [&](int j, int) { add_squares(held[j], mean); });
    team.over_rest(c, [&](int i) {
      float v[N];
      get(v, i);
      add_squares(v, mean);
    });
    const float rstd = rsqrtf(team.sum(total) / float(c) + eps);

    team.over_held(c, [&](int j, int i) { finish(held[j], mean, rstd, i); });
    team.over_rest(c, [&](int i) {
      float v[N];
      get(v, i);
      finish(v, mean, rstd, i);
    });
    if (team.me == 0) {
      stats[2 * i64(r)] = mean;
      stats[2 * i64(r) + 1] = rstd;
    }
  }
}

__device__ __forceinline__ bool wide_rows(int c, const void* a, const void* b, const void* d, const void* e) {
  return c % WIDTH == 0 && aligned(a) && aligned(b) && aligned(d) && aligned(e);
}

// Threads: any where a row is a warp's; at most 512 where it is a block's (`whole`).
KERNEL __launch_bounds__(512, 1) norm_forward(const real* x, const real* gain, const real* bias, real* out, float* stats, int n,
                                           int c, float eps, float offset, int rms, int whole) {
  const bool wide = wide_rows(c, x, gain, bias, out);
  if (wide && whole) norm_rows<WIDTH, OF_BLOCK, true>(x, gain, bias, out, stats, n, c, eps, offset, rms);
  else if (wide) norm_rows<WIDTH, OF_WARP, false>(x, gain, bias, out, stats, n, c, eps, offset, rms);
  else if (whole) norm_rows<1, SINGLE, true>(x, gain, bias, out, stats, n, c, eps, offset, rms);
  else norm_rows<1, SINGLE, false>(x, gain, bias, out, stats, n, c, eps, offset, rms);
}

// dx += rstd * (g - mean(g) - hat * mean(g hat)), g = dout * (offset + gain), hat = (x - mean) * rstd; without mean(g) for
// RMSNorm. The sums over a block's rows of dout * hat and of dout go to partial[block] [2, c].
//
// A thread has the same columns of each of its rows, so that it adds up those sums in registers; columns that are not held
// are added up in `partial` itself, by their one thread. Warps are added in shared memory, [2, c] of it, where rows are
// a warp's, which must then hold all of a row.
template <int N, int HELD, bool WHOLE>
__device__ __forceinline__ void backward_rows(const real* x, const real* gain, const float* stats, const real* dout,
                                              real* dx, float* partial, int n, int c, float offset, bool rms) {
  const Team<N, HELD, WHOLE> team;
  partial += i64(blockIdx.x) * 2 * c;
  float of_gain[HELD][N] = {}, of_bias[HELD][N] = {};
  team.over_rest(c, [&](int i) {
    const float zeros[N] = {};
    store(partial + i, zeros);
    store(partial + c + i, zeros);
  });
  for (int r = team.first(); r < n; r += team.step()) {
    const i64 start = i64(r) * c;
    const float mean = stats[2 * i64(r)], rstd = stats[2 * i64(r) + 1];
    float hat[HELD][N], g[HELD][N], sum_g = 0.0f, sum_gh = 0.0f;
    // dx is only needed at the end, but asked for now: one wait for memory a row, not two.
    Raw<N> held_dx[HELD];
    team.over_held(c, [&](int j, int i) {
      load(x + start + i, hat[j]);
      load(dout + start + i, g[j]);
      held_dx[j].get(dx + start + i);
    });
    // From x and dout to hat and g; on the way, all the sums.
    const auto gather = [&](float (&hat)[N], float (&g)[N], float (&to_gain)[N], float (&to_bias)[N], int i) {
      float w[N];
      load(gain + i, w);
#pragma unroll
      for (int k = 0; k < N; k++) {
        hat[k] = (hat[k] - mean) * rstd;
        to_gain[k] += g[k] * hat[k];
        to_bias[k] += g[k];
        g[k] *= offset + w[k];
        sum_g += g[k];
        sum_gh += g[k] * hat[k];
      }
    };
    team.over_held(c, [&](int j, int i) { gather(hat[j], g[j], of_gain[j], of_bias[j], i); });
    team.over_rest(c, [&](int i) {
      float h[N], d[N], to_gain[N], to_bias[N];
      load(x + start + i, h);
      load(dout + start + i, d);
      load(partial + i, to_gain);
      load(partial + c + i, to_bias);
      gather(h, d, to_gain, to_bias, i);
      store(partial + i, to_gain);
      store(partial + c + i, to_bias);
    });
    const float mean_g = rms ? 0.0f : team.sum(sum_g) / float(c);
    const float mean_gh = team.sum(sum_gh) / float(c);
    const auto scatter = [&](const float (&hat)[N], const float (&g)[N], const Raw<N>& before, int i) {
      float to[N];
      before.to(to);
#pragma unroll
      for (int k = 0; k < N; k++) to[k] += rstd * (g[k] - mean_g - hat[k] * mean_gh);
      store(dx + start + i, to);
    };
    team.over_held(c, [&](int j, int i) { scatter(hat[j], g[j], held_dx[j], i); });
    team.over_rest(c, [&](int i) {
      float h[N], d[N], w[N];
      load(x + start + i, h);
      load(dout + start + i, d);
      load(gain + i, w);
#pragma unroll
      for (int k = 0; k < N; k++) h[k] = (h[k] - mean) * rstd, d[k] *= offset + w[k];
      Raw<N> before;
      before.get(dx + start + i);
      scatter(h, d, before, i);
    });
  }
  if constexpr (WHOLE) {
    team.over_held(c, [&](int j, int i) {
      store(partial + i, of_gain[j]);
      store(partial + c + i, of_bias[j]);
    });
  } else {
    // The warps add up one after another: the order is the same every time.
    SHARED_BUFFER(float, sums);
    for (unsigned w = 0; w < blockDim.x / 32; w++) {
      if (threadIdx.x / 32 == w) {
        team.over_held(c, [&](int j, int i) {
#pragma unroll
          for (int k = 0; k < N; k++) {
            sums[i + k] = (w ? sums[i + k] : 0.0f) + of_gain[j][k];
            sums[c + i + k] = (w ? sums[c + i + k] : 0.0f) + of_bias[j][k];
          }
        });
      }
      __syncthreads();
    }
    for (int i = threadIdx.x; i < 2 * c; i += blockDim.x) partial[i] = sums[i];
  }
}

// A row a warp: c is at most 1024, a multiple of WIDTH, and everything is aligned. Threads: 128.
KERNEL __launch_bounds__(128, 2) norm_backward(const real* x, const real* gain, const float* stats, const real* dout,
                                               real* dx, float* partial, int n, int c, float offset, int rms) {
  backward_rows<WIDTH, OF_WARP, false>(x, gain, stats, dout, dx, partial, n, c, offset, rms);
}

// A row a block. Threads: at most 512.
KERNEL __launch_bounds__(512, 1) norm_backward_block(const real* x, const real* gain, const float* stats, const real* dout,
                                                  real* dx, float* partial, int n, int c, float offset, int rms) {
  const bool wide = wide_rows(c, x, gain, dout, dx) && aligned(partial);
  if (wide) backward_rows<WIDTH, OF_BLOCK, true>(x, gain, stats, dout, dx, partial, n, c, offset, rms);
  else backward_rows<1, SINGLE, true>(x, gain, stats, dout, dx, partial, n, c, offset, rms);
}

// dgain [c] and, where wanted, dbias [c] = the sums of partial [blocks, 2, c]. Threads: 1024. Grid: 2 c / 32.
KERNEL norm_backward_sum(const float* partial, float* dgain, float* dbias, int blocks, int c) {
  const i64 first = i64(blockIdx.x) * 32, i = first + threadIdx.x;
  const float sum = sum_of_columns(partial, blocks, 2 * i64(c), first, [&](int r) { return r * 2 * i64(c); });
  if (threadIdx.x >= 32) return;
  if (i < c) dgain[i] = sum;
  else if (i < 2 * i64(c) && dbias) dbias[i - c] = sum;
}

EXPORT(norm_forward)
EXPORT(norm_backward)
EXPORT(norm_backward_block)
EXPORT(norm_backward_sum)

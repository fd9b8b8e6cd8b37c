// Products of four warps together (wgmma) and what they need: descriptors of tiles in shared memory, fences, groups. Only
// for compute capability 9.0 with its own features (sm_90a). On the host, products are done when they are waited for, over
// what is then in shared memory and in the factors' registers, so that a missing wait and a tile overwritten too early
// show.
//
// Layouts: PTX ISA, "Asynchronous warpgroup-level matrix multiply-accumulate". Rows 16 w .. + 16 of a product are warp w's,
// in the register layout of m16n8k16 (tensor_cores.h): of the result, and of the left factor where that is in registers. In
// shared memory, a panel is [rows, 64]: rows of 128 bytes, whose 16-byte chunks are exchanged by chunk ^= row % 8 (the
// swizzle of 128 bytes); a panel starts at a multiple of 1024 bytes. Two descriptions of the same panel:
//   as rows     a row is a row of the left factor, or a column of the right one; the inner dimension runs along it
//   as inner    the rows are the inner dimension; the right factor's columns run along them, or the left one's rows, 64 in a panel
#pragma once
#include "attention_tiles.h"

#if defined(CENTIME_HOST) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define WARPGROUPS
#endif

#ifdef WARPGROUPS

#ifdef CENTIME_HOST
struct Descriptor {
  SharedAddress at;
  unsigned next_panel;
};

namespace emulated {

struct Issued {
  float* c;
  const unsigned* left;
  Descriptor a, b;
  int n;
  bool adds, a_inner, inner;
  int group;
};

// A thread's products under way, and how many groups it has closed.
struct Products {
  Issued all[64];
  int count, closed, pending;
};

static Products products[shim::MOST_THREADS];

static inline float element(SharedAddress at) {
  unsigned short bits;
  memcpy(&bits, reinterpret_cast<const void*>(at ^ (at >> 7 & 7) << 4), 2);
  return low_of_pair(bits);
}

static inline float right_element(const Issued& p, unsigned k, unsigned n) {
  if (p.inner) return element(p.b.at + n / 64 * p.b.next_panel + n % 64 * 2 + k * 128);
  return element(p.b.at + n * 128 + k * 2);
}

static void multiply(void** lanes, const int index) {
  const Issued& first = static_cast<Products*>(lanes[0])->all[index];
  const unsigned warp = threadIdx.x / 32 % 4;
  float a[16][16], b[16][256];
  for (unsigned lane = 0; lane < 32; lane++) {
    const Issued& p = static_cast<Products*>(lanes[lane])->all[index];
    if (p.b.at != first.b.at || p.n != first.n) shim::fail("wgmma: lanes differ in what they multiply");
    for (unsigned i = 0; i < 4 && p.left; i++) {
      for (unsigned e = 0; e < 2; e++) {
        a[lane / 4 + 8 * (i % 2)][2 * (lane % 4) + 8 * (i / 2) + e] = half_of(p.left[i], e);
      }
    }
  }
  for (unsigned k = 0; k < 16; k++) {
    for (unsigned row = 0; row < 16 && !first.left; row++) {
      const unsigned own = 16 * warp + row;
      a[row][k] = element(first.a.at + (first.a_inner ? own * 2 + k * 128 : own * 128 + k * 2));
    }
    for (int n = 0; n < first.n; n++) b[k][n] = right_element(first, k, unsigned(n));
  }
  for (unsigned lane = 0; lane < 32; lane++) {
    const Issued& p = static_cast<Products*>(lanes[lane])->all[index];
    for (int i = 0; i < p.n / 2; i++) {
      const unsigned row = lane / 4 + 8 * (i / 2 % 2), column = unsigned(i / 4 * 8) + 2 * (lane % 4) + i % 2;
      float sum = 0;
      for (unsigned k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
      p.c[i] = (p.adds ? p.c[i] : 0.0f) + sum;
    }
  }
}

static void complete(void** lanes, unsigned) {
  const Products& first = *static_cast<Products*>(lanes[0]);
  int done = 0;
  while (done < first.count && first.all[done].group < first.closed - first.pending) multiply(lanes, done++);
  for (unsigned lane = 0; lane < 32; lane++) {
    Products& mine = *static_cast<Products*>(lanes[lane]);
    memmove(mine.all, mine.all + done, size_t(mine.count - done) * sizeof(Issued));
    mine.count -= done;
  }
}

static inline void issue(float* c, const unsigned* left, Descriptor a, Descriptor b, int n, bool adds, bool inner,
                         bool a_inner = false) {
  Products& mine = products[threadIdx.x];
  if (mine.count == 64) shim::fail("more products under way than the host keeps account of");
  mine.all[mine.count++] = {c, left, a, b, n, adds, a_inner, inner, mine.closed};
}

}  // namespace emulated

#else
typedef u64 Descriptor;
#endif

// Of a panel, or of what is `further` below in it. `next_panel`: bytes to the next 64 columns, where the panel is described
// as inner.
__device__ __forceinline__ Descriptor describe(SharedAddress panel, unsigned next_panel) {
#ifdef CENTIME_HOST
  return {panel, next_panel};
#else
  // Eight rows take 1024 bytes; swizzle of 128 bytes.
  return u64(panel >> 4 & 0x3fff) | u64(next_panel >> 4 & 0x3fff) << 16 | u64(1024 >> 4) << 32 | u64(1) << 62;
#endif
}

__device__ __forceinline__ Descriptor further(Descriptor d, unsigned bytes) {
#ifdef CENTIME_HOST
  return {d.at + bytes, d.next_panel};
#else
  return d + (bytes >> 4);
#endif
}

// What was copied into shared memory becomes visible to products; before the barrier that precedes them.
__device__ __forceinline__ void show_copies_to_products() {
#ifndef CENTIME_HOST
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// Registers written before become visible to the products that follow.
__device__ __forceinline__ void before_products() {
#ifndef CENTIME_HOST
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}

// Closes a group of products.
__device__ __forceinline__ void commit_products() {
#ifdef CENTIME_HOST
  emulated::products[threadIdx.x].closed++;
#else
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}

// Waits until at most PENDING groups are under way; `c` is a result of the others, and is not to be read before.
template <int PENDING, int TILES>
__device__ __forceinline__ void wait_for_products([[maybe_unused]] float (&c)[TILES][4]) {
#ifdef CENTIME_HOST
  emulated::products[threadIdx.x].pending = PENDING;
  WARP_TOGETHER("wgmma.wait_group", &emulated::products[threadIdx.x], emulated::complete);
#else
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
#pragma unroll
  for (int i = 0; i < TILES; i++) {
    asm volatile("" : "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])::"memory");
  }
#endif
}

// Everything that `x` is computed from is issued before the warp goes on. The assembler lets arithmetic sink below a wait
// for products, since neither needs the other, and the tensor cores then idle through it. A warp's barrier it leaves in
// place; this one's mask comes from `x`: always all lanes, in a way that the assembler does not see through. About five
// instructions. `ci/kernels` reads the order in the machine code.
__device__ __forceinline__ void computed_by_now([[maybe_unused]] float x) {
  unsigned lanes = ALL_LANES;
#ifndef CENTIME_HOST
  // A positive number's sign, spread over the word and inverted; NaN counts as 0.
  asm volatile("{ .reg .f32 t; max.f32 t, %1, 0f00000000; mov.b32 %0, t; shr.s32 %0, %0, 31; not.b32 %0, %0; }"
               : "=r"(lanes)
               : "f"(x));
#endif
  __syncwarp(lanes);
}

#ifndef CENTIME_HOST
// Operands of a result's fragments, and their elements in the text of an instruction.
#define TILE(c, i) "+f"(c[i][0]), "+f"(c[i][1]), "+f"(c[i][2]), "+f"(c[i][3])
#define FOUR_TILES(c, i) TILE(c, i), TILE(c, i + 1), TILE(c, i + 2), TILE(c, i + 3)
#define BOUND_64(c) FOUR_TILES(c, 0), FOUR_TILES(c, 4)
#define BOUND_96(c) BOUND_64(c), FOUR_TILES(c, 8)
#define BOUND_128(c) BOUND_96(c), FOUR_TILES(c, 12)
#define RESULTS_64                                                                                                         \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                                                 \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define RESULTS_96 RESULTS_64 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define RESULTS_128 RESULTS_96 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#endif

// c [64, N] = A B^T, or += where it `adds`, over 16 of the inner dimension: both described as rows.
template <int N>
__device__ __forceinline__ void multiply_rows(float (&c)[N / 8][4], Descriptor a, Descriptor b, bool adds) {
  static_assert(N == 64 || N == 96 || N == 128, "widths that there are instructions for here");
#ifdef CENTIME_HOST
  emulated::issue(&c[0][0], nullptr, a, b, N, adds, false);
#else
  if constexpr (N == 64) {
    asm volatile(
        "{ .reg .pred adds; setp.ne.b32 adds, %34, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" RESULTS_64 "}, %32, %33, adds, 1, 1, 0, 0; }"
        : BOUND_64(c)
        : "l"(a), "l"(b), "r"(int(adds)));
  } else if constexpr (N == 96) {
    asm volatile(
        "{ .reg .pred adds; setp.ne.b32 adds, %50, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n96k16.f32.bf16.bf16 {" RESULTS_96 "}, %48, %49, adds, 1, 1, 0, 0; }"
        : BOUND_96(c)
        : "l"(a), "l"(b), "r"(int(adds)));
  } else {
    asm volatile(
        "{ .reg .pred adds; setp.ne.b32 adds, %66, 0;\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" RESULTS_128 "}, %64, %65, adds, 1, 1, 0, 0; }"
        : BOUND_128(c)
        : "l"(a), "l"(b), "r"(int(adds)));
  }
#endif
}

// c [64, N] += A B over 16 of the inner dimension: A fragments in registers, B described as inner.
template <int N>
__device__ __forceinline__ void multiply_inner(float (&c)[N / 8][4], const unsigned (&a)[4], Descriptor b) {
  static_assert(N == 64 || N == 128, "widths that there are instructions for here");
#ifdef CENTIME_HOST
  emulated::issue(&c[0][0], a, {}, b, N, true, true);
#else
  if constexpr (N == 64) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" RESULTS_64
                 "}, {%32, %33, %34, %35}, %36, 1, 1, 1, 1;"
                 : BOUND_64(c)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  } else {
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" RESULTS_128
                 "}, {%64, %65, %66, %67}, %68, 1, 1, 1, 1;"
                 : BOUND_128(c)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
  }
#endif
}

// c [64, 128] += A B over 16 of the inner dimension, both in shared memory, each described as inner or as rows (B^T then).
template <bool A_INNER, bool B_INNER>
__device__ __forceinline__ void multiply_tiles(float (&c)[16][4], Descriptor a, Descriptor b) {
#ifdef CENTIME_HOST
  emulated::issue(&c[0][0], nullptr, a, b, 128, true, B_INNER, A_INNER);
#else
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" RESULTS_128 "}, %64, %65, 1, 1, 1, %66, %67;"
               : BOUND_128(c)
               : "l"(a), "l"(b), "n"(int(A_INNER)), "n"(int(B_INNER)));
#endif
}

// Byte offset of a row's 16-byte chunk in panels of ROWS rows, one after the other.
template <int ROWS>
__device__ __forceinline__ unsigned panel_offset(unsigned row, unsigned chunk) {
  return chunk / 8 * (ROWS * 128) + row * 128 + ((chunk % 8 ^ (row & 7)) << 4);
}

// Starts the copy of ROWS rows of `head_dim` elements into D / 64 panels; `inside` rows are there, the others become zeros.
template <int D, int ROWS, int THREADS>
__device__ __forceinline__ void load_panels(SharedAddress to, const bf16* from, i64 stride, int inside, int head_dim) {
  constexpr int CHUNKS = D / 8, STEP = THREADS / CHUNKS;
  static_assert(THREADS % CHUNKS == 0 && STEP % 8 == 0, "every row of a thread has the same chunk and the same swizzle");
  const int first = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
  const SharedAddress at = to + panel_offset<ROWS>(first, chunk);
  const bf16* source = from + (first * int(stride) + chunk * 8);
  const int end = chunk * 8 < head_dim ? inside - first : 0;
#pragma unroll
  for (int i = 0; i < (ROWS + STEP - 1) / STEP; i++) {
    if (ROWS % STEP == 0 || first + i * STEP < ROWS) copy_async_16(at + i * STEP * 128, source, i * STEP < end);
    source += STEP * stride;
  }
}

// c [64, N] = A B^T over D: 64 rows of A's panels of A_ROWS rows, B's panels of N rows.
template <int D, int A_ROWS, int N>
__device__ __forceinline__ void panel_scores(float (&c)[N / 8][4], Descriptor a, Descriptor b) {
#pragma unroll
  for (int step = 0; step < D / 16; step++) {
    const unsigned along = step % 4 * 32, panel = step / 4 * 128;
    multiply_rows<N>(c, further(a, panel * A_ROWS + along), further(b, panel * N + along), step > 0);
  }
}

// c [64, D] += P B: P's A fragments, and B's panels of INNER rows.
template <int D, int INNER>
__device__ __forceinline__ void panel_sums(float (&c)[D / 8][4], const unsigned (&p)[INNER / 16][4], Descriptor b) {
#pragma unroll
  for (int step = 0; step < INNER / 16; step++) multiply_inner<D>(c, p[step], further(b, step * 16 * 128));
}

// Fragments of a result [64, N], rounded, as those of a left factor.
template <int N>
__device__ __forceinline__ void round_to_a(unsigned (&to)[N / 16][4], const float (&from)[N / 8][4]) {
#pragma unroll
  for (int n = 0; n < N / 8; n++) {
    to[n / 2][n % 2 * 2] = to_bf16_pair(from[n][0], from[n][1]);
    to[n / 2][n % 2 * 2 + 1] = to_bf16_pair(from[n][2], from[n][3]);
  }
}

// Rounds a warp's 16 rows `c`, row 8 i + lane / 4 times factor[i], and writes the first `inside` of them to memory, by way
// of rows of its own from `own` on in panels of ROWS rows.
template <int D, int ROWS>
__device__ __forceinline__ void store_panel_rows(const float (&c)[D / 8][4], const float (&factor)[2], char* panels,
                                                 int own, bf16* to, i64 stride, int inside, int head_dim) {
  constexpr int CHUNKS = D / 8;
  const int lane = threadIdx.x % 32;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 2; i++) {
#pragma unroll
    for (int n = 0; n < CHUNKS; n++) {
      const unsigned pair = to_bf16_pair(c[n][2 * i] * factor[i], c[n][2 * i + 1] * factor[i]);
      *reinterpret_cast<unsigned*>(panels + panel_offset<ROWS>(own + 8 * i + lane / 4, n) + lane % 4 * 4) = pair;
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < 16 * CHUNKS / 32; i++) {
    const int index = lane + 32 * i, row = index / CHUNKS, chunk = index % CHUNKS;
    if (row < inside && chunk * 8 < head_dim) {
      *reinterpret_cast<uint4*>(to + row * stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(panels + panel_offset<ROWS>(own + row, chunk));
    }
  }
}

#endif

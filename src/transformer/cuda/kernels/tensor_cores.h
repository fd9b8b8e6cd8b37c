// Instructions that C++ has no name for: products of tensor cores, loads of their fragments, asynchronous copies into
// shared memory, base-2 exponentials. Each is PTX on a device; on the host the lanes of a warp exchange their fragments in
// the documented register layout, so that a wrong layout gives a wrong result there too.
//
// Layouts: PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type" and "ldmatrix". With g = lane / 4 and
// t = lane % 4:
//   A [16, 16]  a[0] row g, a[1] row g + 8, columns 2t and 2t + 1; a[2], a[3] the same rows, columns 2t + 8 and 2t + 9
//   B [16, 8]   b0 rows 2t and 2t + 1 of column g; b1 rows 2t + 8 and 2t + 9
//   C [16, 8]   c[0], c[1] row g, columns 2t and 2t + 1; c[2], c[3] row g + 8
// so that the C fragments of two neighbouring products, rounded to bf16, are the A fragment of the next product.
#pragma once
#include "common.h"

#ifdef CENTIME_HOST

typedef uintptr_t SharedAddress;

namespace emulated {

struct Product {
  unsigned a[4], b[2];
  float* c;
};

static inline float half_of(unsigned word, unsigned which) { return which ? high_of_pair(word) : low_of_pair(word); }

static void multiply_add(void** lanes, unsigned) {
  float a[16][16], b[16][8];
  for (unsigned lane = 0; lane < 32; lane++) {
    const Product& p = *static_cast<Product*>(lanes[lane]);
    const unsigned g = lane / 4, t = lane % 4;
    for (unsigned i = 0; i < 4; i++) {
      for (unsigned e = 0; e < 2; e++) a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + e] = half_of(p.a[i], e);
    }
    for (unsigned i = 0; i < 2; i++) {
      for (unsigned e = 0; e < 2; e++) b[2 * t + 8 * i + e][g] = half_of(p.b[i], e);
    }
  }
  for (unsigned lane = 0; lane < 32; lane++) {
    float* c = static_cast<Product*>(lanes[lane])->c;
    for (unsigned i = 0; i < 4; i++) {
      const unsigned row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      float sum = 0;
      for (unsigned k = 0; k < 16; k++) sum += a[row][k] * b[k][column];
      c[i] += sum;
    }
  }
}

struct Matrices {
  SharedAddress at;
  unsigned* words;
  bool transposed;
};

static void load_matrices(void** lanes, unsigned) {
  for (unsigned i = 0; i < 4; i++) {
    const char* rows[8];
    unsigned banks = 0;
    for (unsigned r = 0; r < 8; r++) {
      const SharedAddress at = static_cast<Matrices*>(lanes[8 * i + r])->at;
      if (at % 16) shim::fail("ldmatrix: the address of lane %u is not aligned to 16 bytes", 8 * i + r);
      rows[r] = reinterpret_cast<const char*>(at);
      banks |= 1u << (at / 16 % 8);
    }
    if (banks != 0xff) shim::fail("ldmatrix: rows of matrix %u are in the same banks", i);
    for (unsigned lane = 0; lane < 32; lane++) {
      const Matrices& m = *static_cast<Matrices*>(lanes[lane]);
      unsigned short pair[2];
      for (unsigned e = 0; e < 2; e++) {
        const unsigned major = lane / 4, minor = 2 * (lane % 4) + e;
        memcpy(&pair[e], rows[m.transposed ? minor : major] + 2 * (m.transposed ? major : minor), 2);
      }
      m.words[i] = pair[0] | unsigned(pair[1]) << 16;
    }
  }
}

// A copy that has been asked for and may not have happened yet.
struct Copy {
  void* to;
  const void* from;
  unsigned bytes;
  int group;
};

// A thread's copies under way, and how many groups it has closed.
struct Copies {
  Copy all[192];
  int count, closed;
};

static Copies copies[shim::MOST_THREADS];

// The destination holds NaN until the copy is waited for, so that reading too early, or copying over what is still read,
// shows.
static inline void copy_later(SharedAddress to, const void* from, unsigned bytes, bool inside) {
  Copies& mine = copies[threadIdx.x];
  if (to % bytes || (inside && reinterpret_cast<uintptr_t>(from) % bytes)) shim::fail("cp.async is not aligned");
  if (mine.count == 192) shim::fail("more copies under way than the host keeps account of");
  memset(reinterpret_cast<void*>(to), 0xff, bytes);
  mine.all[mine.count++] = {reinterpret_cast<void*>(to), inside ? from : nullptr, bytes, mine.closed};
}

static inline void wait_for_copies(int pending) {
  Copies& mine = copies[threadIdx.x];
  int kept = 0;
  for (int i = 0; i < mine.count; i++) {
    const Copy copy = mine.all[i];
    if (copy.group >= mine.closed - pending)
      mine.all[kept++] = copy;
    else if (copy.from)
      memcpy(copy.to, copy.from, copy.bytes);
    else
      memset(copy.to, 0, copy.bytes);
  }
  mine.count = kept;
}

}  // namespace emulated

#else
typedef unsigned SharedAddress;
#endif

// A pointer into shared memory as the instructions below take it.
__device__ __forceinline__ SharedAddress shared_address(const void* shared) {
#ifdef CENTIME_HOST
  return reinterpret_cast<SharedAddress>(shared);
#else
  return unsigned(__cvta_generic_to_shared(shared));
#endif
}

// c += A B: m16n8k16, bf16 factors, f32 sums.
__device__ __forceinline__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#ifdef CENTIME_HOST
  emulated::Product mine = {{a[0], a[1], a[2], a[3]}, {b0, b1}, c};
  WARP_TOGETHER("mma.sync", &mine, emulated::multiply_add);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

// Four 8 x 8 matrices of 16-bit elements: lanes 8i .. 8i + 7 say where the rows of matrix i are; a lane's word i is row
// lane / 4 of it, elements 2 (lane % 4) and the next.
__device__ __forceinline__ void load_matrices(unsigned (&words)[4], SharedAddress at) {
#ifdef CENTIME_HOST
  emulated::Matrices mine = {at, words, false};
  WARP_TOGETHER("ldmatrix", &mine, emulated::load_matrices);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(at)
               : "memory");
#endif
}

// The same, each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(unsigned (&words)[4], SharedAddress at) {
#ifdef CENTIME_HOST
  emulated::Matrices mine = {at, words, true};
  WARP_TOGETHER("ldmatrix.trans", &mine, emulated::load_matrices);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(at)
               : "memory");
#endif
}

// Starts a copy of 16 bytes from global to shared memory; zeroes where not `inside` (`from` is not read then).
__device__ __forceinline__ void copy_async_16(SharedAddress to, const void* from, bool inside) {
#ifdef CENTIME_HOST
  emulated::copy_later(to, from, 16, inside);
#else
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
#endif
}

// The same with 4 bytes.
__device__ __forceinline__ void copy_async_4(SharedAddress to, const void* from, bool inside) {
#ifdef CENTIME_HOST
  emulated::copy_later(to, from, 4, inside);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(inside ? 4 : 0) : "memory");
#endif
}

// Closes a group of this thread's copies.
__device__ __forceinline__ void commit_copies() {
#ifdef CENTIME_HOST
  emulated::copies[threadIdx.x].closed++;
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most PENDING of this thread's groups are under way. What others have copied is seen after a barrier.
template <int PENDING>
__device__ __forceinline__ void wait_for_copies() {
#ifdef CENTIME_HOST
  emulated::wait_for_copies(PENDING);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
#endif
}

// 2^x to two units in the last place; 0 for minus infinity.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef CENTIME_HOST
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

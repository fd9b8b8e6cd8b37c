// CUDA C++ on a CPU, for tests: enough of it to run the kernels of this folder unchanged, slowly, with every rule checked.
//
// Threads of a block are fibers on one OS thread, blocks run one after another. A warp runs until all its lanes wait for the
// block or have ended; the order of lanes and warps turns round with every block and every barrier, so that a barrier that is
// missing shows. Errors end the launch and name kernel, block and thread:
//   - an access outside an allocation or outside dynamic shared memory (both end at a page that must not be touched);
//   - a misaligned vector access, an index outside an array (by the compiler's sanitizers, which trap);
//   - threads that part at a barrier: some wait, others have ended or wait elsewhere;
//   - arguments that do not fit the kernel's parameters.
// Not modelled: races between blocks, memory order within a warp, timing, the limits of registers and shared memory.
//
// One .cu is one shared object. A library runs one launch at a time: the caller sees to it.
#pragma once

#include <cmath>
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <pthread.h>
#include <sys/mman.h>
#include <type_traits>
#include <unistd.h>
#include <utility>
#if defined(__x86_64__) && !defined(SHIM_UCONTEXT)
#define SHIM_OWN_SWITCH
#else
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 { unsigned x, y, z; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;
[[maybe_unused]] static const int warpSize = 32;

namespace shim {

constexpr unsigned MOST_THREADS = 1024;
// PAGE: a multiple of the page of x86-64 and of most arm64 systems.
constexpr size_t STACK_BYTES = 128 << 10, PAGE = 16 << 10;

// What the lanes of a warp do together once all have come: reads and writes what each lane points to.
typedef void (*Together)(void** lanes, unsigned mask);

enum class State { Ready, AtBlock, AtWarp, Ended };

struct Fiber {
  State state;
  // Where it waits.
  const char* what;
  int line;
  // AtWarp: with whom and for what.
  unsigned mask;
  Together together;
  void* mine;
#ifdef SHIM_OWN_SWITCH
  void* stack_pointer;
#else
  ucontext_t context;
#endif
};

static Fiber fibers[MOST_THREADS];
static unsigned threads, current;
// Lanes of each warp that wait for others of it.
static unsigned arrived[MOST_THREADS / 32];
static char* stacks;
static Fiber scheduler;
static void (*body)(void**);
static void** arguments;
static const char* kernel_name;
static char* error_text;
static size_t error_capacity;
static sigjmp_buf on_failure;
static volatile bool active;
static pthread_t owner;
static char* shared_area;
static size_t shared_area_bytes;
[[maybe_unused]] static char* dynamic_shared;

#ifdef SHIM_OWN_SWITCH
// Saves what a called function must keep, changes stacks, and takes up the other one where it left off.
asm(R"(
  .text
  .type centime_switch, @function
centime_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");
extern "C" __attribute__((visibility("hidden"))) void centime_switch(void** from, void* to);
static inline void change(Fiber& from, Fiber& to) { centime_switch(&from.stack_pointer, to.stack_pointer); }
#else
static inline void change(Fiber& from, Fiber& to) { swapcontext(&from.context, &to.context); }
#endif

// "block (1, 0, 0), thread 7", into `to`.
static const char* place(char (&to)[96], unsigned thread) {
  snprintf(to, sizeof to, "block (%u, %u, %u), thread %u", blockIdx.x, blockIdx.y, blockIdx.z, thread);
  return to;
}

[[noreturn]] __attribute__((format(printf, 1, 2))) static void fail(const char* format, ...) {
  int used = snprintf(error_text, error_capacity, "kernel %s, ", kernel_name);
  va_list rest;
  va_start(rest, format);
  vsnprintf(error_text + used, error_capacity - size_t(used), format, rest);
  va_end(rest);
  siglongjmp(on_failure, 1);
}

static void yield() { change(fibers[current], scheduler); }

static void fiber_main() {
  body(arguments);
  fibers[current].state = State::Ended;
  yield();
  __builtin_trap();
}

static void start(unsigned thread) {
  Fiber& f = fibers[thread];
  f.state = State::Ready;
  char* low = stacks + thread * (STACK_BYTES + PAGE) + PAGE;
#ifdef SHIM_OWN_SWITCH
  // Six registers, the address to return to, and a word that aligns the stack as after a call.
  void** top = reinterpret_cast<void**>(low + STACK_BYTES) - 8;
  memset(top, 0, 8 * sizeof(void*));
  top[6] = reinterpret_cast<void*>(&fiber_main);
  f.stack_pointer = top;
#else
  getcontext(&f.context);
  f.context.uc_stack.ss_sp = low;
  f.context.uc_stack.ss_size = STACK_BYTES;
  f.context.uc_link = nullptr;
  makecontext(&f.context, fiber_main, 0);
#endif
}

static void resume(unsigned thread) {
  current = thread;
  threadIdx = {thread, 0, 0};
  change(scheduler, fibers[thread]);
}

static const char* doing(const Fiber& f) {
  switch (f.state) {
    case State::Ended: return "has ended";
    case State::AtBlock: return "waits for the block";
    case State::AtWarp: return "waits for its warp";
    default: return "runs";
  }
}

[[noreturn]] static void diverged(unsigned waiting, unsigned other) {
  char where[96];
  const Fiber &w = fibers[waiting], &o = fibers[other];
  fail("%s waits at %s (line %d), but thread %u %s%s%s (line %d): threads diverge at a barrier", place(where, waiting),
       w.what, w.line, other, doing(o), o.state == State::Ended ? "" : " at ", o.state == State::Ended ? "" : o.what,
       o.state == State::Ended ? 0 : o.line);
}

// Runs the lanes of a warp until each has ended or waits for the block.
static void run_warp(unsigned warp, bool backward) {
  const unsigned first = warp * 32;
  for (bool ran = true; ran;) {
    ran = false;
    for (unsigned i = 0; i < 32; i++) {
      unsigned thread = first + (backward ? 31 - i : i);
      if (fibers[thread].state == State::Ready) {
        resume(thread);
        ran = true;
      }
    }
  }
  for (unsigned t = first; t < first + 32; t++) {
    if (fibers[t].state != State::AtWarp) continue;
    for (unsigned o = first; o < first + 32; o++) {
      const Fiber& f = fibers[o];
      bool with = f.state == State::AtWarp && f.mask == fibers[t].mask && f.together == fibers[t].together;
      if ((fibers[t].mask >> (o - first) & 1) && !with) diverged(t, o);
    }
  }
}

static void run_block(bool backward) {
  for (unsigned t = 0; t < threads; t++) start(t);
  memset(arrived, 0, sizeof arrived);
  for (;; backward = !backward) {
    for (unsigned w = 0; w < threads / 32; w++) run_warp(backward ? threads / 32 - 1 - w : w, backward);
    unsigned waiting = threads;
    for (unsigned t = 0; t < threads && waiting == threads; t++) {
      if (fibers[t].state == State::AtBlock) waiting = t;
    }
    if (waiting == threads) return;
    const Fiber& w = fibers[waiting];
    for (unsigned t = 0; t < threads; t++) {
      const Fiber& f = fibers[t];
      if (f.state != State::AtBlock || f.line != w.line || strcmp(f.what, w.what) != 0) diverged(waiting, t);
    }
    for (unsigned t = 0; t < threads; t++) fibers[t].state = State::Ready;
  }
}

static void wait_for_block(const char* what, int line) {
  Fiber& f = fibers[current];
  f.state = State::AtBlock;
  f.what = what;
  f.line = line;
  yield();
}

// Waits for all lanes of `mask`; the last to come does `together` for all of them, over what each has given as `mine`.
static void wait_for_warp(const char* what, int line, unsigned mask, void* mine, Together together) {
  const unsigned first = current / 32 * 32;
  Fiber& f = fibers[current];
  f.what = what;
  f.line = line;
  f.mask = mask;
  f.mine = mine;
  f.together = together;
  if (!(mask >> (current - first) & 1)) {
    char where[96];
    fail("%s calls %s (line %d) with a mask %08x that leaves it out", place(where, current), what, line, mask);
  }
  f.state = State::AtWarp;
  unsigned& here = arrived[current / 32];
  here |= 1u << (current - first);
  if ((here & mask) != mask) return yield();
  void* lanes[32] = {};
  for (unsigned lane = 0; lane < 32; lane++) {
    const Fiber& other = fibers[first + lane];
    if (!(mask >> lane & 1)) continue;
    if (other.mask != mask || other.together != together) return yield();
    lanes[lane] = other.mine;
  }
  here &= ~mask;
  if (together) together(lanes, mask);
  for (unsigned lane = 0; lane < 32; lane++) {
    if (mask >> lane & 1) fibers[first + lane].state = State::Ready;
  }
}

template <class T>
struct Exchange {
  T value, result;
  unsigned source;
};
template <class T>
static void exchange(void** lanes, unsigned mask) {
  for (unsigned i = 0; i < 32; i++) {
    if (!(mask >> i & 1)) continue;
    auto* lane = static_cast<Exchange<T>*>(lanes[i]);
    // From a lane that takes no part the value is undefined on a device; here it is all ones.
    if (lanes[lane->source]) lane->result = static_cast<Exchange<T>*>(lanes[lane->source])->value;
    else memset(&lane->result, 0xff, sizeof(T));
  }
}
template <class T>
static T shuffle(const char* what, int line, unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  Exchange<T> mine{value, value, source};
  wait_for_warp(what, line, mask, &mine, exchange<T>);
  return mine.result;
}
static inline unsigned lane() { return current % 32; }

template <class T>
static T shuffle_from(const char* what, int line, unsigned mask, T v, int source, int width = 32) {
  return shuffle(what, line, mask, v, lane() / unsigned(width) * unsigned(width) + unsigned(source) % unsigned(width));
}
template <class T>
static T shuffle_xor(const char* what, int line, unsigned mask, T v, int bits, int width = 32) {
  unsigned source = lane() ^ unsigned(bits);
  return shuffle(what, line, mask, v, source / unsigned(width) == lane() / unsigned(width) ? source : lane());
}
template <class T>
static T shuffle_down(const char* what, int line, unsigned mask, T v, unsigned by, int width = 32) {
  unsigned source = lane() + by;
  return shuffle(what, line, mask, v, source / unsigned(width) == lane() / unsigned(width) ? source : lane());
}
template <class T>
static T shuffle_up(const char* what, int line, unsigned mask, T v, unsigned by, int width = 32) {
  return shuffle(what, line, mask, v, lane() % unsigned(width) >= by ? lane() - by : lane());
}

struct Vote {
  bool yes;
  unsigned all;
};
static void count_votes(void** lanes, unsigned mask) {
  unsigned all = 0;
  for (unsigned i = 0; i < 32; i++) {
    if ((mask >> i & 1) && static_cast<Vote*>(lanes[i])->yes) all |= 1u << i;
  }
  for (unsigned i = 0; i < 32; i++) {
    if (mask >> i & 1) static_cast<Vote*>(lanes[i])->all = all;
  }
}
[[maybe_unused]] static unsigned vote(const char* what, int line, unsigned mask, bool yes) {
  Vote mine{yes, 0};
  wait_for_warp(what, line, mask, &mine, count_votes);
  return mine.all;
}

#include "cuda_shim_launch.h"

}  // namespace shim

#define __syncthreads() shim::wait_for_block("__syncthreads", __LINE__)
#define __shim_syncwarp(mask, ...) shim::wait_for_warp("__syncwarp", __LINE__, mask, nullptr, nullptr)
#define __syncwarp(...) __shim_syncwarp(__VA_ARGS__ __VA_OPT__(,) 0xffffffffu, 0)
#define __shfl_sync(mask, ...) shim::shuffle_from("__shfl_sync", __LINE__, mask, __VA_ARGS__)
#define __shfl_xor_sync(mask, ...) shim::shuffle_xor("__shfl_xor_sync", __LINE__, mask, __VA_ARGS__)
#define __shfl_down_sync(mask, ...) shim::shuffle_down("__shfl_down_sync", __LINE__, mask, __VA_ARGS__)
#define __shfl_up_sync(mask, ...) shim::shuffle_up("__shfl_up_sync", __LINE__, mask, __VA_ARGS__)
#define __ballot_sync(mask, yes) shim::vote("__ballot_sync", __LINE__, mask, yes)
#define __any_sync(mask, yes) (shim::vote("__any_sync", __LINE__, mask, yes) != 0)
#define __all_sync(mask, yes) (shim::vote("__all_sync", __LINE__, mask, yes) == (mask))
// What all lanes of a warp do at once, mma.sync and the like: `together` runs once over the pointers that the lanes gave.
#define WARP_TOGETHER(what, mine, together) shim::wait_for_warp(what, __LINE__, 0xffffffffu, mine, together)

#define SHARED_BUFFER(type, name) type* name = reinterpret_cast<type*>(shim::dynamic_shared)
#define EXPORT(kernel)                                                                                               \
  extern "C" __attribute__((visibility("default"))) int launch_##kernel(                                             \
      const unsigned* grid, unsigned threads, unsigned shared_bytes, void** args, const char* types, char* error,    \
      size_t capacity) {                                                                                             \
    return shim::launch(#kernel, shim::Signature<&kernel>::run, shim::Signature<&kernel>::types(), grid, threads,    \
                        shared_bytes, args, types, error, capacity);                                                 \
  }

// One OS thread runs everything: an atomic is an ordinary operation.
template <class T>
static inline T atomicAdd(T* at, T value) {
  T old = *at;
  *at = old + value;
  return old;
}
template <class T>
static inline T atomicMax(T* at, T value) {
  T old = *at;
  if (value > old) *at = value;
  return old;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

// Loads and stores with a hint to the caches.
template <class T> static inline T __ldg(const T* at) { return *at; }
template <class T> static inline T __ldcs(const T* at) { return *at; }
template <class T> static inline T __ldcg(const T* at) { return *at; }
template <class T> static inline void __stcs(T* at, T value) { *at = value; }
template <class T> static inline void __stcg(T* at, T value) { *at = value; }

static inline float __int_as_float(int x) { float f; memcpy(&f, &x, 4); return f; }
static inline int __float_as_int(float x) { int i; memcpy(&i, &x, 4); return i; }
static inline float __uint_as_float(unsigned x) { float f; memcpy(&f, &x, 4); return f; }
static inline unsigned __float_as_uint(float x) { unsigned i; memcpy(&i, &x, 4); return i; }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
// glibc has functions of these names of its own.
#define __expf expf
#define __logf logf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline void sincospif(float x, float* sine, float* cosine) {
  *sine = float(sin(M_PI * double(x)));
  *cosine = float(cos(M_PI * double(x)));
}
static inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }

template <class A, class B>
static inline auto min(A a, B b) -> typename std::common_type<A, B>::type {
  static_assert(std::is_signed<A>::value == std::is_signed<B>::value, "min of signed and unsigned");
  return a < b ? a : b;
}
template <class A, class B>
static inline auto max(A a, B b) -> typename std::common_type<A, B>::type {
  static_assert(std::is_signed<A>::value == std::is_signed<B>::value, "max of signed and unsigned");
  return a > b ? a : b;
}

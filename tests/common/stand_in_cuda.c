/* A stand-in for NVIDIA's libraries on a machine without a GPU: the driver, NVRTC, cuBLASLt, NCCL and NVML in one file, with the
 * functions that this program calls and no others. It answers every call as a machine with an H100 would, keeps arrays in the host's
 * memory, and computes nothing: kernels and products leave zeros. What it is for is the way there: that each call is made as it
 * should be, and that each that fails is told in words. Built by tests/common/stand_in.rs; by hand:
 *
 *   gcc -shared -fPIC -O1 -o FOLDER/libcuda.so.1 tests/common/stand_in_cuda.c
 *   for name in libnvrtc.so.13 libcublasLt.so.13 libnccl.so.2 libnvidia-ml.so.1; do ln -s libcuda.so.1 FOLDER/$name; done
 *   LD_LIBRARY_PATH=FOLDER centime doctor
 *
 * What it is and when it fails, by variables:
 *
 *   STAND_IN_FAIL=17               the 17th call of the process fails, all libraries counted together
 *   STAND_IN_FAIL=cuMemAllocAsync:2   the 2nd call of this function fails
 *   STAND_IN_FAIL_ON=1             and so do all that come after it, as on a device that is lost
 *   STAND_IN_ERROR=2               what the driver answers then (2: out of memory; 999, unknown, if unsaid)
 *   STAND_IN_LOG=FILE              a line for each call, in order: its number and its name
 *   STAND_IN_DRIVER=12040          the CUDA version that the driver is for (13000)
 *   STAND_IN_DEVICES=4  STAND_IN_CAPABILITY=86  STAND_IN_SHARED=101376  STAND_IN_MEMORY=85899345920
 *
 * A launch is checked against what a device takes: threads, grid, shared memory asked for. Copies of more than a MiB are left out, so
 * that models that no host could hold can be walked through. The kernel `trial`, by which the doctor sees that a GPU works, works. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef unsigned long long u64;
typedef void *handle;

static long setting(const char *name, long otherwise) {
  const char *value = getenv(name);
  return value && *value ? atol(value) : otherwise;
}

/* Counts a call; whether it is to fail. */
static int fails(const char *name) {
  static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  static long calls, of_name;
  static int failing, log = -2;
  pthread_mutex_lock(&lock);
  calls++;
  const char *fail = getenv("STAND_IN_FAIL");
  int now = 0;
  if (fail && *fail) {
    const char *colon = strchr(fail, ':');
    if (!colon) now = calls == atol(fail);
    else if (strlen(name) == (size_t)(colon - fail) && !strncmp(name, fail, colon - fail)) now = ++of_name == atol(colon + 1);
  }
  if (now && getenv("STAND_IN_FAIL_ON")) failing = 1;
  if (log == -2) {
    const char *file = getenv("STAND_IN_LOG");
    log = file && *file ? open(file, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
  }
  if (log >= 0) {
    char line[128];
    int length = snprintf(line, sizeof line, "%ld %s%s\n", calls, name, now || failing ? " fails" : "");
    if (write(log, line, length) != length) log = -1;
  }
  int answer = now || failing;
  pthread_mutex_unlock(&lock);
  return answer;
}

#define ANSWER(error) do { if (fails(__func__)) return (error); } while (0)
#define CUDA ANSWER((int)setting("STAND_IN_ERROR", 999))

/* ---- the driver ---- */

enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101 };

static int names(int error, const char **to, int words) {
  static const struct { int error; const char *name, *text; } all[] = {
      {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
      {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
      {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
      {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
      {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
  };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (all[i].error == error) return *to = words ? all[i].text : all[i].name, 0;
  return *to = NULL, INVALID_VALUE;
}
int cuGetErrorName(int error, const char **to) { return names(error, to, 0); }
int cuGetErrorString(int error, const char **to) { return names(error, to, 1); }

/* NVIDIA's own NVRTC asks for a table of the driver's where there is a driver, and goes on without. */
int cuGetExportTable(const void **to, const void *id) { return (void)id, *to = 0, 500; }
int cuDriverGetVersion(int *to) { CUDA; return *to = (int)setting("STAND_IN_DRIVER", 13000), 0; }
int cuInit(unsigned flags) { CUDA; return flags ? INVALID_VALUE : 0; }
int cuDeviceGetCount(int *to) { CUDA; return *to = (int)setting("STAND_IN_DEVICES", 1), 0; }
int cuDeviceGet(int *to, int i) {
  CUDA;
  if (i < 0 || i >= setting("STAND_IN_DEVICES", 1)) return INVALID_DEVICE;
  return *to = i, 0;
}
int cuDeviceGetName(char *to, int length, int device) {
  CUDA;
  return snprintf(to, length, "stand-in for an H100, number %d", device), 0;
}
int cuDeviceTotalMem_v2(size_t *to, int device) { CUDA; (void)device; return *to = setting("STAND_IN_MEMORY", 85899345920), 0; }
int cuDeviceGetAttribute(int *to, int which, int device) {
  CUDA;
  (void)device;
  long capability = setting("STAND_IN_CAPABILITY", 90);
  switch (which) {
    case 16: return *to = 132, 0;                                       /* MULTIPROCESSOR_COUNT */
    case 38: return *to = 50 << 20, 0;                                  /* L2_CACHE_SIZE */
    case 75: return *to = (int)(capability / 10), 0;                    /* COMPUTE_CAPABILITY_MAJOR */
    case 76: return *to = (int)(capability % 10), 0;                    /* COMPUTE_CAPABILITY_MINOR */
    case 97: return *to = (int)setting("STAND_IN_SHARED", 232448), 0;   /* MAX_SHARED_MEMORY_PER_BLOCK_OPTIN */
  }
  return INVALID_VALUE;
}

static int context, stream_made, event_made, pool_made, library_made;
int cuDevicePrimaryCtxRetain(handle *to, int device) { CUDA; (void)device; return *to = &context, 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { CUDA; (void)device; return 0; }
int cuCtxSetCurrent(handle c) { CUDA; return c == &context || !c ? 0 : INVALID_VALUE; }

int cuStreamCreate(handle *to, unsigned flags) { CUDA; (void)flags; return *to = &stream_made, 0; }
int cuStreamDestroy_v2(handle s) { CUDA; return s ? 0 : INVALID_VALUE; }
int cuStreamSynchronize(handle s) { CUDA; return s ? 0 : INVALID_VALUE; }
int cuStreamQuery(handle s) { CUDA; return s ? 0 : INVALID_VALUE; }
int cuStreamWaitEvent(handle s, handle e, unsigned flags) { CUDA; (void)flags; return s && e ? 0 : INVALID_VALUE; }
int cuStreamBeginCapture_v2(handle s, int mode) { CUDA; (void)mode; return s ? 0 : INVALID_VALUE; }
int cuStreamEndCapture(handle s, handle *graph) { CUDA; return *graph = &library_made, s ? 0 : INVALID_VALUE; }
int cuGraphInstantiateWithFlags(handle *to, handle graph, u64 flags) { CUDA; (void)flags; return *to = graph, graph ? 0 : INVALID_VALUE; }
int cuGraphLaunch(handle graph, handle s) { CUDA; return graph && s ? 0 : INVALID_VALUE; }
int cuGraphDestroy(handle graph) { CUDA; return graph ? 0 : INVALID_VALUE; }
int cuGraphExecDestroy(handle graph) { CUDA; return graph ? 0 : INVALID_VALUE; }

int cuEventCreate(handle *to, unsigned flags) { CUDA; (void)flags; return *to = &event_made, 0; }
int cuEventDestroy_v2(handle e) { CUDA; return e ? 0 : INVALID_VALUE; }
int cuEventRecord(handle e, handle s) { CUDA; return e && s ? 0 : INVALID_VALUE; }
int cuEventSynchronize(handle e) { CUDA; return e ? 0 : INVALID_VALUE; }
int cuEventQuery(handle e) { CUDA; return e ? 0 : INVALID_VALUE; }
int cuEventElapsedTime(float *to, handle from, handle till) { CUDA; return *to = 0.01f, from && till ? 0 : INVALID_VALUE; }

/* Memory: pages that are taken when they are first touched, with their size in a page before them. */
#define PAGE 4096
static u64 used, most;
static int take(u64 *to, size_t bytes) {
  size_t whole = bytes + PAGE;
  if (used + whole > (u64)setting("STAND_IN_MEMORY", 85899345920)) return OUT_OF_MEMORY;
  char *at = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return OUT_OF_MEMORY;
  *(size_t *)at = whole;
  u64 now = __atomic_add_fetch(&used, whole, __ATOMIC_RELAXED);
  if (now > most) most = now;
  return *to = (u64)(uintptr_t)(at + PAGE), 0;
}
static int give(u64 at) {
  if (!at) return INVALID_VALUE;
  char *start = (char *)(uintptr_t)at - PAGE;
  __atomic_sub_fetch(&used, *(size_t *)start, __ATOMIC_RELAXED);
  return munmap(start, *(size_t *)start) ? INVALID_VALUE : 0;
}
int cuMemAllocAsync(u64 *to, size_t bytes, handle s) { CUDA; return s && bytes ? take(to, bytes) : INVALID_VALUE; }
int cuMemAllocFromPoolAsync(u64 *to, size_t bytes, handle pool, handle s) { CUDA; return s && pool && bytes ? take(to, bytes) : INVALID_VALUE; }
int cuMemFreeAsync(u64 at, handle s) { CUDA; return s ? give(at) : INVALID_VALUE; }
int cuMemAlloc_v2(u64 *to, size_t bytes) { CUDA; return bytes ? take(to, bytes) : INVALID_VALUE; }
int cuMemFree_v2(u64 at) { CUDA; return give(at); }
int cuMemHostAlloc(handle *to, size_t bytes, unsigned flags) { CUDA; (void)flags; u64 at = 0; int r = take(&at, bytes); *to = (handle)(uintptr_t)at; return r; }
int cuMemFreeHost(handle at) { CUDA; return give((u64)(uintptr_t)at); }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  CUDA;
  *total = setting("STAND_IN_MEMORY", 85899345920);
  return *free_bytes = *total - used, 0;
}
int cuDeviceGetDefaultMemPool(handle *to, int device) { CUDA; (void)device; return *to = &pool_made, 0; }
int cuMemPoolCreate(handle *to, const void *properties) { CUDA; return *to = &pool_made, properties ? 0 : INVALID_VALUE; }
int cuMemPoolDestroy(handle pool) { CUDA; return pool ? 0 : INVALID_VALUE; }
int cuMemPoolSetAttribute(handle pool, int which, void *value) { CUDA; (void)which; return pool && value ? 0 : INVALID_VALUE; }
int cuMemPoolGetAttribute(handle pool, int which, void *value) { CUDA; (void)which; return *(u64 *)value = most, pool ? 0 : INVALID_VALUE; }
int cuMemPoolTrimTo(handle pool, size_t bytes) { CUDA; (void)bytes; return pool ? 0 : INVALID_VALUE; }

#define COPIED (1 << 20)
static int copy(void *to, const void *from, size_t bytes) {
  if (!to || !from) return INVALID_VALUE;
  if (bytes <= COPIED) memmove(to, from, bytes);
  return 0;
}
int cuMemcpyHtoDAsync_v2(u64 to, const void *from, size_t bytes, handle s) { CUDA; (void)s; return copy((void *)(uintptr_t)to, from, bytes); }
int cuMemcpyDtoHAsync_v2(void *to, u64 from, size_t bytes, handle s) { CUDA; (void)s; return copy(to, (void *)(uintptr_t)from, bytes); }
int cuMemcpyDtoDAsync_v2(u64 to, u64 from, size_t bytes, handle s) { CUDA; (void)s; return copy((void *)(uintptr_t)to, (void *)(uintptr_t)from, bytes); }
int cuMemsetD8Async(u64 to, unsigned char value, size_t bytes, handle s) {
  CUDA;
  (void)s;
  if (!to) return INVALID_VALUE;
  if (bytes <= COPIED) memset((void *)(uintptr_t)to, value, bytes);
  return 0;
}
int cuMemsetD32Async(u64 to, unsigned value, size_t count, handle s) {
  CUDA;
  (void)s;
  if (!to) return INVALID_VALUE;
  for (size_t i = 0; i < count && i < COPIED / 4; i++) ((unsigned *)(uintptr_t)to)[i] = value;
  return 0;
}

struct function { char name[120]; int shared; };
int cuModuleLoadData(handle *to, const void *image) { CUDA; return *to = &library_made, image && *(const char *)image ? 0 : INVALID_VALUE; }
int cuModuleUnload(handle module) { CUDA; return module ? 0 : INVALID_VALUE; }
int cuModuleGetFunction(handle *to, handle module, const char *name) {
  CUDA;
  struct function *f = calloc(1, sizeof *f);
  snprintf(f->name, sizeof f->name, "%s", name);
  /* 48 KiB less what the kernel has of its own, which nobody knows here: it has to be asked for. */
  f->shared = 0;
  return *to = f, module ? 0 : INVALID_VALUE;
}
int cuFuncSetAttribute(handle function, int which, int value) {
  CUDA;
  /* 8: MAX_DYNAMIC_SHARED_SIZE_BYTES */
  if (!function || which != 8 || value > setting("STAND_IN_SHARED", 232448)) return INVALID_VALUE;
  return ((struct function *)function)->shared = value, 0;
}
int cuLaunchKernel(handle function, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz, unsigned shared, handle s,
                   void **args, void **extra) {
  CUDA;
  struct function *f = function;
  int grid = x && y && z && x <= 2147483647u && y <= 65535 && z <= 65535;
  int block = tx && ty && tz && (u64)tx * ty * tz <= 1024;
  if (!f || !grid || !block || (int)shared > f->shared || !s || !args || extra) return INVALID_VALUE;
  /* By its own name, or as NVIDIA's compiler writes that of the template. */
  if (!strcmp(f->name, "trial") || !strncmp(f->name, "_Z5trial", 8)) **(int **)args[0] = *(int *)args[1];
  return 0;
}

/* CUlaunchConfig: grid and block, shared memory, stream, attributes. */
struct launch { unsigned x, y, z, tx, ty, tz, shared; handle stream; struct attribute *attributes; unsigned count; };
struct attribute { unsigned id; char pad[4]; union { char pad[64]; int number; } value; };
int cuLaunchKernelEx(const struct launch *l, handle function, void **args, void **extra) {
  CUDA;
  struct function *f = function;
  /* One attribute is known: that the launch may begin before the one before it has ended. */
  if (l->count != 1 || l->attributes->id != 6 || l->attributes->value.number != 1) return INVALID_VALUE;
  int grid = l->x && l->y && l->z && l->y <= 65535 && l->z <= 65535;
  int block = l->tx && (u64)l->tx * l->ty * l->tz <= 1024;
  return !f || !grid || !block || (int)l->shared > f->shared || !l->stream || !args || extra ? INVALID_VALUE : 0;
}

/* ---- NVRTC ---- */

#define NVRTC ANSWER(11)
int nvrtcVersion(int *major, int *minor) { NVRTC; return *major = (int)setting("STAND_IN_DRIVER", 13000) / 1000, *minor = 0; }
int nvrtcGetNumSupportedArchs(int *to) { NVRTC; return *to = 5, 0; }
int nvrtcGetSupportedArchs(int *to) {
  NVRTC;
  static const int all[] = {75, 80, 86, 89, 90};
  return memcpy(to, all, sizeof all), 0;
}
int nvrtcCreateProgram(handle *to, const char *source, const char *name, int count, const char *const *headers, const char *const *as) {
  NVRTC;
  (void)count, (void)headers, (void)as;
  return *to = &library_made, source && name ? 0 : 3;
}
static __thread char instance[128];
int nvrtcAddNameExpression(handle program, const char *expression) {
  NVRTC;
  snprintf(instance, sizeof instance, "%s", expression);
  instance[strcspn(instance, "<")] = 0;
  return program ? 0 : 4;
}
int nvrtcGetLoweredName(handle program, const char *expression, const char **to) {
  NVRTC;
  return *to = instance, program && !strncmp(expression, instance, strlen(instance)) ? 0 : 4;
}
int nvrtcCompileProgram(handle program, int count, const char *const *options) { NVRTC; return program && (!count || options) ? 0 : 3; }
int nvrtcDestroyProgram(handle *program) { NVRTC; return *program = NULL, 0; }
static const char IMAGE[] = "code of the stand-in";
int nvrtcGetCUBINSize(handle program, size_t *to) { NVRTC; return *to = sizeof IMAGE, program ? 0 : 4; }
int nvrtcGetCUBIN(handle program, char *to) { NVRTC; return memcpy(to, IMAGE, sizeof IMAGE), program ? 0 : 4; }
int nvrtcGetPTXSize(handle program, size_t *to) { NVRTC; return *to = sizeof IMAGE, program ? 0 : 4; }
int nvrtcGetPTX(handle program, char *to) { NVRTC; return memcpy(to, IMAGE, sizeof IMAGE), program ? 0 : 4; }
static const char LOG[] = "the stand-in was told to fail";
int nvrtcGetProgramLogSize(handle program, size_t *to) { NVRTC; return *to = sizeof LOG, program ? 0 : 4; }
int nvrtcGetProgramLog(handle program, char *to) { NVRTC; return memcpy(to, LOG, sizeof LOG), program ? 0 : 4; }
const char *nvrtcGetErrorString(int result) { return result == 11 ? "NVRTC_ERROR_INTERNAL_ERROR" : "NVRTC_ERROR_INVALID_INPUT"; }

/* ---- cuBLASLt ---- */

#define PRODUCTS ANSWER(14)
size_t cublasLtGetCudartVersion(void) { return fails(__func__) ? 0 : (size_t)setting("STAND_IN_DRIVER", 13000); }
int cublasLtCreate(handle *to) { PRODUCTS; return *to = &library_made, 0; }
int cublasLtDestroy(handle h) { PRODUCTS; return h ? 0 : 1; }
int cublasLtMatmulDescCreate(handle *to, int compute, int scale) { PRODUCTS; (void)compute, (void)scale; return *to = &library_made, 0; }
int cublasLtMatmulDescDestroy(handle d) { PRODUCTS; return d ? 0 : 1; }
int cublasLtMatmulDescSetAttribute(handle d, int which, const void *value, size_t bytes) { PRODUCTS; (void)which; return d && value && bytes ? 0 : 7; }
int cublasLtMatmulPreferenceCreate(handle *to) { PRODUCTS; return *to = &library_made, 0; }
int cublasLtMatmulPreferenceDestroy(handle p) { PRODUCTS; return p ? 0 : 1; }
int cublasLtMatmulPreferenceSetAttribute(handle p, int which, const void *value, size_t bytes) { PRODUCTS; (void)which; return p && value && bytes ? 0 : 7; }
int cublasLtMatrixLayoutCreate(handle *to, int format, u64 rows, u64 columns, int64_t stride) {
  PRODUCTS;
  (void)format;
  return *to = &library_made, rows && columns && stride >= (int64_t)rows ? 0 : 7;
}
int cublasLtMatrixLayoutDestroy(handle l) { PRODUCTS; return l ? 0 : 1; }
struct heuristic { uint64_t algorithm[8]; size_t workspace; int state; float waves; int reserved[4]; };
int cublasLtMatmulAlgoGetHeuristic(handle h, handle operation, handle a, handle b, handle c, handle d, handle preference, int wanted,
                                   struct heuristic *to, int *found) {
  PRODUCTS;
  if (!h || !operation || !a || !b || !c || !d || !preference) return 7;
  *found = wanted < 3 ? wanted : 3;
  memset(to, 0, *found * sizeof *to);
  return 0;
}
int cublasLtMatmul(handle h, handle operation, const void *alpha, const void *a, handle al, const void *b, handle bl, const void *beta,
                   const void *c, handle cl, void *d, handle dl, const void *algorithm, void *workspace, size_t bytes, handle s) {
  PRODUCTS;
  (void)bytes;
  return h && operation && alpha && a && al && b && bl && beta && c && cl && d && dl && algorithm && workspace && s ? 0 : 7;
}

/* ---- NCCL ---- */

#define COLLECTIVES ANSWER(3)
typedef struct { char internal[128]; } identity;
int ncclGetVersion(int *to) { COLLECTIVES; return *to = 22703, 0; }
int ncclGetUniqueId(identity *to) { COLLECTIVES; return memset(to, 1, sizeof *to), 0; }
int ncclCommInitRank(handle *to, int size, identity id, int rank) { COLLECTIVES; (void)id; return *to = &library_made, rank < size ? 0 : 4; }
int ncclCommAbort(handle c) { COLLECTIVES; return c ? 0 : 4; }
int ncclCommGetAsyncError(handle c, int *to) { COLLECTIVES; return *to = 0, c ? 0 : 4; }
int ncclGroupStart(void) { COLLECTIVES; return 0; }
int ncclGroupEnd(void) { COLLECTIVES; return 0; }
int ncclAllReduce(const void *a, void *b, size_t n, int format, int op, handle c, handle s) { COLLECTIVES; (void)n, (void)format, (void)op; return a && b && c && s ? 0 : 4; }
int ncclReduceScatter(const void *a, void *b, size_t n, int format, int op, handle c, handle s) { COLLECTIVES; (void)n, (void)format, (void)op; return a && b && c && s ? 0 : 4; }
int ncclReduce(const void *a, void *b, size_t n, int format, int op, int root, handle c, handle s) { COLLECTIVES; (void)n, (void)format, (void)op, (void)root; return a && b && c && s ? 0 : 4; }
int ncclAllGather(const void *a, void *b, size_t n, int format, handle c, handle s) { COLLECTIVES; (void)n, (void)format; return a && b && c && s ? 0 : 4; }
int ncclBroadcast(const void *a, void *b, size_t n, int format, int root, handle c, handle s) { COLLECTIVES; (void)n, (void)format, (void)root; return a && b && c && s ? 0 : 4; }
int ncclSend(const void *a, size_t n, int format, int to, handle c, handle s) { COLLECTIVES; (void)n, (void)format, (void)to; return a && c && s ? 0 : 4; }
int ncclRecv(void *b, size_t n, int format, int from, handle c, handle s) { COLLECTIVES; (void)n, (void)format, (void)from; return b && c && s ? 0 : 4; }
const char *ncclGetErrorString(int result) { return result == 3 ? "internal error" : "invalid argument"; }

/* ---- NVML ---- */

#define NVML ANSWER(999)
struct memory { unsigned version; u64 total, reserved, free_bytes, used_bytes; };
int nvmlInit_v2(void) { NVML; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int result) { return result ? "unknown error" : "success"; }
int nvmlSystemGetDriverVersion(char *to, unsigned length) { NVML; return snprintf(to, length, "580.65.06"), 0; }
int nvmlDeviceGetCount_v2(unsigned *to) { NVML; return *to = (unsigned)setting("STAND_IN_DEVICES", 1), 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *to) { NVML; return *to = (handle)(uintptr_t)(i + 1), i < setting("STAND_IN_DEVICES", 1) ? 0 : 2; }
int nvmlDeviceGetName(handle d, char *to, unsigned length) { NVML; (void)d; return snprintf(to, length, "NVIDIA H100 80GB HBM3"), 0; }
int nvmlDeviceGetUUID(handle d, char *to, unsigned length) { NVML; return snprintf(to, length, "GPU-00000000-0000-0000-0000-%012d", (int)(uintptr_t)d), 0; }
int nvmlDeviceGetMemoryInfo_v2(handle d, struct memory *to) {
  NVML;
  (void)d;
  to->total = setting("STAND_IN_MEMORY", 85899345920), to->reserved = 0, to->used_bytes = used, to->free_bytes = to->total - used;
  return 0;
}
int nvmlDeviceGetDefaultApplicationsClock(handle d, int which, unsigned *to) { NVML; (void)d, (void)which; return *to = 1980, 0; }
int nvmlDeviceGetMaxClockInfo(handle d, int which, unsigned *to) { NVML; (void)d; return *to = which == 2 ? 2619 : 1980, 0; }
int nvmlDeviceGetClockInfo(handle d, int which, unsigned *to) { NVML; (void)d; return *to = which == 2 ? 2619 : 1980, 0; }
int nvmlDeviceGetEnforcedPowerLimit(handle d, unsigned *to) { NVML; (void)d; return *to = 700000, 0; }
int nvmlDeviceGetPowerUsage(handle d, unsigned *to) { NVML; (void)d; return *to = 350000, 0; }
int nvmlDeviceGetTotalEnergyConsumption(handle d, u64 *to) {
  NVML;
  (void)d;
  static u64 joules;
  return *to = __atomic_add_fetch(&joules, 35, __ATOMIC_RELAXED) * 1000, 0;
}
int nvmlDeviceGetTemperature(handle d, int which, unsigned *to) { NVML; (void)d, (void)which; return *to = 45, 0; }
int nvmlDeviceGetMigMode(handle d, unsigned *now, unsigned *pending) { NVML; (void)d; return *now = *pending = 0; }
int nvmlDeviceGetCurrentClocksThrottleReasons(handle d, u64 *to) { NVML; (void)d; return *to = setting("STAND_IN_REASONS", 0), 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(handle d, unsigned *count, void *to) { NVML; (void)d, (void)to; return *count = 0; }

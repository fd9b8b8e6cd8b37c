// The launch of a kernel on the host, and the signals that its faults raise. Part of cuda_shim.h, inside its namespace.

// A parameter's type as the caller states it: p pointer, i int or unsigned, l long long, u unsigned long long, f float.
template <class T>
constexpr char type_code() {
  if (std::is_pointer<T>::value) return 'p';
  if (std::is_same<T, float>::value) return 'f';
  if (sizeof(T) == 4) return 'i';
  return std::is_signed<T>::value ? 'l' : 'u';
}

template <auto kernel>
struct Signature;
template <class... A, void (*kernel)(A...)>
struct Signature<kernel> {
  template <size_t... I>
  static void call(void** args, std::index_sequence<I...>) {
    kernel(*static_cast<A*>(args[I])...);
  }
  static void run(void** args) { call(args, std::index_sequence_for<A...>()); }
  static const char* types() {
    static const char codes[] = {type_code<A>()..., 0};
    return codes;
  }
};

// The sanitizers trap by SIGILL on x86-64 and by SIGTRAP on arm64.
constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
constexpr int SIGNAL_COUNT = sizeof SIGNALS / sizeof *SIGNALS;
static struct sigaction before[SIGNAL_COUNT];

static void on_signal(int number, siginfo_t* info, void* context) {
  if (!active || !pthread_equal(owner, pthread_self())) {
    for (int i = 0; i < SIGNAL_COUNT; i++) {
      if (SIGNALS[i] != number) continue;
      if (before[i].sa_flags & SA_SIGINFO) return before[i].sa_sigaction(number, info, context);
      if (before[i].sa_handler != SIG_DFL && before[i].sa_handler != SIG_IGN) return before[i].sa_handler(number);
    }
    // No one else's either: the default action when the instruction is tried again.
    signal(number, SIG_DFL);
    return;
  }
  char where[96];
  char* at = static_cast<char*>(info->si_addr);
  if (number == SIGILL || number == SIGTRAP) fail("%s: a misaligned access, or an index outside an array", place(where, current));
  if (number == SIGFPE) fail("%s: a division by zero", place(where, current));
  if (at >= stacks && at < stacks + MOST_THREADS * (STACK_BYTES + PAGE)) {
    fail("%s: the fiber's stack of %zu bytes is too small", place(where, current), STACK_BYTES);
  }
  char* shared_end = shared_area + shared_area_bytes;
  if (shared_area && at >= shared_area && at < shared_end) {
    fail("%s: an access %td bytes from the start of dynamic shared memory is outside of it", place(where, current),
         at - dynamic_shared);
  }
  // The caller knows the allocations and completes the sentence.
  fail("%s: an access outside device memory at %p", place(where, current), static_cast<void*>(at));
}

// Puts a page that must not be touched below each of the first stacks, up to `count` of them: two areas of the process's address space
// each, of which there are 65,530 for all libraries of a process. The threads of a block run the same code: where one stack is too small,
// the first is.
constexpr unsigned GUARDED = 64;
static void guard_stacks(unsigned count) {
  static unsigned guarded;
  for (; guarded < count && guarded < GUARDED; guarded++) mprotect(stacks + guarded * (STACK_BYTES + PAGE), PAGE, PROT_NONE);
}

static bool prepare() {
  if (stacks) return true;
  const size_t bytes = MOST_THREADS * (STACK_BYTES + PAGE);
  void* all = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (all == MAP_FAILED) return false;
  stacks = static_cast<char*>(all);
  struct sigaction action = {};
  action.sa_sigaction = on_signal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (int i = 0; i < SIGNAL_COUNT; i++) sigaction(SIGNALS[i], &action, &before[i]);
  return true;
}

// Dynamic shared memory of exactly `bytes`, ending at a page that must not be touched.
static bool reserve_shared(unsigned bytes) {
  if (shared_area) munmap(shared_area, shared_area_bytes);
  const size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
  shared_area_bytes = whole + 2 * PAGE;
  void* all = mmap(nullptr, shared_area_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  shared_area = all == MAP_FAILED ? nullptr : static_cast<char*>(all);
  if (!shared_area || (whole && mprotect(shared_area + PAGE, whole, PROT_READ | PROT_WRITE) != 0)) return false;
  // The start keeps the alignment of 16 bytes that kernels count on.
  dynamic_shared = shared_area + PAGE + whole - (bytes + 15) / 16 * 16;
  return true;
}

static int launch(const char* name, void (*run)(void**), const char* parameters, const unsigned* grid, unsigned count,
                  unsigned shared_bytes, void** args, const char* types, char* error, size_t capacity) {
  kernel_name = name;
  error_text = error;
  error_capacity = capacity;
  if (strcmp(parameters, types) != 0) {
    snprintf(error, capacity, "kernel %s takes arguments of types %s and was given %s", name, parameters, types);
    return 1;
  }
  if (count == 0 || count > MOST_THREADS || count % 32 != 0 || grid[0] == 0 || grid[1] == 0 || grid[2] == 0 ||
      grid[0] > 0x7fffffffu || grid[1] > 65535 || grid[2] > 65535) {
    snprintf(error, capacity, "kernel %s cannot be launched on a grid of (%u, %u, %u) blocks of %u threads", name,
             grid[0], grid[1], grid[2], count);
    return 1;
  }
  if (!prepare() || !reserve_shared(shared_bytes)) {
    snprintf(error, capacity, "kernel %s: no memory for stacks and shared memory", name);
    return 1;
  }
  guard_stacks(count);
  body = run;
  arguments = args;
  threads = count;
  blockDim = {count, 1, 1};
  gridDim = {grid[0], grid[1], grid[2]};
  owner = pthread_self();
  active = true;
  if (sigsetjmp(on_failure, 1)) {
    active = false;
    return 1;
  }
  bool backward = false;
  for (unsigned z = 0; z < grid[2]; z++) {
    for (unsigned y = 0; y < grid[1]; y++) {
      for (unsigned x = 0; x < grid[0]; x++, backward = !backward) {
        blockIdx = {x, y, z};
        // Shared memory holds nothing when a block starts: all ones are NaN in both formats.
        if (shared_bytes) memset(dynamic_shared, 0xff, (shared_bytes + 15) / 16 * 16);
        run_block(backward);
      }
    }
  }
  active = false;
  return 0;
}

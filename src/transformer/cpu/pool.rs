//! The threads of one rank, each on a core of its own, and the scratch memory that operations share.
//!
//! A transformer's step is hundreds of operations of a few microseconds to a few milliseconds. Threads that sleep between
//! them take longer to wake than many of them last, so these spin for a while first, and then sleep: where others compete for a core,
//! who spins or yields takes it from the thread that is waited for. A worker that is not there yet when all parts are taken is not
//! waited for.
//!
//! Threads stay bound beside a competitor too: with one on one of two cores, two ranks kept 49 % of their throughput bound, 52 %
//! unbound, and one rank with two threads 53 and 47 % (`ci/stolen-core`).

use super::super::error::SessionError;
use super::array::{Array, CACHE_LINE};
use super::chunks::{Chunked, SyncChunks};
pub(super) use super::chunks::{reading, writing};
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a worker without a job sleeps: about a tenth of a millisecond.
const SPINS: u32 = 4000;

/// Rounds of spinning before a caller sleeps that waits for the last parts: about a millisecond. Where none of its threads lost its
/// core, it waits for less.
const CALLER_SPINS: u32 = 40_000;

/// What `Shared::state` is made of: the workers at the job, whether it takes more, the number of the job.
const ONE_WORKER: usize = 1;
const WORKERS: usize = (1 << 15) - 1;
const CLOSED: usize = 1 << 15;
const ONE_JOB: usize = 1 << 16;

/// What all threads of a pool see.
#[derive(Debug)]
struct Shared {
    /// The number of the last job, [`CLOSED`] once all of its parts are taken, and the [`WORKERS`] that are at it.
    state: AtomicUsize,
    /// The job, as a pointer to the caller's closure; valid for workers that are counted in `state`.
    job: AtomicPtr<Job>,
    /// For each thread how many of its own parts have been taken.
    taken: Box<[Taken]>,
    panicked: AtomicBool,
    leave: AtomicBool,
    asleep: Mutex<usize>,
    wake: Condvar,
    /// Whether the caller sleeps until no worker is at the job.
    caller_asleep: AtomicBool,
    caller: Mutex<()>,
    done: Condvar,
}

/// A counter on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Taken(AtomicUsize);

/// A closure over parts.
struct Job {
    parts: usize,
    /// SAFETY for callers: the pointer is that of a closure that outlives the epoch.
    call: unsafe fn(*const (), usize, usize),
    closure: *const (),
}

/// Threads and scratch.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    pub threads: usize,
    /// The core of the thread that calls; workers have the others.
    own_core: Option<usize>,
    /// Held by who runs a job.
    busy: Mutex<()>,
    scratch: Mutex<Vec<Array>>,
}

thread_local! {
    /// Whether this thread is inside a job: what it starts there runs on itself.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

fn held<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// `threads` threads, the calling one among them; each is bound to its core of `cores`, where cores are given and the
    /// system allows it. The caller is bound by [`Pool::enter`].
    pub(super) fn new(threads: usize, cores: Option<Vec<usize>>) -> Result<Self, SessionError> {
        let shared = Arc::new(Shared {
            state: AtomicUsize::new(CLOSED),
            job: AtomicPtr::new(std::ptr::null_mut()),
            taken: (0..threads).map(|_| Taken::default()).collect(),
            panicked: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
            caller_asleep: AtomicBool::new(false),
            caller: Mutex::new(()),
            done: Condvar::new(),
        });
        let core = |i: usize| cores.as_ref().and_then(|c| c.get(i).copied());
        let mut pool = Self {
            shared,
            workers: Vec::new(),
            threads,
            own_core: core(0),
            busy: Mutex::new(()),
            scratch: Mutex::new(Vec::new()),
        };
        for i in 1..threads {
            let (shared, core) = (Arc::clone(&pool.shared), core(i));
            let life = move || {
                if let Some(core) = core {
                    bind_to_core(core);
                }
                INSIDE.set(true);
                work(&shared, i);
            };
            let thread = std::thread::Builder::new().name(format!("centime-{i}")).spawn(life);
            let refused = |e| SessionError::Invalid(format!("starting {threads} threads: {e}"));
            pool.workers.push(thread.map_err(refused)?);
        }
        Ok(pool)
    }

    /// Runs `f` on the calling thread, bound to the pool's first core.
    pub(super) fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        if let Some(core) = self.own_core {
            bind_to_core(core);
        }
        f()
    }

    /// Calls `f` with 0 to `parts - 1`, each once, on all threads, neighbouring parts on the same; returns when all calls have.
    pub(super) fn each(&self, parts: usize, f: impl Fn(usize) + Sync) {
        self.run(parts, |_, part| f(part));
    }

    /// The same, with scratch of `len` numbers beside each part. It is there for every thread before any begins, so that how much
    /// memory a job takes does not depend on which thread comes first.
    pub(super) fn each_with(&self, parts: usize, len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        let stride = len.next_multiple_of(CACHE_LINE / size_of::<f32>()).max(1);
        let mut all = self.scratch(self.threads * stride);
        let all = writing(&mut all, stride);
        let all = SyncChunks(&all);
        self.run(parts, |thread, part| {
            // SAFETY: each stretch is one thread's, and it is at one part at a time.
            f(part, unsafe { &mut all.get(thread)[..len] });
        });
    }

    /// Calls `f` with a thread's number and a part's, each part once.
    fn run<F: Fn(usize, usize) + Sync>(&self, parts: usize, f: F) {
        // Someone else's job, or one inside a job: on this thread alone, which is slower and no less right.
        let busy = if self.workers.is_empty() || parts < 2 || INSIDE.get() { None } else { self.busy.try_lock().ok() };
        if busy.is_none() {
            (0..parts).for_each(|part| f(0, part));
            return;
        }
        unsafe fn call<F: Fn(usize, usize)>(closure: *const (), thread: usize, part: usize) {
            // SAFETY: `closure` is the F below, which lives until every worker has left the job.
            unsafe { (*closure.cast::<F>())(thread, part) };
        }
        let mut job = Job { parts, call: call::<F>, closure: (&raw const f).cast() };
        let s = &*self.shared;
        s.job.store(&raw mut job, Ordering::Relaxed);
        s.taken.iter().for_each(|t| t.0.store(0, Ordering::Relaxed));
        // Open, and nobody at it: no worker counts itself in while it is closed.
        let number = s.state.load(Ordering::Relaxed) & !(ONE_JOB - 1);
        s.state.store(number.wrapping_add(ONE_JOB), Ordering::SeqCst);
        if *held(&s.asleep) > 0 {
            s.wake.notify_all();
        }
        INSIDE.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| take_parts(s, 0, parts, &f)));
        INSIDE.set(false);
        close(s);
        let panicked = s.panicked.swap(false, Ordering::Relaxed);
        drop(busy);
        if let Err(payload) = own {
            std::panic::resume_unwind(payload);
        }
        assert!(!panicked, "an operation panicked on another thread of its rank");
    }

    /// Calls `f` with each chunk and its number, on all threads.
    pub(super) fn over<C: Chunked>(&self, chunks: C, f: impl Fn(usize, C::Chunk) + Sync) {
        let shared = SyncChunks(&chunks);
        self.each(chunks.count(), |i| {
            // SAFETY: `each` gives every number once.
            f(i, unsafe { shared.get(i) });
        });
    }

    /// Calls `f` with each chunk, its number and scratch of `len` numbers, on all threads.
    pub(super) fn over_with<C: Chunked>(&self, chunks: C, len: usize, f: impl Fn(usize, C::Chunk, &mut [f32]) + Sync) {
        let shared = SyncChunks(&chunks);
        self.each_with(chunks.count(), len, |i, scratch| {
            // SAFETY: `each_with` gives every number once.
            f(i, unsafe { shared.get(i) }, scratch);
        });
    }

    /// Rows a thread should take of `rows`, so that all finish together, and at least `least`.
    pub(super) fn share(&self, rows: usize, least: usize) -> usize {
        rows.div_ceil(self.threads).max(least).max(1)
    }

    /// At least `len` elements of whatever content, on a cache line; given back when dropped.
    pub(super) fn scratch(&self, len: usize) -> Scratch<'_> {
        let mut free = held(&self.scratch);
        // The tightest that fits; where none does, the largest makes way for a larger one, so that scratch does not pile up.
        let tightest = (0..free.len()).filter(|&i| free[i].len() >= len).min_by_key(|&i| free[i].len());
        let largest = (0..free.len()).max_by_key(|&i| free[i].len());
        let array = match (tightest, largest) {
            (Some(i), _) => Some(free.swap_remove(i)),
            (None, Some(i)) => {
                drop(free.swap_remove(i));
                None
            }
            (None, None) => None,
        };
        drop(free);
        Scratch { array: Some(array.unwrap_or_else(|| Array::small(len))), len, home: &self.scratch }
    }
}

/// A thread's own parts are a stretch of all, the same in every job of as many parts, so that it finds in its core's caches what
/// it left there; when they are done it takes what others have not begun.
fn take_parts(s: &Shared, me: usize, parts: usize, f: &dyn Fn(usize, usize)) {
    let threads = s.taken.len();
    for owner in (me..threads).chain(0..me) {
        let (first, past) = (owner * parts / threads, (owner + 1) * parts / threads);
        loop {
            let part = first + s.taken[owner].0.fetch_add(1, Ordering::Relaxed);
            if part >= past {
                break;
            }
            f(me, part);
        }
    }
}

/// A worker's life.
fn work(s: &Shared, me: usize) {
    let mut seen = 0;
    while !s.leave.load(Ordering::Acquire) {
        seen = wait_for_job(s, seen);
        if !join(s) {
            continue;
        }
        let job = s.job.load(Ordering::Relaxed).cast_const();
        if !job.is_null() {
            // SAFETY: the caller keeps the job alive until no worker is counted in it, and this one is.
            let Job { parts, call, closure } = unsafe { &*job };
            // SAFETY: the closure is the one that `call` was made for, alive as the job is.
            let one = |thread: usize, part: usize| unsafe { call(*closure, thread, part) };
            if catch_unwind(AssertUnwindSafe(|| take_parts(s, me, *parts, &one))).is_err() {
                s.panicked.store(true, Ordering::Relaxed);
            }
        }
        let before = s.state.fetch_sub(ONE_WORKER, Ordering::SeqCst);
        if before & WORKERS == ONE_WORKER && s.caller_asleep.load(Ordering::SeqCst) {
            drop(held(&s.caller));
            s.done.notify_one();
        }
    }
}

/// Counts the calling worker in at the job, if that still takes some.
fn join(s: &Shared) -> bool {
    let one_more = |state: usize| (state & CLOSED == 0).then_some(state + ONE_WORKER);
    s.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
}

/// Lets no more workers in at the job, all parts of which are taken, and returns when those at it have left. Spins, then sleeps: to
/// give the core away between looks instead would give a slice of time for every look to whoever competes for it.
fn close(s: &Shared) {
    let mut state = s.state.fetch_or(CLOSED, Ordering::AcqRel);
    for _ in 0..CALLER_SPINS {
        if state & WORKERS == 0 {
            return;
        }
        std::hint::spin_loop();
        state = s.state.load(Ordering::Acquire);
    }
    let mut guard = held(&s.caller);
    s.caller_asleep.store(true, Ordering::SeqCst);
    // The last worker counts itself out before it looks who sleeps, so that its end is not missed.
    while s.state.load(Ordering::SeqCst) & WORKERS != 0 {
        guard = s.done.wait(guard).unwrap_or_else(PoisonError::into_inner);
    }
    s.caller_asleep.store(false, Ordering::Relaxed);
}

/// Spins, then sleeps, until there has been another job than the one of number `seen`; its number.
fn wait_for_job(s: &Shared, seen: usize) -> usize {
    let number = |order| s.state.load(order) / ONE_JOB;
    for _ in 0..SPINS {
        let now = number(Ordering::Acquire);
        if now != seen {
            return now;
        }
        std::hint::spin_loop();
    }
    let mut asleep = held(&s.asleep);
    *asleep += 1;
    // The caller counts a job before it looks who sleeps, so that none is missed.
    while number(Ordering::SeqCst) == seen {
        asleep = s.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
    }
    *asleep -= 1;
    number(Ordering::Acquire)
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.leave.store(true, Ordering::Release);
        self.shared.state.fetch_add(ONE_JOB, Ordering::SeqCst);
        drop(held(&self.shared.asleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what operations throw; there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

/// Borrowed scratch memory.
#[derive(Debug)]
pub(super) struct Scratch<'a> {
    array: Option<Array>,
    len: usize,
    home: &'a Mutex<Vec<Array>>,
}

impl Deref for Scratch<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        self.array.as_deref().map_or(&[], |a| &a[..self.len])
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        self.array.as_deref_mut().map_or(&mut [], |a| &mut a[..self.len])
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if let Some(array) = self.array.take() {
            held(self.home).push(array);
        }
    }
}

/// Binds the calling thread to a core; without effect where the system has no such call or refuses.
pub(in crate::transformer) fn bind_to_core(core: usize) {
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        if core < rustix::thread::CpuSet::MAX_CPU {
            set.set(core);
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = core;
}

/// The cores that this process may run on, ascending.
pub(in crate::transformer) fn allowed_cores() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    if let Ok(set) = rustix::thread::sched_getaffinity(None) {
        return (0..rustix::thread::CpuSet::MAX_CPU).filter(|c| set.is_set(*c)).collect();
    }
    (0..std::thread::available_parallelism().map_or(1, |n| n.get())).collect()
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod pool_tests;

//! The threads of one rank, each on a core of its own, and the scratch memory that operations share.
//!
//! A transformer's step is hundreds of operations of a few microseconds to a few milliseconds. Threads that sleep between
//! them take longer to wake than many of them last, so these spin for a while first: the cores are the rank's own.

use super::super::session::SessionError;
use super::array::Array;
use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Rounds of spinning before a thread sleeps: about a tenth of a millisecond.
const SPINS: u32 = 4000;

/// What all threads of a pool see.
#[derive(Debug)]
struct Shared {
    /// Counts the jobs; a change tells the workers that there is one.
    epoch: AtomicUsize,
    /// The job, as a pointer to the caller's closure; valid while `working` is not zero.
    job: AtomicPtr<Job>,
    /// The next part to take.
    next: AtomicUsize,
    /// Workers that are not through with this epoch.
    working: AtomicUsize,
    panicked: AtomicBool,
    leave: AtomicBool,
    asleep: Mutex<usize>,
    wake: Condvar,
}

/// A closure over parts.
struct Job {
    parts: usize,
    /// SAFETY for callers: the pointer is that of a closure that outlives the epoch.
    call: unsafe fn(*const (), usize),
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
    pub fn new(threads: usize, cores: Option<Vec<usize>>) -> Result<Self, SessionError> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            next: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            asleep: Mutex::new(0),
            wake: Condvar::new(),
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
                work(&shared);
            };
            let thread = std::thread::Builder::new().name(format!("centime-{i}")).spawn(life);
            let refused = |e| SessionError::Invalid(format!("starting {threads} threads: {e}"));
            pool.workers.push(thread.map_err(refused)?);
        }
        Ok(pool)
    }

    /// Runs `f` on the calling thread, bound to the pool's first core.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        if let Some(core) = self.own_core {
            bind_to_core(core);
        }
        f()
    }

    /// Calls `f` with 0 to `parts - 1`, each once, on all threads; returns when all calls have.
    pub fn each<F: Fn(usize) + Sync>(&self, parts: usize, f: F) {
        // Someone else's job, or one inside a job: on this thread alone, which is slower and no less right.
        let busy = if self.workers.is_empty() || parts < 2 || INSIDE.get() { None } else { self.busy.try_lock().ok() };
        if busy.is_none() {
            (0..parts).for_each(f);
            return;
        }
        unsafe fn call<F: Fn(usize)>(closure: *const (), part: usize) {
            // SAFETY: `closure` is the F below, which lives until every worker has left the epoch.
            unsafe { (*closure.cast::<F>())(part) };
        }
        let mut job = Job { parts, call: call::<F>, closure: (&raw const f).cast() };
        let s = &*self.shared;
        s.job.store(&raw mut job, Ordering::Relaxed);
        s.next.store(0, Ordering::Relaxed);
        s.working.store(self.workers.len(), Ordering::Relaxed);
        s.epoch.fetch_add(1, Ordering::SeqCst);
        if *held(&s.asleep) > 0 {
            s.wake.notify_all();
        }
        INSIDE.set(true);
        let own = catch_unwind(AssertUnwindSafe(|| take_parts(s, parts, &f)));
        INSIDE.set(false);
        let mut spins = 0u32;
        while s.working.load(Ordering::Acquire) != 0 {
            spins = spins.saturating_add(1);
            // With fewer cores than threads the others need this one.
            if spins > SPINS { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        let panicked = s.panicked.swap(false, Ordering::Relaxed);
        drop(busy);
        if let Err(payload) = own {
            std::panic::resume_unwind(payload);
        }
        assert!(!panicked, "an operation panicked on another thread of its rank");
    }

    /// Calls `f` with each chunk and its number, on all threads.
    pub fn over<C: Chunked>(&self, chunks: C, f: impl Fn(usize, C::Chunk) + Sync) {
        let shared = SyncChunks(&chunks);
        self.each(chunks.count(), |i| {
            // SAFETY: `each` gives every number once.
            f(i, unsafe { shared.get(i) });
        });
    }

    /// Rows a thread should take of `rows`, so that all finish together, and at least `least`.
    pub fn share(&self, rows: usize, least: usize) -> usize {
        rows.div_ceil(self.threads).max(least).max(1)
    }

    /// At least `len` numbers of whatever content, on a cache line; given back when dropped.
    pub fn scratch(&self, len: usize) -> Scratch<'_> {
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

fn take_parts(s: &Shared, parts: usize, f: &dyn Fn(usize)) {
    loop {
        let part = s.next.fetch_add(1, Ordering::Relaxed);
        if part >= parts {
            return;
        }
        f(part);
    }
}

/// A worker's life.
fn work(s: &Shared) {
    let mut seen = 0;
    loop {
        seen = wait_for_job(s, seen);
        if s.leave.load(Ordering::Acquire) {
            return;
        }
        let job = s.job.load(Ordering::Relaxed).cast_const();
        if !job.is_null() {
            // SAFETY: the caller keeps the job alive until `working` is zero, and this worker still counts in it.
            let Job { parts, call, closure } = unsafe { &*job };
            // SAFETY: the closure is the one that `call` was made for, alive as the job is.
            let one = |part: usize| unsafe { call(*closure, part) };
            if catch_unwind(AssertUnwindSafe(|| take_parts(s, *parts, &one))).is_err() {
                s.panicked.store(true, Ordering::Relaxed);
            }
        }
        s.working.fetch_sub(1, Ordering::Release);
    }
}

/// Spins, then sleeps, until the epoch is another one than `seen`.
fn wait_for_job(s: &Shared, seen: usize) -> usize {
    for _ in 0..SPINS {
        let now = s.epoch.load(Ordering::Acquire);
        if now != seen {
            return now;
        }
        std::hint::spin_loop();
    }
    let mut asleep = held(&s.asleep);
    *asleep += 1;
    // The caller raises the epoch before it looks who sleeps, so that no job is missed.
    while s.epoch.load(Ordering::SeqCst) == seen {
        asleep = s.wake.wait(asleep).unwrap_or_else(PoisonError::into_inner);
    }
    *asleep -= 1;
    s.epoch.load(Ordering::Acquire)
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.leave.store(true, Ordering::Release);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        drop(held(&self.shared.asleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches what operations throw; there is nothing to learn from its end.
            let _ = worker.join();
        }
    }
}

/// Data in numbered pieces that do not overlap, so that threads can hold different ones at once.
pub(super) trait Chunked: Sync {
    type Chunk;
    fn count(&self) -> usize;
    /// # Safety
    /// No number is asked for twice while a piece of it is alive; `i < count()`.
    unsafe fn chunk(&self, i: usize) -> Self::Chunk;
}

struct SyncChunks<'a, C>(&'a C);

impl<C: Chunked> SyncChunks<'_, C> {
    unsafe fn get(&self, i: usize) -> C::Chunk {
        // SAFETY: the caller's obligation is the same.
        unsafe { self.0.chunk(i) }
    }
}

/// Pieces to write.
pub(super) struct Writing<'a, T> {
    start: *mut T,
    len: usize,
    size: usize,
    borrowed: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: pieces do not overlap, and `chunk`'s callers take each once: as sending `&mut [T]`s to threads.
unsafe impl<T: Send> Sync for Writing<'_, T> {}

/// `data` in pieces of `size`, the last one perhaps shorter.
pub(super) fn writing<T>(data: &mut [T], size: usize) -> Writing<'_, T> {
    Writing { start: data.as_mut_ptr(), len: data.len(), size: size.max(1), borrowed: std::marker::PhantomData }
}

impl<'a, T: Send> Chunked for Writing<'a, T> {
    type Chunk = &'a mut [T];
    fn count(&self) -> usize {
        self.len.div_ceil(self.size)
    }
    unsafe fn chunk(&self, i: usize) -> &'a mut [T] {
        let from = (i * self.size).min(self.len);
        let len = self.size.min(self.len - from);
        // SAFETY: within the borrowed slice; the caller asks for each piece once, so that no two overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }
}

/// Pieces to read.
pub(super) struct Reading<'a, T> {
    data: &'a [T],
    size: usize,
}

/// `data` in pieces of `size`, the last one perhaps shorter.
pub(super) fn reading<T>(data: &[T], size: usize) -> Reading<'_, T> {
    Reading { data, size: size.max(1) }
}

impl<'a, T: Sync> Chunked for Reading<'a, T> {
    type Chunk = &'a [T];
    fn count(&self) -> usize {
        self.data.len().div_ceil(self.size)
    }
    unsafe fn chunk(&self, i: usize) -> &'a [T] {
        let from = (i * self.size).min(self.data.len());
        &self.data[from..(from + self.size).min(self.data.len())]
    }
}

macro_rules! chunked_together {
    ($($name:ident $at:tt),+) => {
        impl<$($name: Chunked),+> Chunked for ($($name,)+) {
            type Chunk = ($($name::Chunk,)+);
            fn count(&self) -> usize {
                // As zip does: as many as all have.
                [$(self.$at.count()),+].into_iter().min().unwrap_or(0)
            }
            unsafe fn chunk(&self, i: usize) -> Self::Chunk {
                // SAFETY: the caller's obligation is the same for each part.
                ($(unsafe { self.$at.chunk(i) },)+)
            }
        }
    };
}
chunked_together!(A 0, B 1);
chunked_together!(A 0, B 1, C 2);
chunked_together!(A 0, B 1, C 2, D 3);

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
mod tests {
    use super::*;

    #[test]
    fn every_part_is_called_once_whatever_their_number() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads, None).unwrap();
            for round in 0..300 {
                let parts = round % 17;
                let calls: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
                pool.each(parts, |i| {
                    calls[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(calls.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} {parts}");
                if round % 100 == 0 {
                    // Long enough for the workers to fall asleep.
                    std::thread::sleep(std::time::Duration::from_millis(3));
                }
            }
        }
    }

    #[test]
    fn pieces_cover_the_data_and_do_not_overlap() {
        let pool = Pool::new(3, None).unwrap();
        let source: Vec<u32> = (0..1003).collect();
        let mut to = vec![0u32; 1003];
        pool.over((writing(&mut to, 64), reading(&source, 64)), |_, (to, from)| to.copy_from_slice(from));
        assert_eq!(to, source);
    }

    #[test]
    fn a_job_inside_a_job_and_from_several_threads_is_done() {
        let pool = Pool::new(2, None).unwrap();
        let count = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..50 {
                        pool.each(4, |_| {
                            pool.each(3, |_| {
                                count.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 4 * 50 * 12);
    }

    #[test]
    fn a_panic_in_an_operation_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2, None).unwrap();
        let failed = catch_unwind(AssertUnwindSafe(|| pool.each(64, |i| assert!(i != 40, "planted"))));
        assert!(failed.is_err());
        let count = AtomicUsize::new(0);
        pool.each(64, |_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 64);
    }
}

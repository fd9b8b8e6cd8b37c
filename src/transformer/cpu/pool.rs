//! The threads of one rank: a rayon pool of its own, on cores of its own, and the scratch memory that operations share.

use super::super::session::SessionError;
use super::array::Array;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

/// Threads and scratch.
#[derive(Debug)]
pub(super) struct Pool {
    pool: ThreadPool,
    pub threads: usize,
    scratch: Mutex<Vec<Array>>,
}

impl Pool {
    /// `threads` threads; each is bound to its core of `cores`, where cores are given and the system allows it.
    pub fn new(threads: usize, cores: Option<Vec<usize>>) -> Result<Self, SessionError> {
        let mut builder = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("centime-{i}"));
        if let Some(cores) = cores {
            builder = builder.start_handler(move |i| {
                if let Some(core) = cores.get(i) {
                    bind_to_core(*core);
                }
            });
        }
        let pool = builder.build().map_err(|e| SessionError::Invalid(format!("starting {threads} threads: {e}")))?;
        Ok(Self { pool, threads, scratch: Mutex::new(Vec::new()) })
    }

    /// Runs `f` on the pool's threads.
    pub fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }

    /// Rows a thread should take of `rows`, so that all finish together, and at least `least`.
    pub fn share(&self, rows: usize, least: usize) -> usize {
        rows.div_ceil(self.threads).max(least).max(1)
    }

    /// At least `len` numbers of whatever content; given back when dropped.
    pub fn scratch(&self, len: usize) -> Scratch<'_> {
        let mut free = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = free.iter().position(|a| a.len() >= len);
        let array = fitting.map(|i| free.swap_remove(i));
        drop(free);
        Scratch { array: Some(array.unwrap_or_else(|| Array::small(len))), len, home: &self.scratch }
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
            self.home.lock().unwrap_or_else(PoisonError::into_inner).push(array);
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

//! Compiled kernels of this process: each is compiled once, by whichever rank needs it first, or many at a time, on all cores.

use super::super::device::KernelName;
use super::cache::Cache;
use super::compiler::{CompileError, Compiler, Image};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What came of a compilation; whoever else wants it waits.
type Slot = Arc<OnceLock<Result<Arc<Image>, CompileError>>>;

/// Where a device has its kernels from.
#[derive(Clone, Debug)]
pub(super) struct Images {
    compiler: Compiler,
    cache: Cache,
}

impl Images {
    pub(super) fn new(compiler: Compiler, cache: Cache) -> Self {
        Self { compiler, cache }
    }

    /// Devices of one kind share what is compiled for them.
    fn slot(key: &str) -> Slot {
        static SLOTS: Mutex<Option<HashMap<String, Slot>>> = Mutex::new(None);
        let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.get_or_insert_default().entry(key.into()).or_default())
    }

    /// A kernel, from this process, from the cache, or compiled now.
    ///
    /// # Errors
    /// The compiler's, the same every time.
    pub(super) fn get(&self, name: KernelName) -> Result<Arc<Image>, CompileError> {
        let key = self.compiler.key(name)?;
        let slot = Self::slot(&key);
        slot.get_or_init(|| self.cache.get(&key, || self.compiler.compile(name)).map(Arc::new)).clone()
    }

    /// Compiles each of these by itself, past process and cache, and says how long it took.
    ///
    /// # Errors
    /// The compiler's.
    pub(super) fn timed(&self, names: &[KernelName]) -> Result<Vec<Duration>, CompileError> {
        let one = |name: &KernelName| {
            let began = Instant::now();
            self.compiler.compile(*name).map(|_| began.elapsed())
        };
        names.iter().map(one).collect()
    }

    /// Gets all of these, on as many threads as there are cores (NVRTC compiles programs beside each other). What fails is told when
    /// it is asked for.
    pub(super) fn get_all(&self, names: &[KernelName]) {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(names.len());
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let _ = self.get(*name);
                    }
                });
            }
        });
    }
}

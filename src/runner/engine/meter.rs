//! Memory of a program: of all the processes below this one together, looked at now and then.

use crate::runner::family::descendants;
use crate::runner::memory::resident_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Between two looks: short at first, since programs may be; a look takes a tenth of a millisecond.
const FIRST: Duration = Duration::from_millis(2);
const LAST: Duration = Duration::from_millis(50);

/// A thread that looks.
pub(super) struct Meter {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    peak: AtomicU64,
    /// A program has just been started.
    anew: AtomicBool,
    over: AtomicBool,
}

impl Meter {
    pub(crate) fn start() -> Self {
        let state = Arc::new(State::default());
        let seen = Arc::clone(&state);
        // Without a thread memory is not known, and is said to be.
        let thread = thread::Builder::new().name("memory".into()).spawn(move || watch(&seen)).ok();
        Self { state, thread }
    }

    /// A program has been started.
    pub(crate) fn anew(&self) {
        self.state.anew.store(true, Ordering::Relaxed);
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// The most that the processes held together at a time, or that one of them ever held; 0 where nothing was seen.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.state.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

fn watch(state: &State) {
    let mut pause = FIRST;
    while !state.over.load(Ordering::Relaxed) {
        if state.anew.swap(false, Ordering::Relaxed) {
            pause = FIRST;
        }
        state.peak.fetch_max(held(), Ordering::Relaxed);
        thread::park_timeout(pause);
        pause = (pause * 5 / 4).min(LAST);
    }
}

/// Resident bytes of all of them now; pages that two of them share count twice. One alone may have held more before.
fn held() -> u64 {
    let each: Vec<_> = descendants(std::process::id()).iter().filter_map(|m| resident_of(m.pid)).collect();
    let together = each.iter().map(|r| r.now).fold(0, u64::saturating_add);
    each.iter().map(|r| r.peak).fold(together, u64::max)
}

//! Batches of a rank, made one ahead on a thread of their own while a step runs.

use super::super::course::{Course, Pair, Part};
use super::super::error::SessionError;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a rank is taught.
pub(in crate::transformer) struct Feed {
    pub course: Course,
    pub part: Part,
    /// `None` once it ends, which tells the thread to leave.
    made: Option<Receiver<Pair>>,
    thread: Option<JoinHandle<()>>,
    waited: Duration,
}

impl Feed {
    /// Begins with the batch of step `first`. To be called from a thread that may run on any core: the thread that makes batches
    /// inherits where it may run.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn start(course: Course, part: Part, first: u64) -> Result<Self, SessionError> {
        let (send, made) = sync_channel(1);
        let batches = course.batches.clone();
        let make = move || {
            let mut step = first;
            while send.send(batches.training(step, part)).is_ok() {
                step += 1;
            }
        };
        let thread = std::thread::Builder::new().name("centime-batches".into()).spawn(make);
        let thread = thread.map_err(|e| SessionError::Invalid(format!("starting a thread: {e}")))?;
        Ok(Self { course, part, made: Some(made), thread: Some(thread), waited: Duration::ZERO })
    }

    /// The next step's batch.
    ///
    /// # Errors
    /// The thread that makes batches has ended.
    pub(crate) fn next(&mut self) -> Result<Pair, SessionError> {
        let begun = Instant::now();
        let pair = self.made.as_ref().and_then(|made| made.recv().ok());
        self.waited += begun.elapsed();
        pair.ok_or_else(|| SessionError::Invalid("the thread that makes batches ended unexpectedly".into()))
    }

    /// Seconds for which steps have waited for their batches.
    pub(crate) fn waited(&self) -> f64 {
        self.waited.as_secs_f64()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.made = None;
        if let Some(thread) = self.thread.take() {
            // Should it have panicked, `next` has told so.
            let _ = thread.join();
        }
    }
}

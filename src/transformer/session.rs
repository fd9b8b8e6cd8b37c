//! What can be stepped and timed: a workload whose weights, caches and buffers are there. `prepare` makes one.
//!
//! Whoever drives the session times its steps; the one clock read behind it tells when a prompt's first token was there.

use super::BackendKind;
use super::checkpoint::written::Written;
use super::collective::grid::Parallel;
use super::course::Course;
use super::error::SessionError;
use super::loads::Loads;
use super::memory::DeviceMemory;
use super::trace::Track;
use std::path::Path;
use std::time::Instant;

/// What a session runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    /// Where the operations run.
    pub backend: BackendKind,
    /// How many ranks there are and how they share the workload; each has its own cores.
    pub parallel: Parallel,
    /// Threads of each rank.
    pub threads_per_rank: u32,
    /// Seeds weights, inputs and dropout masks.
    pub seed: u64,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// Tokens processed by all ranks together.
    pub tokens: u64,
    /// Mean loss over the batch, in training.
    pub loss: Option<f32>,
    /// Seconds from the start of the step to the first token, in `generate`; the rest of the step is decoding.
    pub first_token_seconds: Option<f64>,
}

/// Something whose steps can be timed.
pub trait Session {
    /// Runs one step of the workload on all ranks and returns when its results are there.
    ///
    /// # Errors
    /// [`SessionError`] when the device fails; the session is then of no further use.
    fn step(&mut self) -> Result<StepOutcome, SessionError>;

    /// A checksum of what the steps so far computed: same workload, seed and step count give the same value on the same
    /// backend and thread count.
    fn checksum(&self) -> u32;

    /// What devices with memory of their own gave at the most so far, from the start of the process.
    fn device_memory(&self) -> Option<DeviceMemory> {
        None
    }

    /// How the tokens of the last pass were spread over experts, of models that have any.
    fn loads(&self) -> Option<Loads> {
        None
    }

    /// One more step, with what every rank of this process did in it, times counted from `epoch`. A session that has nothing to tell of
    /// makes no step.
    ///
    /// # Errors
    /// Those of [`Session::step`].
    fn traced_step(&mut self, _epoch: Instant) -> Result<Vec<Track>, SessionError> {
        Ok(Vec::new())
    }

    /// How long the last step took by the session's own account, in seconds; `None`: as whoever drives it has timed it.
    fn last_seconds(&self) -> Option<f64> {
        None
    }

    /// Of a session whose work other processes do: the most resident bytes that they have held together so far.
    fn elsewhere(&self) -> Option<u64> {
        None
    }

    /// Has a training session taught by batches of its own from its next step on. Every process of a session is told.
    ///
    /// # Errors
    /// A session that trains no model with a vocabulary.
    fn enrol(&mut self, _course: Course) -> Result<(), SessionError> {
        Err(SessionError::Invalid("only the built-in transformer's training can be taught".into()))
    }

    /// The next step of a session that is taught, at this learning rate.
    ///
    /// # Errors
    /// Those of [`Session::step`].
    fn train(&mut self, _rate: f32) -> Result<StepOutcome, SessionError> {
        Err(SessionError::Invalid("only the built-in transformer's training can be taught".into()))
    }

    /// The mean loss over the first `batches` of the validation set, without dropout and without a gradient.
    ///
    /// # Errors
    /// Those of [`Session::step`].
    fn evaluate(&mut self, _batches: u64) -> Result<f64, SessionError> {
        Err(SessionError::Invalid("only the built-in transformer's training can be taught".into()))
    }

    /// Writes what training has come to, parameters and the optimizer's moments, into files of this folder, and returns when they are
    /// on the disk: what was written.
    ///
    /// # Errors
    /// Disk or permissions, in words; the session goes on as if nothing had been asked.
    fn save(&mut self, _folder: &Path) -> Result<Vec<Written>, String> {
        Err("only the built-in transformer's training has checkpoints".into())
    }

    /// Goes on from what [`Session::save`] wrote of a session like this one after so many steps; its next step is the one after.
    ///
    /// # Errors
    /// Files that cannot be read or are of another session; this one is then of no further use.
    fn restore(&mut self, _folder: &Path, _step: u64) -> Result<(), SessionError> {
        Err(SessionError::Invalid("only the built-in transformer's training has checkpoints".into()))
    }

    /// Seconds for which steps so far have waited for their batches, of the rank that waited longest.
    fn waited(&self) -> Option<f64> {
        None
    }

    /// In a process that does not lead: steps when it is told to, until it is told that there are no more; the seconds of each.
    ///
    /// # Errors
    /// [`SessionError`]; that the process that leads is gone.
    fn follow(&mut self) -> Result<Vec<f64>, SessionError> {
        Err(SessionError::Invalid("a session of one process has nobody to follow".into()))
    }
}

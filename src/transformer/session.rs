//! A workload made ready to be stepped: weights initialised, caches filled, buffers allocated.
//!
//! The session knows no clock: whoever drives it times the calls.

use super::{BackendKind, Workload};
use crate::units::Bytes;

/// What a session runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    pub backend: BackendKind,
    /// Data-parallel ranks: each has a replica and its own cores; the batch is split among them.
    pub ranks: u32,
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

/// Bytes by what they hold, over all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MemoryParts {
    pub weights_bytes: u64,
    pub gradients_bytes: u64,
    pub optimizer_bytes: u64,
    pub activations_bytes: u64,
    pub kv_cache_bytes: u64,
    pub workspace_bytes: u64,
}

impl MemoryParts {
    /// The sum of the parts; `None` when it overflows.
    pub fn total(&self) -> Option<Bytes> {
        [self.gradients_bytes, self.optimizer_bytes, self.activations_bytes, self.kv_cache_bytes, self.workspace_bytes]
            .into_iter()
            .try_fold(self.weights_bytes, u64::checked_add)
            .map(Bytes)
    }
}

/// Why a session could not be prepared or stepped.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("backend {0} is not built into this program, or finds no device; use backend: cpu or auto")]
    NoBackend(BackendKind),
    #[error("dtype {dtype} is not available on backend {backend}; use dtype: f32")]
    NoDtype { dtype: super::Dtype, backend: BackendKind },
    #[error("{0}")]
    Invalid(String),
    #[error("out of memory: {0}")]
    OutOfMemory(String),
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
}

/// Builds the model of `workload` with seeded random weights and gets it ready for its first step.
///
/// # Errors
/// A backend or dtype that is not there; a workload that cannot run (a block has no tokens to decode); memory.
pub fn prepare(workload: &Workload, options: &SessionOptions) -> Result<Box<dyn Session>, SessionError> {
    let _ = workload;
    Err(SessionError::NoBackend(options.backend))
}

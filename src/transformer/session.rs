//! A workload made ready to be stepped: weights initialised, caches filled, buffers allocated.
//!
//! Whoever drives the session times its steps; the one clock read in here tells when a prompt's first token was there.

use super::collective::grid::{Groups, Parallel, of_threads};
use super::collective::net::Net;
use super::collective::tcp;
use super::cpu::pool::allowed_cores;
use super::cpu::{Cpu, naive::Naive};
use super::cuda;
use super::ranks::Ranks;
use super::shape::Family;
use super::together::Together;
use super::{BackendKind, Dtype, Phase, WeightFormat, Workload};
use crate::units::Bytes;
use std::ops::DerefMut;

/// What a session runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
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

/// The most that devices' allocators had given out, and had taken from the devices for it, at one time; over all ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceMemory {
    pub peak_allocated_bytes: u64,
    pub peak_reserved_bytes: u64,
}

impl DeviceMemory {
    /// Of several devices together; `None` unless each tells.
    pub fn sum(each: impl IntoIterator<Item = Option<Self>>) -> Option<Self> {
        each.into_iter().try_fold(Self::default(), |all, one| {
            let one = one?;
            Some(Self {
                peak_allocated_bytes: all.peak_allocated_bytes.checked_add(one.peak_allocated_bytes)?,
                peak_reserved_bytes: all.peak_reserved_bytes.checked_add(one.peak_reserved_bytes)?,
            })
        })
    }
}

/// Why a session could not be prepared or stepped.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("backend cuda: {0}; or use backend: cpu or auto")]
    NoCuda(String),
    #[error("{0}")]
    Device(String),
    #[error("dtype {dtype} is not available on backend {backend}; use dtype: f32")]
    NoDtype { dtype: super::Dtype, backend: BackendKind },
    #[error("weights: {weights} is not available on backend {backend}; use weights: dtype, or backend: cpu")]
    NoWeights { weights: WeightFormat, backend: BackendKind },
    #[error("{0}")]
    Invalid(String),
    #[error("a rank ended before the others; what they computed since means nothing")]
    LostRank,
    /// Another process, by its rank, or what kept processes apart.
    #[error("{0}")]
    Lost(String),
    #[error("out of memory: {0}")]
    OutOfMemory(String),
}

impl SessionError {
    /// Whether the reason lies with another rank, which may tell a better one.
    pub fn is_consequence(&self) -> bool {
        matches!(self, Self::LostRank | Self::Lost(_))
    }
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

    /// In a process that does not lead: steps when it is told to, until it is told that there are no more; the seconds of each.
    ///
    /// # Errors
    /// [`SessionError`]; that the process that leads is gone.
    fn follow(&mut self) -> Result<Vec<f64>, SessionError> {
        Err(SessionError::Invalid("a session of one process has nobody to follow".into()))
    }
}

/// Whether a backend of this build computes in this format.
pub fn supports(backend: BackendKind, dtype: Dtype, weights: WeightFormat) -> bool {
    match backend {
        BackendKind::Cpu => dtype != Dtype::Tf32,
        BackendKind::Naive => dtype == Dtype::F32 && weights == WeightFormat::Dtype,
        BackendKind::Cuda => weights == WeightFormat::Dtype,
    }
}

/// Builds the model of `workload` with seeded random weights and gets it ready for its first step.
///
/// # Errors
/// A backend or dtype that is not there; a workload that cannot run (a block has no tokens to decode); memory.
pub fn prepare(workload: &Workload, options: &SessionOptions) -> Result<Box<dyn Session>, SessionError> {
    Ok(Box::new(build(workload, options, None)?))
}

/// The same, shared with other processes. The one that leads steps for all ([`Session::step`]), the others [`Session::follow`].
///
/// # Errors
/// Those of [`prepare`], of this process or another; ranks that do not divide among the processes; a process that is gone.
pub fn prepare_among(
    workload: &Workload,
    options: &SessionOptions,
    net: Net,
) -> Result<Box<dyn Session>, SessionError> {
    let made = build(workload, options, Some(&net));
    Ok(Box::new(Together::form(made, net)?))
}

fn build(workload: &Workload, options: &SessionOptions, net: Option<&Net>) -> Result<Ranks, SessionError> {
    check(workload, options)?;
    match options.backend {
        BackendKind::Naive => Ranks::start(workload, options, groups(options, net)?, |_| Ok(Naive)),
        BackendKind::Cpu => {
            let cores = allowed_cores();
            let threads = options.threads_per_rank.max(1) as usize;
            let groups = groups(options, net)?;
            // Processes of a node that were not given cores of their own share them out by their places.
            let all = groups.len() * threads;
            let first = net.map_or(0, |n| n.world.local_rank * all);
            let first = if first + all <= cores.len() { first } else { 0 };
            let backend = |rank: usize| {
                // A rank's threads get cores of their own, as far as there are enough.
                let own = cores.get(first + rank * threads..first + (rank + 1) * threads).map(<[usize]>::to_vec);
                Ok(Cpu::new(threads, own)?.with_dtype(workload.dtype).with_weights(workload.weights))
            };
            Ranks::start(workload, options, groups, backend)
        }
        BackendKind::Cuda => {
            let (ranks, groups) = cuda::nccl::open(&options.parallel, workload.dtype, net)?;
            let rank = |rank: usize| {
                ranks.get(rank).cloned().ok_or_else(|| SessionError::Invalid(format!("no device for rank {rank}")))
            };
            Ranks::start(workload, options, groups, rank)
        }
    }
}

/// The groups of ranks whose buffers lie in host memory.
fn groups<T: DerefMut<Target = [f32]>>(
    options: &SessionOptions,
    net: Option<&Net>,
) -> Result<Vec<Groups<T>>, SessionError> {
    net.map_or_else(|| Ok(of_threads(&options.parallel)), |net| tcp::open(&options.parallel, net))
}

fn check(w: &Workload, options: &SessionOptions) -> Result<(), SessionError> {
    let invalid = |message: String| Err(SessionError::Invalid(message));
    if !supports(options.backend, w.dtype, WeightFormat::Dtype) {
        return Err(SessionError::NoDtype { dtype: w.dtype, backend: options.backend });
    }
    if !supports(options.backend, w.dtype, w.weights) {
        return Err(SessionError::NoWeights { weights: w.weights, backend: options.backend });
    }
    if !w.shape.has_vocabulary_head() && matches!(w.phase, Phase::Decode | Phase::Generate) {
        return invalid(format!(
            "family block regresses vectors and has no tokens to {}; use phase: train or prefill",
            w.phase
        ));
    }
    if let Err(e) = options.parallel.check(&w.shape, w.batch) {
        return invalid(format!("{}: {e}", if e.batch { "batch" } else { "parallel.tensor" }));
    }
    let longest = w.longest_sequence();
    if longest == 0 || (w.phase != Phase::Train && w.prompt_len == 0) {
        return invalid("a sequence of 0 tokens has nothing to compute; use 1 or more".into());
    }
    if matches!(w.phase, Phase::Decode | Phase::Generate) && w.new_tokens == 0 {
        return invalid(format!("{} makes no token with new_tokens: 0; use 1 or more", w.phase));
    }
    if options.backend == BackendKind::Cuda && w.shape.head_dim as usize > cuda::LARGEST_HEAD_DIM {
        return invalid(format!(
            "head_dim {} is beyond the {} of backend cuda; use more heads, or backend: cpu",
            w.shape.head_dim,
            cuda::LARGEST_HEAD_DIM
        ));
    }
    if w.shape.family == Family::Gpt2 && longest > w.shape.context {
        let context = w.shape.context;
        return invalid(format!(
            "{longest} tokens exceed the model's {context} learned positions; shorten them or raise context"
        ));
    }
    Ok(())
}

//! A workload made ready to be stepped: checked, weights initialised, caches filled, buffers allocated. The one place that knows
//! every backend.

use super::collective::grid::{self, Groups, Parallel, of_threads};
use super::collective::net::Net;
use super::collective::tcp;
use super::cpu::pool::allowed_cores;
use super::cpu::{Cpu, naive::Naive};
use super::cuda;
use super::cuda::device::{DeviceFacts, KernelName};
use super::error::SessionError;
use super::ranks::processes::Together;
use super::ranks::threads::Ranks;
use super::session::{Session, SessionOptions};
use super::shape::parts::QkNorm;
use super::shape::{Mixture, Shape};
use super::{BackendKind, CacheFormat, Dtype, WeightFormat, Workload};

/// Whether a backend of this build computes in this format.
pub(crate) fn supports(backend: BackendKind, dtype: Dtype, weights: WeightFormat) -> bool {
    match backend {
        BackendKind::Cpu => dtype != Dtype::Tf32,
        BackendKind::Naive => dtype == Dtype::F32 && weights == WeightFormat::Dtype,
        BackendKind::Cuda => matches!(weights, WeightFormat::Dtype | WeightFormat::F8),
    }
}

/// Whether a backend of this build keeps its KV cache in this format.
pub(crate) fn keeps(backend: BackendKind, kv_cache: CacheFormat) -> bool {
    backend != BackendKind::Naive || kv_cache == CacheFormat::Dtype
}

/// Builds the model of `workload`, with seeded random weights where it names none to read, and gets it ready for its first step.
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
pub(crate) fn prepare_among(
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
        BackendKind::Naive => Ranks::start(workload, options, groups(workload, options, net)?, |_| Ok(Naive)),
        BackendKind::Cpu => {
            let cores = allowed_cores();
            let threads = options.threads_per_rank.max(1) as usize;
            let groups = groups(workload, options, net)?;
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
            let copies = options.parallel.kv_copies(&workload.shape);
            let (ranks, groups) = cuda::nccl::open(&options.parallel, copies, workload.dtype, net)?;
            let ranks: Vec<_> = ranks.into_iter().map(|rank| rank.with_weights(workload.weights)).collect();
            ranks.iter().try_for_each(|rank| rank.fits(workload))?;
            cuda::Cuda::rehearse(&ranks, |alone| rehearse(workload, options, alone));
            let rank = |rank: usize| {
                ranks.get(rank).cloned().ok_or_else(|| SessionError::Invalid(format!("no device for rank {rank}")))
            };
            Ranks::start(workload, options, groups, rank)
        }
    }
}

/// The kernels that a step of this workload is made of, on one device like this one.
pub(crate) fn kernels(workload: &Workload, facts: &DeviceFacts) -> Vec<KernelName> {
    let (backend, parallel) = (BackendKind::Cuda, Parallel::replicas(1));
    let options = SessionOptions { backend, parallel, threads_per_rank: 1, seed: 0 };
    cuda::Cuda::asked_for(facts, (workload.dtype, workload.weights), |alone| rehearse(workload, &options, alone))
}

/// One layer's step of one rank, or, where there are layers without experts before others, one of each. What it computes means nothing;
/// which operations it is made of, with which widths, does not depend on the number of layers or of words, so that no large model has to
/// be made for it.
fn rehearse(workload: &Workload, options: &SessionOptions, backend: cuda::Cuda) -> Result<(), SessionError> {
    let part = options.parallel.part_of(&workload.shape, 0, BackendKind::Cuda).into_whole();
    let experts = part.experts.map(|e| Mixture { dense_layers: e.dense_layers.min(1), ..e });
    let n_layers = 1 + experts.map_or(0, |e| e.dense_layers);
    let shape = Shape { n_layers, experts, vocab_size: part.vocab_size.min(1024), ..part };
    let batch = workload.batch / options.parallel.data;
    let one = Workload { shape, batch, weights_from: None, ..workload.clone() };
    let parallel = Parallel { sharding: options.parallel.sharding, ..Parallel::replicas(1) };
    let alone = SessionOptions { parallel, ..options.clone() };
    let places = |_: &[usize], _: &[usize], _: grid::Of| Ok::<_, SessionError>(Vec::new());
    Ranks::start(&one, &alone, grid::groups(&alone.parallel, 1, 0..1, places)?, |_| Ok(backend.clone()))?.step()?;
    Ok(())
}

/// The groups of ranks whose buffers lie in host memory.
fn groups<T: AsMut<[f32]>>(
    workload: &Workload,
    options: &SessionOptions,
    net: Option<&Net>,
) -> Result<Vec<Groups<T>>, SessionError> {
    let (parallel, copies) = (&options.parallel, options.parallel.kv_copies(&workload.shape));
    net.map_or_else(|| Ok(of_threads(parallel, copies)), |net| tcp::open(parallel, copies, net))
}

fn check(w: &Workload, options: &SessionOptions) -> Result<(), SessionError> {
    let invalid = |message: String| Err(SessionError::Invalid(message));
    if !supports(options.backend, w.dtype, WeightFormat::Dtype) {
        return Err(SessionError::NoDtype { dtype: w.dtype, backend: options.backend });
    }
    if !supports(options.backend, w.dtype, w.weights) {
        return Err(SessionError::NoWeights { weights: w.weights, backend: options.backend });
    }
    if !keeps(options.backend, w.kv_cache) {
        return Err(SessionError::NoCache { kv_cache: w.kv_cache, backend: options.backend });
    }
    if let Err(e) = w.check(&options.parallel) {
        return invalid(e.to_string());
    }
    if let Some(what) = (options.backend == BackendKind::Cuda).then(|| cuda::parts::lacking(w)).flatten() {
        return invalid(format!("{what} are not built into backend cuda (model {}); use backend: cpu", w.shape.family));
    }
    let Parallel { tensor, expert, .. } = options.parallel;
    if options.backend == BackendKind::Cuda && expert > 1 {
        return invalid(format!(
            "parallel.expert: {expert} is on CPU ranks only; use parallel.tensor, which splits each expert on GPUs too, or backend: cpu"
        ));
    }
    if options.backend == BackendKind::Cuda && tensor > 1 && w.shape.parts().qk_norm == QkNorm::Whole {
        return invalid(
            "norms of the queries of all heads together are not built into backend cuda where ranks split the layers; use \
             parallel.tensor: 1, or backend: cpu"
                .into(),
        );
    }
    if options.backend == BackendKind::Cuda && w.shape.head_dim as usize > cuda::LARGEST_HEAD_DIM {
        return invalid(format!(
            "head_dim {} is beyond the {} of backend cuda; use more heads, or backend: cpu",
            w.shape.head_dim,
            cuda::LARGEST_HEAD_DIM
        ));
    }
    Ok(())
}

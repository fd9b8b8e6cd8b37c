//! Several ranks of the backend, its kernels run by the host: what [`super::nccl`] does to buffers, done by threads.

use super::super::collective::grid::{Groups, Of, Parallel, Sharding, groups};
use super::super::collective::threads::Exchange;
use super::super::collective::{Collective, Job, Ticket};
use super::super::ranks::threads::Ranks;
use super::super::session::{Session, SessionOptions};
use super::super::shape::parts::Parts;
use super::super::shape::{Family, LatentSpec, Shape, ShapeSpec};
use super::super::{BackendKind, OptimizerKind, Phase, WeightFormat, Workload};
use super::host::HostDevice;
use super::*;

/// As NCCL's members: what is read of a buffer is exchanged, and nothing else of it.
#[derive(Debug)]
struct Hosted {
    host: Arc<HostDevice>,
    inner: Arc<dyn Collective<Vec<f32>>>,
}

impl Collective<Buffer> for Hosted {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn start(&self, job: Job, buffers: &mut [Buffer]) -> Ticket {
        let mut numbers: Vec<Vec<f32>> = buffers.iter().map(|b| self.host.get(b.format(), b.at(), b.len)).collect();
        self.inner.run(job, &mut numbers);
        buffers.iter().zip(&numbers).for_each(|(b, n)| self.host.set(b.format(), b.at(), n));
        Ticket(0)
    }
    fn finish(&self, _: Ticket) {}
    fn check(&self) -> Result<(), SessionError> {
        self.inner.check()
    }
}

pub(super) fn workload(family: Family, phase: Phase, dtype: Dtype) -> Workload {
    // Smaller than usual, where it has any.
    let through_latents = family == Family::DeepseekV3;
    let of_latents = LatentSpec {
        q_lora_rank: Some(16),
        kv_lora_rank: Some(24),
        qk_nope_head_dim: Some(8),
        qk_rope_head_dim: Some(8),
        v_head_dim: Some(8),
        interleaved: None,
    };
    let spec = ShapeSpec {
        n_layers: Some(if through_latents { 2 } else { 1 }),
        first_dense_layers: through_latents.then_some(1),
        n_experts: through_latents.then_some(16),
        experts_per_token: through_latents.then_some(2),
        latent: if through_latents { of_latents } else { LatentSpec::default() },
        d_model: Some(32),
        n_heads: Some(4),
        n_kv_heads: (family == Family::Llama).then_some(2),
        d_ff: Some(48),
        vocab_size: Some(37),
        context: Some(32),
        parts: (family == Family::Opt).then(|| Parts { padding_token: Some(1), ..family.parts().clone() }),
        ..ShapeSpec::default()
    };
    Workload {
        shape: Shape::new(family, &spec).unwrap(),
        phase,
        batch: 2,
        seq_len: 6,
        prompt_len: 5,
        new_tokens: 4,
        dtype,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    }
}

/// A rank and its device.
type Placed = (Cuda, Arc<HostDevice>);

/// A session, and its ranks; `None` where the host has no compiler.
pub(super) fn session(w: &Workload, parallel: Parallel) -> Option<(Ranks, Vec<Placed>)> {
    let ranks = parallel.ranks().unwrap() as usize;
    let hosts: Vec<Arc<HostDevice>> =
        (0..ranks).map(|_| HostDevice::new().map(Arc::new)).collect::<Option<Vec<_>>>()?;
    let seats = |ranks: &[usize], _: &[usize], _: Of| -> Result<Vec<Arc<dyn Collective<Buffer>>>, SessionError> {
        let seats = Exchange::seats(ranks.len()).into_iter().zip(ranks);
        Ok(seats.map(|(s, r)| Arc::new(Hosted { host: hosts[*r].clone(), inner: Arc::new(s) }) as _).collect())
    };
    let groups: Vec<Groups<Buffer>> = groups(&parallel, parallel.kv_copies(&w.shape), 0..ranks, seats).unwrap();
    let options = SessionOptions { backend: BackendKind::Cuda, parallel, threads_per_rank: 1, seed: 4 };
    let cudas: Vec<Cuda> =
        hosts.iter().map(|h| Cuda::on_device(h.clone(), w.dtype).unwrap().with_weights(w.weights)).collect();
    let session = Ranks::start(w, &options, groups, |r| Ok(cudas[r].clone())).unwrap();
    Some((session, cudas.into_iter().zip(hosts).collect()))
}

/// Losses of some steps, and the checksum of their tokens.
fn steps(w: &Workload, parallel: Parallel) -> Option<(Vec<f32>, u32)> {
    let (mut session, _) = session(w, parallel)?;
    let losses = (0..3).filter_map(|_| session.step().unwrap().loss).collect();
    Some((losses, session.checksum()))
}

#[test]
fn two_devices_of_a_replica_compute_as_one() {
    let two = Parallel { tensor: 2, ..Parallel::replicas(1) };
    for (family, dtype, tolerance) in [
        (Family::Gpt2, Dtype::F32, 1e-5),
        (Family::Llama, Dtype::Bf16, 5e-3),
        (Family::Block, Dtype::F32, 1e-5),
        (Family::GptOss, Dtype::F32, 1e-5),
        (Family::Mixtral, Dtype::Bf16, 5e-3),
        (Family::Qwen3, Dtype::F32, 1e-5),
    ] {
        let w = workload(family, Phase::Train, dtype);
        let Some((one, _)) = steps(&w, Parallel::replicas(1)) else { return };
        let (split, _) = steps(&w, two).unwrap();
        for (a, b) in one.iter().zip(&split) {
            assert!((a - b).abs() <= tolerance * a.abs(), "{family:?} {dtype}: {one:?} and {split:?}");
        }
    }
    for (family, phase) in [(Family::Gpt2, Phase::Generate), (Family::Llama, Phase::Decode)] {
        let w = workload(family, phase, Dtype::F32);
        assert_eq!(steps(&w, Parallel::replicas(1)), steps(&w, two), "{family:?} {phase}");
    }
}

#[test]
fn four_devices_that_hold_two_heads_of_keys_and_values_twice_compute_as_one() {
    let four = Parallel { tensor: 4, ..Parallel::replicas(1) };
    for (dtype, tolerance) in [(Dtype::F32, 1e-5), (Dtype::Bf16, 5e-3)] {
        let w = workload(Family::Llama, Phase::Train, dtype);
        let Some((one, _)) = steps(&w, Parallel::replicas(1)) else { return };
        let (split, _) = steps(&w, four).unwrap();
        for (a, b) in one.iter().zip(&split) {
            assert!((a - b).abs() <= tolerance * a.abs(), "{dtype}: {one:?} and {split:?}");
        }
    }
    let w = workload(Family::Llama, Phase::Decode, Dtype::F32);
    assert_eq!(steps(&w, Parallel::replicas(1)), steps(&w, four));
}

#[test]
fn shares_of_the_optimizer_change_no_bit_on_devices() {
    for (dtype, tensor) in [(Dtype::F32, 2), (Dtype::Bf16, 1)] {
        let whole = Parallel { tensor, ..Parallel::replicas(2) };
        let w = workload(Family::Llama, Phase::Train, dtype);
        let Some(all) = steps(&w, whole) else { return };
        assert_eq!(Some(all), steps(&w, Parallel { sharding: Sharding::Optimizer, ..whole }), "{dtype} {tensor}");
    }
}

//! Several ranks of the backend, its kernels run by the host: what [`super::nccl`] does to buffers, done by threads.

use super::super::collective::grid::{Groups, Of, Parallel, Sharding, groups};
use super::super::collective::threads::{Exchange, Seat};
use super::super::collective::{Collective, Counts, Job, Ticket};
use super::super::course::{Batches, Course, Pair, Part};
use super::super::levers::{Levers, Recompute};
use super::super::pass::model::Index;
use super::super::pass::shares::Shares;
use super::super::prepare::prepare;
use super::super::ranks::threads::Ranks;
use super::super::session::{Session, SessionOptions};
use super::super::shape::parts::Parts;
use super::super::shape::{Family, LatentSpec, Shape, ShapeSpec};
use super::super::{BackendKind, OptimizerKind, Phase, WeightFormat, Workload};
use super::device::Real;
use super::host::HostDevice;
use super::*;
use std::collections::VecDeque;
use std::sync::Mutex;

/// As NCCL's members: what is read of a buffer is exchanged, and nothing else of it.
#[derive(Debug)]
struct Hosted {
    host: Arc<HostDevice>,
    inner: Arc<dyn Collective<Vec<f32>>>,
    /// Whether jobs run beside what comes after them: as late as they may, when they are waited for.
    beside: bool,
    under_way: Mutex<UnderWay>,
}

/// Elements on the device.
type Place = (Real, Address, usize);

/// How many jobs there have been, and those that nobody has waited for, by number.
type UnderWay = (u64, VecDeque<(u64, Job, Vec<Place>)>);

impl Hosted {
    fn carry_out(&self, job: Job, places: &[Place]) {
        let mut numbers: Vec<Vec<f32>> = places.iter().map(|(real, at, len)| self.host.get(*real, *at, *len)).collect();
        self.inner.run(job, &mut numbers);
        places.iter().zip(&numbers).for_each(|((real, at, _), n)| self.host.set(*real, *at, n));
    }
}

impl Collective<Buffer> for Hosted {
    fn rank(&self) -> usize {
        self.inner.rank()
    }
    fn size(&self) -> usize {
        self.inner.size()
    }
    fn overlaps(&self) -> bool {
        self.beside
    }
    fn start(&self, job: Job, buffers: &mut [Buffer]) -> Ticket {
        let places: Vec<Place> = buffers.iter().map(|b| (b.format(), b.at(), b.len)).collect();
        if !self.beside {
            self.carry_out(job, &places);
            return Ticket(0);
        }
        let mut under_way = self.under_way.lock().unwrap();
        under_way.0 += 1;
        let number = under_way.0;
        under_way.1.push_back((number, job, places));
        Ticket(number)
    }
    fn finish(&self, ticket: Ticket) {
        let mut under_way = self.under_way.lock().unwrap();
        // One after the other, as in a stream.
        while under_way.1.front().is_some_and(|(number, ..)| *number <= ticket.0) {
            let (_, job, places) = under_way.1.pop_front().unwrap();
            self.carry_out(job, &places);
        }
    }
    fn all_to_all(&self, from: &mut Buffer, to: &mut Buffer, counts: Counts<'_>) {
        let [mut sent, mut received] = [&*from, &*to].map(|b| self.host.get(b.format(), b.at(), b.len));
        self.inner.all_to_all(&mut sent, &mut received, counts);
        self.host.set(to.format(), to.at(), &received);
    }
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
    let seats = |ranks: &[usize], _: &[usize], of: Of| -> Result<Vec<Arc<dyn Collective<Buffer>>>, SessionError> {
        let seats = Exchange::seats(ranks.len()).into_iter().zip(ranks);
        let beside = of == Of::Replicas && nccl::beside(&parallel);
        let hosted = |(s, r): (Seat, &usize)| Hosted {
            host: hosts[*r].clone(),
            inner: Arc::new(s),
            beside,
            under_way: Mutex::default(),
        };
        Ok(seats.map(|seat| Arc::new(hosted(seat)) as _).collect())
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
fn what_replicas_keep_shares_of_changes_no_bit_on_devices() {
    let three = |family, dtype| {
        let mut w = Workload { dropout: 0.1, batch: 6, ..workload(family, Phase::Train, dtype) };
        w.shape.n_layers = 3;
        w
    };
    for (family, dtype, data, tensor) in [
        (Family::Llama, Dtype::F32, 2, 2),
        (Family::Llama, Dtype::Bf16, 3, 1),
        (Family::Gpt2, Dtype::Bf16, 2, 1),
        // Layers of two kinds, which take turns each with their own.
        (Family::DeepseekV3, Dtype::Bf16, 2, 1),
    ] {
        let (w, whole) = (three(family, dtype), Parallel { tensor, ..Parallel::replicas(data) });
        let Some(all) = steps(&w, whole) else { return };
        for sharding in [Sharding::Optimizer, Sharding::Gradients, Sharding::Parameters] {
            let shared = steps(&w, Parallel { sharding, ..whole });
            assert_eq!(Some(&all), shared.as_ref(), "{family:?} {dtype} {data} x {tensor} {sharding}");
        }
    }
}

/// The bits of the losses of so many steps.
fn bits(session: &mut Ranks, steps: usize) -> Vec<u32> {
    (0..steps).map(|_| session.step().unwrap().loss.unwrap().to_bits()).collect()
}

#[test]
fn training_goes_on_from_files_of_ranks_that_share() {
    for sharding in Sharding::ALL.iter().copied() {
        for (dtype, tensor, pipeline) in
            [(Dtype::F32, 1, 1), (Dtype::Bf16, 1, 1), (Dtype::Bf16, 2, 1), (Dtype::Bf16, 1, 2)]
        {
            if pipeline > 1 && sharding.of_gradients() {
                continue;
            }
            let parallel = Parallel { tensor, pipeline, sharding, ..Parallel::replicas(2) };
            let mut w = Workload { dropout: 0.1, ..workload(Family::Llama, Phase::Train, dtype) };
            w.shape.n_layers = 2;
            let Some((mut whole, _)) = session(&w, parallel) else { return };
            let want = bits(&mut whole, 5);
            let folder = tempfile::tempdir().unwrap();
            let mut killed = session(&w, parallel).unwrap().0;
            bits(&mut killed, 2);
            killed.save(folder.path()).unwrap();
            assert_eq!(
                bits(&mut killed, 1),
                want[2..3],
                "{dtype} {parallel:?}: what goes on after it has been written"
            );
            let mut again = session(&w, parallel).unwrap().0;
            bits(&mut again, 1);
            again.restore(folder.path(), 2).unwrap();
            assert_eq!(bits(&mut again, 3), want[2..], "{dtype} {parallel:?}");
        }
    }
}

/// Steps of plain descent, as long as gradients are, against those of the same ranks on the CPU: within the roundings of sums.
fn descends_as_on_the_cpu(what: &str, w: &Workload, parallel: Parallel) {
    let w = Workload { optimizer: OptimizerKind::Sgd, ..w.clone() };
    let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 4 };
    let Some((mut devices, _)) = session(&w, parallel) else { return };
    let mut cpus = prepare(&w, &options).unwrap();
    for step in 0..4 {
        let [got, want] = [&mut devices as &mut dyn Session, &mut *cpus].map(|s| s.train(0.5).unwrap().loss.unwrap());
        assert!((got - want).abs() <= 1e-5 * want, "{what}, {parallel:?}, step {step}: {got}, and {want} on the CPU");
    }
    if w.shape.has_vocabulary_head() {
        let [got, want] = [&mut devices as &mut dyn Session, &mut *cpus].map(|s| {
            s.enrol(Course { batches: Arc::new(Drawn), weight_decay: None }).unwrap();
            s.evaluate(2).unwrap()
        });
        assert!((got - want).abs() <= 1e-5 * want, "{what}, {parallel:?}, evaluated: {got}, and {want} on the CPU");
    }
}

/// Tokens that look random, functions of the step alone.
#[derive(Debug)]
struct Drawn;

impl Batches for Drawn {
    fn training(&self, step: u64, part: Part) -> Pair {
        let first = (step * part.replicas + part.replica) * 1000;
        let one = |i: u64| (((first + i) * 2_654_435_761) >> 7) as u32 % 37;
        let len = (part.sequences * part.tokens) as u64;
        ((0..len).map(one).collect(), (1..=len).map(one).collect())
    }

    fn validation(&self, batch: u64, part: Part) -> Pair {
        self.training(1_000_000 + batch, part)
    }
}

/// Three layers and a batch of four, which is gone through in so many passes.
fn in_passes(family: Family, accumulate: u32, clip: Option<f32>) -> Workload {
    let levers = Levers { accumulate, clip, ..Levers::default() };
    let mut w = Workload { batch: 4, levers, ..workload(family, Phase::Train, Dtype::F32) };
    w.shape.n_layers = 3;
    w
}

#[test]
fn devices_clip_by_the_norm_of_all_of_them() {
    for (family, accumulate) in [(Family::Gpt2, 1), (Family::Llama, 2), (Family::Mixtral, 1)] {
        let w = in_passes(family, accumulate, Some(0.05));
        for (data, tensor) in [(2, 1), (1, 2), (2, 2), (1, 4)] {
            for sharding in [Sharding::None, Sharding::Optimizer] {
                let parallel = Parallel { data, tensor, pipeline: 1, expert: 1, sharding };
                descends_as_on_the_cpu(&format!("{family:?}"), &w, parallel);
            }
        }
    }
}

#[test]
fn shares_of_what_passes_add_up_to_are_those_of_the_cpu() {
    for family in [Family::Gpt2, Family::Llama, Family::Block, Family::Mixtral] {
        for (data, tensor, accumulate, clip) in
            [(2, 1, 2, None), (2, 2, 1, Some(0.05)), (4, 1, 1, Some(0.05)), (2, 1, 2, Some(0.05))]
        {
            for sharding in [Sharding::Gradients, Sharding::Parameters] {
                let w = in_passes(family, accumulate, clip);
                let parallel = Parallel { data, tensor, pipeline: 1, expert: 1, sharding };
                descends_as_on_the_cpu(&format!("{family:?}, {accumulate} passes, {clip:?}"), &w, parallel);
            }
        }
    }
}

/// Of what ranks hand on, the other half of what is kept twice would be stale: what experts are chosen by is kept once.
#[test]
fn what_experts_are_chosen_by_is_exchanged_as_exact_as_it_is() {
    let Some(host) = HostDevice::new() else { return };
    let w = workload(Family::DeepseekV3, Phase::Train, Dtype::Bf16);
    let cuda = Cuda::on_device(Arc::new(host), Dtype::Bf16).unwrap();
    let (parameters, _) = Shares::allocate(&cuda, &Index::new(&w.shape), (0, 2)).unwrap();
    let fixed = Index::new(&w.shape).specs.into_iter().zip(&parameters).filter(|(spec, _)| spec.fixed);
    let formats: Vec<Real> = fixed.map(|(_, buffer)| buffer.format()).collect();
    assert_eq!(formats, [Real::F32]);
}

#[test]
fn stages_learn_what_one_device_does() {
    let staged = |pipeline, data| Parallel { pipeline, ..Parallel::replicas(data) };
    // A table of its own for the head: the same sums in the same order.
    for (family, dtype, recompute) in [
        (Family::Llama, Dtype::F32, Recompute::None),
        (Family::Llama, Dtype::Bf16, Recompute::Full),
        (Family::Block, Dtype::Bf16, Recompute::None),
        (Family::Mixtral, Dtype::Bf16, Recompute::Attention),
    ] {
        for (pipeline, data, accumulate) in [(2, 1, 1), (3, 1, 4), (2, 2, 2), (3, 1, 2)] {
            let plain = in_passes(family, accumulate, None);
            let levers = Levers { recompute, ..plain.levers };
            let w = Workload { dtype, dropout: 0.1, levers, ..plain };
            let Some(one) = steps(&w, staged(1, data)) else { return };
            let what = format!("{family:?} {dtype} {data} x {pipeline}, {accumulate} micro-batches");
            assert_eq!(Some(&one), steps(&w, staged(pipeline, data)).as_ref(), "{what}");
            let parallel = Parallel { sharding: Sharding::Optimizer, ..staged(pipeline, data) };
            assert_eq!(Some(&one), steps(&w, parallel).as_ref(), "{what}, shares of the optimizer");
        }
    }
}

#[test]
fn stages_learn_and_clip_as_those_of_the_cpu() {
    for family in [Family::Gpt2, Family::Llama, Family::Block, Family::Mixtral] {
        for (pipeline, data, accumulate) in [(2, 1, 4), (3, 1, 2), (3, 2, 2)] {
            for (clip, sharding) in [(None, Sharding::None), (Some(0.05), Sharding::Optimizer)] {
                let parallel = Parallel { pipeline, sharding, ..Parallel::replicas(data) };
                let what = format!("{family:?}, {accumulate} micro-batches, {clip:?}");
                descends_as_on_the_cpu(&what, &in_passes(family, accumulate, clip), parallel);
            }
        }
    }
}

//! Training steps that are captured and replayed, against the same done one operation at a time.

use super::super::collective::Collective;
use super::super::collective::grid::{Groups, Of, Parallel, Sharding, groups};
use super::super::levers::{Levers, Recompute};
use super::super::prepare::prepare;
use super::super::ranks::threads::Ranks;
use super::super::session::{Session, SessionOptions};
use super::super::shape::Family;
use super::super::{BackendKind, OptimizerKind, Phase, Workload};
use super::host::{HostDevice, Recorder};
use super::ranks_tests::workload;
use super::*;

const STEPS: usize = 5;

pub(super) fn session(device: Arc<dyn Device>, w: &Workload) -> Ranks {
    let one = Parallel::replicas(1);
    let nobody =
        |_: &[usize], _: &[usize], _: Of| -> Result<Vec<Arc<dyn Collective<Buffer>>>, SessionError> { Ok(vec![]) };
    let groups: Vec<Groups<Buffer>> = groups(&one, 1, 0..1, nobody).unwrap();
    let options = SessionOptions { backend: BackendKind::Cuda, parallel: one, threads_per_rank: 1, seed: 4 };
    let cuda = Cuda::on_device(device, w.dtype).unwrap();
    Ranks::start(w, &options, groups, |_| Ok(cuda.clone())).unwrap()
}

/// The bits of the losses of some steps, and the checksum.
fn losses(device: Arc<dyn Device>, w: &Workload) -> (Vec<u32>, u32) {
    let mut session = session(device, w);
    let losses = (0..STEPS).map(|_| session.step().unwrap().loss.unwrap().to_bits()).collect();
    (losses, session.checksum())
}

fn workloads() -> impl Iterator<Item = Workload> {
    let families = [Family::Gpt2, Family::Llama, Family::Block];
    // Rows of positions of their own and padding; norms of queries and keys; embeddings that are scaled; experts; latents.
    let with_parts = [Family::Opt, Family::Qwen3, Family::Olmo2, Family::Gemma, Family::Mixtral, Family::DeepseekV3];
    let kinds = [OptimizerKind::Adamw, OptimizerKind::Sgd, OptimizerKind::Adamax];
    let again =
        [(Family::Gpt2, Recompute::Full), (Family::Mixtral, Recompute::Full), (Family::Llama, Recompute::Attention)];
    let again = again.map(|(family, recompute)| {
        let levers = Levers { recompute, ..Levers::default() };
        let mut w = Workload { dropout: 0.2, levers, ..workload(family, Phase::Train, Dtype::Bf16) };
        w.shape.n_layers = 3;
        w
    });
    let usual =
        families.into_iter().chain(with_parts).zip(kinds.into_iter().cycle()).flat_map(|(family, optimizer)| {
            [(Dtype::F32, 0.0), (Dtype::Bf16, 0.2)].map(|(dtype, dropout)| {
                let mut w = Workload { optimizer, dropout, ..workload(family, Phase::Train, dtype) };
                // The buffers of a layer's gradients are the next one's too, and streams change places from one to the next.
                w.shape.n_layers = 3;
                w
            })
        });
    let clipped = [(Family::Gpt2, Dtype::Bf16), (Family::Llama, Dtype::F32)].map(|(family, dtype)| {
        let levers = Levers { clip: Some(0.3), ..Levers::default() };
        let mut w = Workload { dropout: 0.2, levers, ..workload(family, Phase::Train, dtype) };
        w.shape.n_layers = 3;
        w
    });
    usual.chain(again).chain(clipped)
}

#[test]
fn layers_that_are_run_again_change_no_bit() {
    for w in workloads().filter(|w| w.levers.recompute != Recompute::None) {
        let (Some(all), Some(again)) = (HostDevice::new(), HostDevice::new()) else { return };
        let kept = Workload { levers: Levers::default(), ..w.clone() };
        assert_eq!(
            losses(Arc::new(all), &kept),
            losses(Arc::new(again), &w),
            "{:?} {}",
            w.shape.family,
            w.levers.recompute
        );
    }
}

#[test]
fn micro_batches_learn_as_on_the_cpu() {
    for (family, dropout) in [(Family::Gpt2, 0.2), (Family::Llama, 0.0), (Family::Block, 0.2), (Family::Mixtral, 0.0)] {
        let Some(host) = HostDevice::new() else { return };
        let levers = Levers { accumulate: 2, ..Levers::default() };
        let mut w = Workload { dropout, levers, ..workload(family, Phase::Train, Dtype::F32) };
        w.shape.n_layers = 3;
        let options =
            SessionOptions { backend: BackendKind::Cpu, parallel: Parallel::replicas(1), threads_per_rank: 1, seed: 4 };
        let mut cpu = prepare(&w, &options).unwrap();
        let (on_device, _) = losses(Arc::new(host), &w);
        for loss in on_device.into_iter().map(f32::from_bits) {
            let want = cpu.step().unwrap().loss.unwrap();
            assert!((loss - want).abs() <= 1e-5 * want, "{family:?}: {loss}, and {want} on the CPU");
        }
    }
}

#[test]
fn gradients_are_clipped_as_on_the_cpu() {
    for (family, accumulate) in [(Family::Gpt2, 1), (Family::Llama, 2), (Family::Block, 1), (Family::Mixtral, 1)] {
        let Some(host) = HostDevice::new() else { return };
        let clipped = |clip| {
            let levers = Levers { accumulate, clip, ..Levers::default() };
            let plain = workload(family, Phase::Train, Dtype::F32);
            let mut w = Workload { optimizer: OptimizerKind::Sgd, levers, ..plain };
            w.shape.n_layers = 2;
            w
        };
        let on_cpu = |w: &Workload| {
            let parallel = Parallel::replicas(1);
            let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 4 };
            descend(&mut *prepare(w, &options).unwrap())
        };
        let (want, plain) = (on_cpu(&clipped(Some(0.05))), on_cpu(&clipped(None)));
        let got = descend(&mut session(Arc::new(Recorder::new(host)), &clipped(Some(0.05))));
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() <= 1e-5 * want, "{family:?}: {got}, and {want} on the CPU");
        }
        let last = STEPS - 1;
        assert!((want[last] - plain[last]).abs() > 1e-4 * want[last], "{family:?} is clipped: {want:?} and {plain:?}");
        // Beyond all norms a bound changes no bit.
        let both = [HostDevice::new(), HostDevice::new()].map(|host| Arc::new(host.unwrap()) as Arc<dyn Device>);
        let [without, with] = both;
        let far = descend(&mut session(with, &clipped(Some(1e9))));
        assert_eq!(descend(&mut session(without, &clipped(None))), far, "{family:?}");
    }
}

/// Losses of plain descent, whose steps are as long as its gradients.
fn descend(session: &mut dyn Session) -> Vec<f32> {
    (0..STEPS).map(|_| session.train(0.3).unwrap().loss.unwrap()).collect()
}

#[test]
fn however_devices_share_a_training_nothing_but_that_there_are_none_is_in_its_way() {
    if driver::available().is_ok() {
        return println!("skipped: there are GPUs here");
    }
    let levers = Levers { clip: Some(1.0), accumulate: 2, ..Levers::default() };
    let sharded = Sharding::ALL.iter().map(|s| Parallel { sharding: *s, ..Parallel::replicas(2) });
    let staged = Parallel { pipeline: 3, sharding: Sharding::Optimizer, ..Parallel::replicas(2) };
    for parallel in sharded.chain([staged]) {
        let mut w = Workload { batch: 4, levers, ..workload(Family::Gpt2, Phase::Train, Dtype::Bf16) };
        w.shape.n_layers = 3;
        let options = SessionOptions { backend: BackendKind::Cuda, parallel, threads_per_rank: 1, seed: 4 };
        assert!(matches!(prepare(&w, &options), Err(SessionError::NoCuda(_))), "{parallel:?}");
    }
}

#[test]
fn replayed_training_steps_have_the_losses_of_plain_ones_bit_for_bit() {
    for w in workloads() {
        let (Some(plain), Some(host)) = (HostDevice::new(), HostDevice::new()) else { return };
        let recorder = Arc::new(Recorder::new(host));
        let want = losses(Arc::new(plain), &w);
        let got = losses(recorder.clone(), &w);
        assert_eq!(want, got, "{:?} {} {:?}", w.shape.family, w.dtype, w.optimizer);
        // All but the very first step.
        assert_eq!(recorder.replays(), STEPS - 1);
        // Steps differ: in their tokens, or, where the block is asked for the same vectors, by what it has learnt.
        assert!(want.0.windows(2).all(|pair| pair[0] != pair[1]), "{want:?}");
    }
}

#[test]
fn a_device_that_refuses_a_capture_does_the_steps_one_operation_at_a_time() {
    for w in workloads().take(2) {
        let (Some(plain), Some(host)) = (HostDevice::new(), HostDevice::new()) else { return };
        let recorder = Arc::new(Recorder::refusing(host));
        assert_eq!(losses(Arc::new(plain), &w), losses(recorder.clone(), &w));
        assert_eq!(recorder.replays(), 0);
    }
}

#[test]
fn training_goes_on_from_files_bit_for_bit() {
    for w in workloads() {
        let devices = [HostDevice::new(), HostDevice::new(), HostDevice::new()];
        let [Some(whole), Some(first), Some(second)] = devices else { return };
        let (want, _) = losses(Arc::new(whole), &w);
        let folder = tempfile::tempdir().unwrap();
        let mut killed = session(Arc::new(Recorder::new(first)), &w);
        (0..3).for_each(|_| _ = killed.step().unwrap());
        killed.save(folder.path()).unwrap();
        // Between two steps that are replayed.
        assert_eq!(killed.step().unwrap().loss.unwrap().to_bits(), want[3]);
        let mut again = session(Arc::new(Recorder::new(second)), &w);
        again.restore(folder.path(), 3).unwrap();
        let got: Vec<u32> = (3..STEPS).map(|_| again.step().unwrap().loss.unwrap().to_bits()).collect();
        assert_eq!(got, want[3..], "{:?} {} {:?}", w.shape.family, w.dtype, w.optimizer);
    }
}

#[test]
fn replayed_training_steps_allocate_nothing() {
    for w in workloads() {
        let Some(host) = HostDevice::new() else { return };
        let recorder = Arc::new(Recorder::new(host));
        let mut session = session(recorder.clone(), &w);
        let allocations = |steps: usize, session: &mut Ranks| {
            for _ in 0..steps {
                session.step().unwrap();
            }
            recorder.host.allocations()
        };
        // The first step is the only one that does: the second is captured, when nothing may be allocated.
        assert_eq!(allocations(1, &mut session), allocations(4, &mut session), "{:?}", w.shape.family);
    }
}

#[test]
fn a_capture_with_two_of_what_differs_by_step_alone_is_a_failure() {
    let Some(host) = HostDevice::new() else { return };
    let cuda = Cuda::on_device(Arc::new(Recorder::new(host)), Dtype::F32).unwrap();
    let mut captured = Captured::HaveRun;
    cuda.repeat(&Varying { dropout: 7, ..Varying::default() }, &mut captured, &mut || {
        cuda.state.dropout(8);
    });
    let said = super::super::backend::Backend::check(&cuda).unwrap_err().to_string();
    assert!(said.contains("two") && said.contains("Dropout"), "{said}");
}

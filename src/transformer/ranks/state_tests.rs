//! Training that goes on from files is the training that was never interrupted.

use super::super::backend::Update;
use super::super::collective::grid::{Parallel, Sharding};
use super::super::course::{Batches, Course, Pair, Part};
use super::super::levers::{Levers, Recompute};
use super::super::prepare::prepare;
use super::super::session::{Session, SessionOptions};
use super::super::shape::Family;
use super::super::{BackendKind, Dtype, OptimizerKind, Workload};
use super::course_tests::training;
use safetensors::SafeTensors;
use std::path::Path;
use std::sync::Arc;

const WORDS: u32 = 31;
const LAST: u64 = 9;

/// Tokens that look random, functions of the step alone.
#[derive(Debug)]
struct Drawn;

impl Batches for Drawn {
    fn training(&self, step: u64, part: Part) -> Pair {
        let first = (step * part.replicas + part.replica) * 1000;
        let one = |i: u64| (((first + i) * 2_654_435_761) >> 7) as u32 % WORDS;
        let len = (part.sequences * part.tokens) as u64;
        ((0..len).map(one).collect(), (1..=len).map(one).collect())
    }

    fn validation(&self, batch: u64, part: Part) -> Pair {
        self.training(1_000_000 + batch, part)
    }
}

fn workload(family: Family, optimizer: OptimizerKind, levers: Levers) -> Workload {
    Workload { optimizer, levers, dropout: 0.1, ..training(family, 3, WORDS) }
}

fn taught(w: &Workload, backend: BackendKind, parallel: Parallel, seed: u64) -> Box<dyn Session> {
    let mut session = prepare(w, &SessionOptions { backend, parallel, threads_per_rank: 1, seed }).unwrap();
    session.enrol(Course { batches: Arc::new(Drawn), weight_decay: None }).unwrap();
    session
}

/// The bits of the losses of steps up to the last, and of an evaluation after each; rates differ by step.
fn losses(session: &mut dyn Session, w: &Workload, from: u64) -> Vec<u64> {
    let rate = Update::new(w.optimizer).learning_rate * 30.0;
    let one = |step: u64| {
        let loss = session.train(rate / (step + 1) as f32).unwrap().loss.unwrap();
        [f64::from(loss).to_bits(), session.evaluate(2).unwrap().to_bits()]
    };
    (from..LAST).flat_map(one).collect()
}

/// Files of a session as it is, their bytes by name.
fn state(session: &mut dyn Session) -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let written = session.save(folder.path()).unwrap();
    let one = |file: String| {
        let bytes = std::fs::read(folder.path().join(&file)).unwrap();
        (file, bytes)
    };
    written.into_iter().map(|w| one(w.file)).collect()
}

/// The uninterrupted run, and one that is begun anew, with other weights, at each of some steps.
fn goes_on(what: &str, w: &Workload, backend: BackendKind, parallel: Parallel) {
    let mut whole = taught(w, backend, parallel, 5);
    let expected = losses(whole.as_mut(), w, 0);
    let end = state(whole.as_mut());
    drop(whole);
    for at in [0, 1, 4] {
        let folder = tempfile::tempdir().unwrap();
        let mut killed = taught(w, backend, parallel, 5);
        let rate = Update::new(w.optimizer).learning_rate * 30.0;
        for step in 0..at {
            killed.train(rate / (step + 1) as f32).unwrap();
        }
        killed.save(folder.path()).unwrap();
        // What it does after that is lost.
        killed.train(1.0).unwrap();
        drop(killed);
        let mut again = taught(w, backend, parallel, 5);
        // Wherever it has been by then.
        again.train(1e-3).unwrap();
        again.restore(folder.path(), at).unwrap();
        let found = losses(again.as_mut(), w, at);
        assert_eq!(found, expected[2 * at as usize..], "{what}: from step {at}");
        assert!(state(again.as_mut()) == end, "{what}: parameters and moments after step {LAST}, from step {at}");
    }
}

#[test]
fn every_optimizer_goes_on_to_the_bit() {
    for kind in OptimizerKind::ALL.iter().copied() {
        let w = workload(Family::Gpt2, kind, Levers::default());
        for backend in [BackendKind::Cpu, BackendKind::Naive] {
            goes_on(&format!("{kind} {backend}"), &w, backend, Parallel::replicas(1));
        }
    }
}

#[test]
fn so_do_ranks_micro_batches_clipping_and_every_stage_of_zero() {
    let levers = [
        Levers::default(),
        Levers { accumulate: 2, clip: Some(0.5), recompute: Recompute::Full },
        Levers { clip: Some(0.5), ..Levers::default() },
    ];
    let grids = [
        Parallel::replicas(2),
        Parallel { sharding: Sharding::Optimizer, ..Parallel::replicas(2) },
        Parallel { sharding: Sharding::Gradients, ..Parallel::replicas(2) },
        Parallel { sharding: Sharding::Parameters, ..Parallel::replicas(2) },
        Parallel { tensor: 2, ..Parallel::replicas(1) },
        Parallel { pipeline: 3, ..Parallel::replicas(1) },
        Parallel { pipeline: 2, sharding: Sharding::Optimizer, ..Parallel::replicas(2) },
        Parallel { tensor: 2, sharding: Sharding::Gradients, ..Parallel::replicas(2) },
    ];
    for levers in levers {
        for grid in grids {
            let w = workload(Family::Llama, OptimizerKind::Adamw, levers);
            goes_on(&format!("{levers:?} {grid:?}"), &w, BackendKind::Cpu, grid);
        }
    }
    for (levers, data) in [(levers[0], 4), (levers[1], 2), (levers[2], 4)] {
        let w = workload(Family::Mixtral, OptimizerKind::Adamw, levers);
        goes_on("experts over ranks", &w, BackendKind::Cpu, Parallel { expert: 2, ..Parallel::replicas(data) });
    }
    let bf16 = Workload { dtype: Dtype::Bf16, ..workload(Family::Gpt2, OptimizerKind::Adamw, levers[1]) };
    goes_on("bf16", &bf16, BackendKind::Cpu, Parallel { sharding: Sharding::Gradients, ..Parallel::replicas(2) });
}

/// Names and numbers of elements of a file's tensors.
fn tensors(bytes: &[u8]) -> Vec<(String, usize)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let mut all: Vec<_> = file.iter().map(|(name, t)| (name.to_string(), t.shape().iter().product())).collect();
    all.sort();
    all
}

#[test]
fn what_replicas_have_alike_is_written_once_and_shares_by_whoever_keeps_them() {
    let w = workload(Family::Gpt2, OptimizerKind::Adam, Levers::default());
    let of = |sharding| state(taught(&w, BackendKind::Cpu, Parallel { sharding, ..Parallel::replicas(2) }, 5).as_mut());
    let total = |bytes: &[u8], what: &str| -> usize {
        tensors(bytes).iter().filter(|(name, _)| name.starts_with(what)).map(|(_, n)| n).sum()
    };
    let whole = of(Sharding::None);
    assert_eq!(whole.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["state-0-0.safetensors"]);
    let parameters = total(&whole[0].1, "parameters.");
    assert_eq!(total(&whole[0].1, "optimizer."), 2 * parameters);
    for sharding in [Sharding::Optimizer, Sharding::Gradients, Sharding::Parameters] {
        let both = of(sharding);
        let names: Vec<&str> = both.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["state-0-0.safetensors", "state-1-0.safetensors"]);
        let moments: usize = both.iter().map(|(_, bytes)| total(bytes, "optimizer.")).sum();
        let of_second = total(&both[1].1, "parameters.");
        assert_eq!(moments, 2 * parameters, "{sharding}");
        assert_eq!(of_second > 0, sharding == Sharding::Parameters);
        assert_eq!(total(&both[0].1, "parameters.") + of_second, parameters, "{sharding}");
    }
}

#[test]
fn of_experts_each_rank_of_a_group_writes_its_own_and_no_other_group_does() {
    let w = workload(Family::Mixtral, OptimizerKind::Sgd, Levers::default());
    let of = |parallel| state(taught(&w, BackendKind::Cpu, parallel, 5).as_mut());
    let (whole, spread) = (of(Parallel::replicas(4)), of(Parallel { expert: 2, ..Parallel::replicas(4) }));
    let names: Vec<&str> = spread.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["state-0-0.safetensors", "state-0-1.safetensors"]);
    let (all, parts) = (tensors(&whole[0].1), [tensors(&spread[0].1), tensors(&spread[1].1)]);
    for (i, (name, len)) in all.iter().enumerate() {
        let of_experts = name.ends_with(".up.weight") || name.ends_with(".down.weight");
        let expected = (name.clone(), if of_experts { len / 2 } else { *len });
        assert!(parts.iter().all(|part| part[i] == expected), "{expected:?}");
    }
}

fn refused(session: &mut dyn Session, folder: &Path) -> String {
    session.restore(folder, 3).unwrap_err().to_string()
}

#[test]
fn files_of_another_model_or_none_at_all_are_refused_by_name() {
    let one = Parallel::replicas(1);
    let w = workload(Family::Gpt2, OptimizerKind::Adamw, Levers::default());
    let folder = tempfile::tempdir().unwrap();
    let mut session = taught(&w, BackendKind::Cpu, one, 5);
    assert!(refused(session.as_mut(), folder.path()).contains("state-0-0.safetensors"));
    session.save(folder.path()).unwrap();
    let llama = workload(Family::Llama, OptimizerKind::Adamw, Levers::default());
    let said = refused(taught(&llama, BackendKind::Cpu, one, 5).as_mut(), folder.path());
    assert!(said.contains("expected a tensor parameters.") && said.contains("found"), "{said}");
    let sharded = Parallel { sharding: Sharding::Optimizer, ..Parallel::replicas(2) };
    let said = refused(taught(&w, BackendKind::Cpu, sharded, 5).as_mut(), folder.path());
    assert!(said.contains("state-1-0.safetensors") || said.contains("expected a tensor optimizer."), "{said}");
    let file = folder.path().join("state-0-0.safetensors");
    let whole = std::fs::read(&file).unwrap();
    for length in [0, 7, 100, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert!(refused(session.as_mut(), folder.path()).contains("cut short"), "{length}");
    }
    let nowhere = session.save(&file).unwrap_err();
    assert!(nowhere.contains("state-0-0.safetensors"), "{nowhere}");
}

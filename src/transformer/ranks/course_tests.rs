//! Sessions that are taught: what they see, at which rate, and what an evaluation leaves alone.

use super::super::collective::grid::{Parallel, Sharding};
use super::super::course::{Batches, Course, Pair, Part};
use super::super::levers::{Levers, Recompute};
use super::super::prepare::prepare;
use super::super::session::{Session, SessionOptions};
use super::super::shape::{Family, Shape, ShapeSpec};
use super::super::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use std::sync::Arc;

const VOCABULARY: u32 = 13;

/// Token t + 1 follows t; where a sequence begins, its number in the batch and the batch's say.
#[derive(Debug)]
struct Counting;

impl Counting {
    fn pair(first: u64, part: Part) -> Pair {
        let row = |r: usize| {
            let row = part.replica * part.sequences as u64 + r as u64;
            (0..part.tokens as u64).map(move |t| ((first + 5 * row + t) % u64::from(VOCABULARY)) as u32)
        };
        let ids: Vec<u32> = (0..part.sequences).flat_map(row).collect();
        let targets = ids.iter().map(|t| (t + 1) % VOCABULARY).collect();
        (ids, targets)
    }
}

impl Batches for Counting {
    fn training(&self, step: u64, part: Part) -> Pair {
        Self::pair(3 * step, part)
    }

    fn validation(&self, batch: u64, part: Part) -> Pair {
        Self::pair(7 + batch, part)
    }
}

/// A training of a small model of so many layers and words, without dropout and levers.
pub(super) fn training(family: Family, n_layers: u32, vocab_size: u32) -> Workload {
    let spec = ShapeSpec {
        n_layers: Some(n_layers),
        d_model: Some(24),
        n_heads: Some(4),
        n_kv_heads: (family == Family::Llama).then_some(2),
        n_experts: (family == Family::Mixtral).then_some(4),
        vocab_size: Some(vocab_size),
        context: Some(9),
        ..ShapeSpec::default()
    };
    Workload {
        shape: Shape::new(family, &spec).unwrap(),
        phase: Phase::Train,
        batch: 4,
        seq_len: 7,
        prompt_len: 0,
        new_tokens: 0,
        dtype: Dtype::F32,
        weights: WeightFormat::Dtype,
        optimizer: OptimizerKind::Adamw,
        dropout: 0.0,
        kv_cache: Default::default(),
        prefill_chunk: None,
        weights_from: None,
        levers: Default::default(),
    }
}

pub(super) fn workload(family: Family, dropout: f32) -> Workload {
    Workload { dropout, ..training(family, 2, VOCABULARY) }
}

fn taught(w: &Workload, backend: BackendKind, parallel: Parallel) -> Box<dyn Session> {
    let mut session = prepare(w, &SessionOptions { backend, parallel, threads_per_rank: 1, seed: 5 }).unwrap();
    session.enrol(Course { batches: Arc::new(Counting), weight_decay: Some(0.1) }).unwrap();
    session
}

/// Losses of so many steps and of an evaluation after each.
fn losses(w: &Workload, backend: BackendKind, parallel: Parallel, steps: usize) -> Vec<f64> {
    let mut session = taught(w, backend, parallel);
    let step = |_| [f64::from(session.train(3e-3).unwrap().loss.unwrap()), session.evaluate(3).unwrap()];
    (0..steps).flat_map(step).collect()
}

#[test]
fn what_is_taught_is_learnt_and_an_evaluation_changes_nothing() {
    for family in [Family::Gpt2, Family::Llama] {
        let w = workload(family, 0.1);
        let mut session = taught(&w, BackendKind::Cpu, Parallel::replicas(1));
        let before = session.evaluate(2).unwrap();
        assert!((before - f64::from(VOCABULARY).ln()).abs() < 0.2, "{before}");
        let with: Vec<f32> = (0..30)
            .map(|_| {
                let loss = session.train(3e-3).unwrap().loss.unwrap();
                assert_eq!(session.evaluate(2).unwrap(), session.evaluate(2).unwrap());
                loss
            })
            .collect();
        let mut alone = taught(&w, BackendKind::Cpu, Parallel::replicas(1));
        let without: Vec<f32> = (0..30).map(|_| alone.train(3e-3).unwrap().loss.unwrap()).collect();
        assert_eq!(with, without, "to the bit, dropout included");
        assert!(session.evaluate(2).unwrap() < 0.7 * before, "{with:?}");
        assert!(session.waited().is_some());
    }
}

#[test]
fn the_rate_is_that_of_the_step() {
    let mut session = taught(&workload(Family::Gpt2, 0.0), BackendKind::Cpu, Parallel::replicas(1));
    let before = session.evaluate(1).unwrap();
    session.train(0.0).unwrap();
    assert_eq!(session.evaluate(1).unwrap(), before, "a rate of 0 changes nothing");
    session.train(1e-2).unwrap();
    assert_ne!(session.evaluate(1).unwrap(), before);
}

#[test]
fn backends_and_grids_learn_the_same() {
    for family in [Family::Gpt2, Family::Llama] {
        let w = workload(family, 0.0);
        let one = losses(&w, BackendKind::Naive, Parallel::replicas(1), 6);
        let grids = [
            Parallel::replicas(1),
            Parallel::replicas(2),
            Parallel { tensor: 2, ..Parallel::replicas(2) },
            Parallel { sharding: Sharding::Optimizer, ..Parallel::replicas(4) },
            Parallel { pipeline: 2, ..Parallel::replicas(2) },
        ];
        for grid in grids {
            let other = losses(&w, BackendKind::Cpu, grid, 6);
            for (a, b) in one.iter().zip(&other) {
                // Adam turns a gradient that is a rounding error into a whole step; over six of them at 3e-3 that is little.
                assert!((a - b).abs() < 2e-3 * a, "{family:?} {grid:?}: {one:?} {other:?}");
            }
        }
    }
}

/// Losses of steps of plain descent, whose rounding errors no optimizer blows up, and of an evaluation after each.
fn descended(w: &Workload, parallel: Parallel) -> Vec<f64> {
    let mut session = taught(&Workload { optimizer: OptimizerKind::Sgd, ..w.clone() }, BackendKind::Cpu, parallel);
    let step = |_| [f64::from(session.train(0.2).unwrap().loss.unwrap()), session.evaluate(2).unwrap()];
    (0..4).flat_map(step).collect()
}

#[test]
fn what_is_taught_and_evaluated_is_the_same_under_every_lever() {
    for family in [Family::Gpt2, Family::Llama, Family::Mixtral] {
        let w = workload(family, 0.0);
        let plain = descended(&w, Parallel::replicas(1));
        assert!(plain[7] < 0.99 * plain[1], "something is learnt: {plain:?}");
        let grids =
            [(1, 1), (2, 1), (2, 2)].into_iter().filter(|(_, tensor)| *tensor == 1 || family != Family::Mixtral);
        for (data, tensor) in grids {
            let shardings = [Sharding::None, Sharding::Optimizer, Sharding::Gradients, Sharding::Parameters];
            let shardings = &shardings[..if data == 1 { 1 } else { 4 }];
            for accumulate in [1, 2] {
                let of = |recompute, sharding, dropout| {
                    let levers = Levers { accumulate, recompute, ..Levers::default() };
                    let parallel = Parallel { data, tensor, sharding, ..Parallel::replicas(1) };
                    descended(&Workload { levers, dropout, ..w.clone() }, parallel)
                };
                for sharding in shardings {
                    let what = format!("{family:?} {data} x {tensor}, {accumulate} passes, {sharding}");
                    let got = of(Recompute::None, *sharding, 0.0);
                    for (a, b) in got.iter().zip(&plain) {
                        assert!((a - b).abs() <= 1e-5 * b, "{what}: {got:?} and {plain:?}");
                    }
                    for recompute in [Recompute::Attention, Recompute::Full] {
                        assert_eq!(of(recompute, *sharding, 0.0), got, "{what}, {recompute}");
                        // Activations that are dropped are dropped again.
                        let dropped = of(Recompute::None, *sharding, 0.2);
                        assert_eq!(of(recompute, *sharding, 0.2), dropped, "{what}, {recompute}, dropout");
                    }
                    // One pass is summed up in the same order, whoever keeps what.
                    if accumulate == 1 {
                        assert_eq!(got, of(Recompute::None, Sharding::None, 0.0), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_session_that_is_not_taught_says_so() {
    let w = workload(Family::Gpt2, 0.0);
    let options =
        SessionOptions { backend: BackendKind::Cpu, parallel: Parallel::replicas(1), threads_per_rank: 1, seed: 5 };
    assert!(prepare(&w, &options).unwrap().evaluate(1).is_err());
    let decode = Workload { phase: Phase::Decode, prompt_len: 3, new_tokens: 4, ..w };
    let course = Course { batches: Arc::new(Counting), weight_decay: None };
    assert!(prepare(&decode, &options).unwrap().enrol(course).is_err());
}

//! Sessions that are taught: what they see, at which rate, and what an evaluation leaves alone.

use super::super::checkpoint::Checkpoint;
use super::super::collective::grid::{Parallel, Sharding};
use super::super::course::{Batches, Course, Pair, Part};
use super::super::levers::{Levers, Recompute};
use super::super::prepare::prepare;
use super::super::session::{Session, SessionOptions};
use super::super::shape::{Family, Shape, ShapeSpec};
use super::super::{BackendKind, Dtype, OptimizerKind, Phase, WeightFormat, Workload};
use std::path::Path;
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

fn workload(family: Family, dropout: f32) -> Workload {
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

/// Sequences of ci/peers/learning_curves.py, whose weights and losses lie in tests/golden/learning.
#[derive(Debug)]
struct AsThePeer;

const PEERS_VOCABULARY: u64 = 64;

fn mixed(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

impl Batches for AsThePeer {
    fn training(&self, step: u64, part: Part) -> Pair {
        let (mut ids, mut targets) = (Vec::new(), Vec::new());
        for row in 0..part.sequences as u64 {
            let number = (step * part.replicas + part.replica) * part.sequences as u64 + row + 1;
            let mut token = mixed(number) % PEERS_VOCABULARY;
            for place in 0..part.tokens as u64 {
                ids.push(token as u32);
                let coin = mixed(number * 1000 + place + 7) % 8;
                token = match coin {
                    0 => mixed(number * 1000 + place + 500) % PEERS_VOCABULARY,
                    _ => (5 * token + 3) % PEERS_VOCABULARY,
                };
                targets.push(token as u32);
            }
        }
        (ids, targets)
    }

    fn validation(&self, batch: u64, part: Part) -> Pair {
        self.training(batch, part)
    }
}

#[test]
fn three_hundred_steps_follow_another_frameworks_losses() {
    const STEPS: u64 = 300;
    let schedule = |step: u64| {
        if step < 20 {
            return 3e-3 * (step + 1) as f64 / 20.0;
        }
        let share = (step - 20) as f64 / 280.0;
        3e-3 * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos()))
    };
    for family in ["gpt2", "llama"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/learning").join(family);
        let opened = Checkpoint::open(&folder).unwrap();
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(folder.join("losses.json")).unwrap()).unwrap();
        let golden: Vec<f64> = golden["losses"].as_array().unwrap().iter().map(|l| l.as_f64().unwrap()).collect();
        assert_eq!(golden.len() as u64, STEPS);
        let w = Workload {
            shape: opened.shape.clone(),
            seq_len: 16,
            weights_from: Some(opened.weights.clone()),
            ..workload(Family::Gpt2, 0.0)
        };
        for parallel in [Parallel::replicas(1), Parallel::replicas(2)] {
            let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 5 };
            let mut session = prepare(&w, &options).unwrap();
            session.enrol(Course { batches: Arc::new(AsThePeer), weight_decay: Some(0.1) }).unwrap();
            let mut worst: f64 = 0.0;
            for (step, expected) in golden.iter().enumerate() {
                let loss = f64::from(session.train(schedule(step as u64) as f32).unwrap().loss.unwrap());
                let away = (loss / expected - 1.0).abs();
                worst = worst.max(away);
                assert!(away < 1e-3, "{family} {parallel:?}: step {step}: {loss}, not {expected}");
            }
            eprintln!("{family} {parallel:?}: within {worst:.2e} at every step");
        }
    }
}

//! Curves of losses beside those of PyTorch, of the same weights, batches and rates: ci/peers/learning_curves.py.

use super::super::BackendKind;
use super::super::Workload;
use super::super::checkpoint::Checkpoint;
use super::super::collective::grid::Parallel;
use super::super::course::{Batches, Course, Pair, Part};
use super::super::prepare::prepare;
use super::super::session::SessionOptions;
use super::super::shape::Family;
use super::course_tests::workload;
use std::path::Path;
use std::sync::Arc;

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

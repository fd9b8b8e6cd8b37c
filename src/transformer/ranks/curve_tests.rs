//! Curves of losses beside those of PyTorch, of the same weights, batches and rates: ci/peers/learning_curves.py.

use super::super::checkpoint::Checkpoint;
use super::super::collective::grid::Parallel;
use super::super::course::{Batches, Course, Pair, Part};
use super::super::cpu::instructions::{Instructions, VARIABLE};
use super::super::prepare::prepare;
use super::super::session::SessionOptions;
use super::super::shape::Family;
use super::super::{BackendKind, Dtype, Workload};
use super::course_tests::workload;
use std::path::{Path, PathBuf};
use std::process::Command;
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

/// Families whose curves there are, and how many steps these have.
const FAMILIES: [&str; 2] = ["gpt2", "llama"];
const STEPS: u64 = 300;

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/learning").join(family)
}

fn read(family: &str, file: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder(family).join(file)).unwrap()).unwrap()
}

fn numbers(list: &serde_json::Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// PyTorch's losses in f32 of the weights that are kept.
fn in_f32(family: &str) -> Vec<f64> {
    let losses = numbers(&read(family, "losses.json")["losses"]);
    assert_eq!(losses.len() as u64, STEPS);
    losses
}

/// The rate of a step as the script has it.
fn rate(step: u64) -> f64 {
    if step < 20 {
        return 3e-3 * (step + 1) as f64 / 20.0;
    }
    let share = (step - 20) as f64 / 280.0;
    3e-3 * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * share).cos()))
}

/// Our losses of the same weights and batches at so many times the rates.
fn curve(family: &str, dtype: Dtype, parallel: Parallel, rates: f64) -> Vec<f64> {
    let opened = Checkpoint::open(&folder(family)).unwrap();
    let w = Workload {
        shape: opened.shape.clone(),
        seq_len: 16,
        dtype,
        weights_from: Some(opened.weights.clone()),
        ..workload(Family::Gpt2, 0.0)
    };
    let options = SessionOptions { backend: BackendKind::Cpu, parallel, threads_per_rank: 1, seed: 5 };
    let mut session = prepare(&w, &options).unwrap();
    session.enrol(Course { batches: Arc::new(AsThePeer), weight_decay: Some(0.1) }).unwrap();
    let step = |step| f64::from(session.train((rates * rate(step)) as f32).unwrap().loss.unwrap());
    (0..STEPS).map(step).collect()
}

/// What bf16 does to PyTorch's losses over its own seeds: of each window of steps the mean of `bf16 / f32 - 1`, and how far from it one more
/// seed may be found.
struct Spread {
    window: usize,
    windows: Vec<(f64, f64)>,
}

impl Spread {
    fn of(family: &str) -> Self {
        /// Student's t with 31 degrees of freedom at 1 - 0.001 / 60: 99.9 % for both sides of 30 windows together (Bonferroni).
        const T: f64 = 4.847;
        let golden = read(family, "bf16.json");
        let window = golden["window"].as_u64().unwrap() as usize;
        let seeds: Vec<Vec<f64>> = golden["bf16_over_f32_less_1"].as_array().unwrap().iter().map(numbers).collect();
        let (n, windows) = (seeds.len(), STEPS as usize / window);
        assert!(n == 32 && windows == 30 && seeds.iter().all(|s| s.len() == windows), "what t is of");
        let of_window = |w: usize| {
            let mean = seeds.iter().map(|s| s[w]).sum::<f64>() / n as f64;
            let variance = seeds.iter().map(|s| (s[w] - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            // One more observation differs from the mean of n by its own chance and by theirs.
            (mean, T * (variance * (1.0 + 1.0 / n as f64)).sqrt())
        };
        Self { window, windows: (0..windows).map(of_window).collect() }
    }

    /// How far the losses are from the middle, in half widths, at the window where that is most: within the spread up to 1.
    fn furthest(&self, losses: &[f64], in_f32: &[f64]) -> (f64, usize) {
        let off: Vec<f64> = losses.iter().zip(in_f32).map(|(l, f)| l / f - 1.0).collect();
        let means = off.chunks_exact(self.window).map(|w| w.iter().sum::<f64>() / w.len() as f64);
        let shares = means.zip(&self.windows).map(|(m, (middle, half))| ((m - middle) / half).abs());
        shares.enumerate().map(|(at, share)| (share, at)).max_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
    }
}

#[test]
fn three_hundred_steps_follow_another_frameworks_losses() {
    for family in FAMILIES {
        let golden = in_f32(family);
        for parallel in [Parallel::replicas(1), Parallel::replicas(2)] {
            let mut worst: f64 = 0.0;
            for (step, (loss, expected)) in curve(family, Dtype::F32, parallel, 1.0).iter().zip(&golden).enumerate() {
                let away = (loss / expected - 1.0).abs();
                worst = worst.max(away);
                assert!(away < 1e-3, "{family} {parallel:?}: step {step}: {loss}, not {expected}");
            }
            eprintln!("{family} {parallel:?}: within {worst:.2e} at every step");
        }
    }
}

#[test]
fn in_bf16_they_are_within_the_spread_of_its_own_seeds() {
    for family in FAMILIES {
        let (golden, spread) = (in_f32(family), Spread::of(family));
        for parallel in [Parallel::replicas(1), Parallel::replicas(2)] {
            let losses = curve(family, Dtype::Bf16, parallel, 1.0);
            // In f32 they would be as well, and within 1e-6.
            assert!(losses.iter().zip(&golden).any(|(loss, g)| (loss / g - 1.0).abs() > 1e-5), "{family}");
            let (share, window) = spread.furthest(&losses, &golden);
            assert!(
                share < 1.0,
                "{family} {parallel:?}: {share:.2} of what one more seed may differ by, window {window}"
            );
            eprintln!("{family} {parallel:?}: at most {share:.2} of what one more seed may differ by");
        }
        // It is narrow enough to tell: at rates that are a hundredth higher they are far outside.
        let (share, _) = spread.furthest(&curve(family, Dtype::Bf16, Parallel::replicas(1), 1.01), &golden);
        assert!(share > 5.0, "{family}: {share:.2}");
    }
}

/// The two tests above in a process of its own for each path that this machine has but does not take by itself.
#[test]
fn every_instruction_path_follows_them() {
    let module = module_path!().split_once("::").unwrap().1;
    let tests =
        ["three_hundred_steps_follow_another_frameworks_losses", "in_bf16_they_are_within_the_spread_of_its_own_seeds"];
    let others = Instructions::ALL.iter().filter(|i| i.available() && **i != Instructions::taken());
    for path in others {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(tests.map(|test| format!("{module}::{test}"))).args(["--exact", "--nocapture"]);
        let output = child.env(VARIABLE, path.name()).output().unwrap();
        let said = [output.stdout, output.stderr].map(|s| String::from_utf8_lossy(&s).into_owned()).concat();
        assert!(output.status.success() && said.contains("2 passed"), "{}:\n{said}", path.name());
    }
}

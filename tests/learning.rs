//! Trials that are to learn something, as a user meets them: rows, columns, charts, and what cannot be learnt.
#![cfg(target_os = "linux")]

use centime::{Run, Status, load_run};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

const SCENARIO: &str = "version: 1\nname: t\n\
    trial: { data: synthetic, model: { n_layers: 1, d_model: 32, n_heads: 2 }, batch: 4, seq_len: 32, backend: cpu, \
    schedule: { rate: 1e-2, warmup: 5 }, until: { tokens: 12800 }, eval: { every: 10, tokens: 1024 } }\n\
    price: { usd_per_hour: 0.36 }\n";

fn run(folder: &Path, out: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
    command.args(["run", "s.yaml", "--no-probe", "--once", "--no-history", "--out", out]).args(more);
    command.current_dir(folder).env("XDG_RUNTIME_DIR", folder).env("XDG_CACHE_HOME", folder).env("NO_COLOR", "1");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn folder(sweep: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), format!("{SCENARIO}{sweep}")).unwrap();
    folder
}

fn rows(folder: &Path, out: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(out).join("results.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    all["rows"].as_array().unwrap().clone()
}

fn end(run: &Run, cell: usize) -> Vec<f64> {
    run.records[cell].measurement.figures.as_ref().unwrap().learned.iter().map(|l| l.end.loss).collect()
}

#[test]
fn a_trial_that_learns_is_a_row_with_its_loss_and_what_it_cost() {
    let folder = folder("sweep: { matrix: { optimizer: [sgd, adamw] }, repeat: { seed: [1, 2, 3] } }\n");
    let output = run(folder.path(), "out", &[]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.contains("adamw has the lowest validation loss at the end"), "{stdout}");
    let found = load_run(&folder.path().join("out")).unwrap();
    let (sgd, adamw) = (end(&found, 0), end(&found, 1));
    assert!(sgd.len() == 3 && sgd[0] != sgd[1], "each launch has a seed of its own: {sgd:?}");
    assert!(adamw.iter().zip(&sgd).all(|(a, s)| a < s), "{adamw:?} {sgd:?}");
    let row = &rows(folder.path(), "out")[1];
    let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
    assert_eq!((number("trained_tokens"), number("seeds")), (12800.0, 3.0));
    assert!(number("validation_loss_low") <= number("validation_loss") && number("loss_above_entropy") > 0.0);
    let seconds = number("usd_trained") / 0.36 * 3600.0;
    assert!(seconds > 0.01 && number("evaluation_seconds") > 0.0 && number("data_wait_share") < 1.0, "{row}");
    assert!(row["usd_to_loss"].is_null() && row["loss_curve_tokens"].as_array().unwrap().len() == 11, "{row}");
    let chart = folder.path().join("out/charts/loss-curves.svg");
    assert!(std::fs::read_to_string(chart).unwrap().contains("adamw"));
    // The loss that one of them ends at is one that it reaches, at the same cost: to the bit the same training.
    let target = format!("trial.until.validation_loss={}", (adamw[0] + sgd[0]) / 2.0);
    let output = run(folder.path(), "to", &["--set", &target]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        stdout.contains("adamw reaches a validation loss of") && stdout.contains("One does not get there"),
        "{stdout}"
    );
    let rows = rows(folder.path(), "to");
    let row = &rows[1];
    let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
    assert!((number("usd_to_loss") / number("seconds_to_loss") * 3600.0 - 0.36).abs() < 1e-9, "{row}");
    assert!(number("tokens_to_loss") <= 12800.0 && number("seeds_that_reached_the_loss") == 3.0);
    assert!(rows[0]["usd_to_loss"].is_null() && rows[0]["status"] == "ok" && rows[0]["validation_loss"].is_f64());
}

#[test]
fn two_devices_learn_what_one_does_and_a_text_is_read_from_files() {
    let folder = folder("sweep: { matrix: { devices: [1, 2] } }\n");
    let text: String = (0..4000).map(|i| format!("{} bottles of beer on the wall\n", i % 97)).collect();
    std::fs::write(folder.path().join("a.txt"), text).unwrap();
    let data = [
        "--set",
        "trial.data.text=\"*.txt\"",
        "--set",
        "trial.data.tokenizer.bpe=300",
        "--set",
        "trial.until.tokens=5120",
    ];
    run(folder.path(), "out", &data);
    let found = load_run(&folder.path().join("out")).unwrap();
    let (one, two) = (end(&found, 0)[0], end(&found, 1)[0]);
    assert!((one - two).abs() < 0.02 * one && one < 5.0, "{one} {two}");
    let row = &rows(folder.path(), "out")[0];
    assert!(row["validation_bits_per_byte"].as_f64().unwrap() > 0.0 && row["loss_above_entropy"].is_null(), "{row}");
}

#[test]
fn what_does_not_learn_is_a_row_that_says_so() {
    let folder = folder("sweep: { matrix: { schedule.rate: [1e-2, 1e6] }, repeat: { seed: [1] } }\n");
    run(folder.path(), "out", &["--set", "trial.optimizer=sgd"]);
    let found = load_run(&folder.path().join("out")).unwrap();
    assert_eq!(found.records[0].measurement.status, Status::Ok);
    let lost = &found.records[1].measurement;
    assert_eq!(lost.status, Status::Diverged);
    assert!(lost.reason.contains(" loss is ") && lost.reason.contains(" at step "), "{}", lost.reason);
}

/// A run whose environment has a cache folder, or none at all.
fn cached_run(folder: &Path, out: &str, cache: bool) -> (Run, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
    command.args(["run", "s.yaml", "--no-probe", "--once", "--no-history", "--out", out]);
    command.current_dir(folder).env("XDG_RUNTIME_DIR", folder).env_remove("HOME").env_remove("XDG_CACHE_HOME");
    if cache {
        command.env("XDG_CACHE_HOME", folder);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    (load_run(&folder.join(out)).unwrap(), stderr)
}

#[test]
fn seeds_and_cells_share_what_was_drawn_once_and_learn_the_same_to_the_bit() {
    let folder = folder("sweep: { matrix: { data.share: [0.5, 1] }, repeat: { seed: [1, 2] } }\n");
    let (first, said) = cached_run(folder.path(), "first", true);
    assert_eq!(said.matches("drawing a synthetic language").count(), 1, "{said}");
    let kept: Vec<_> = std::fs::read_dir(folder.path().join("centime/data")).unwrap().collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    let (second, said) = cached_run(folder.path(), "second", true);
    assert!(!said.contains("drawing"), "{said}");
    let (without, said) = cached_run(folder.path(), "without", false);
    assert!(said.contains("every trial makes its text anew"), "{said}");
    let bits = |run: &Run| -> Vec<(u64, u64, Vec<u64>)> {
        let learned = run.records.iter().flat_map(|r| &r.measurement.figures.as_ref().unwrap().learned);
        let all = learned.map(|l| {
            let losses = l.curve.iter().chain(&l.evaluations).map(|p| p.loss.to_bits());
            (l.seed, l.text.train_tokens, losses.collect())
        });
        all.collect()
    };
    assert_eq!((bits(&first).len(), bits(&first) == bits(&second)), (4, true));
    assert_eq!(bits(&first), bits(&without));
    // Side by side they learn the same, whatever their steps took.
    let mut compare = Command::new(env!("CARGO_BIN_EXE_centime"));
    compare.args(["compare", "first", "second", "--format", "markdown"]).current_dir(folder.path());
    let output = compare.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("## What a loss costs"), "{said}");
    let same =
        "Validation loss at the end, second against first: 0.0 % (0.0 .. 0.0) (no difference that these runs can show)";
    assert!(said.contains(same) && !said.contains("learns worse"), "{said}");
}

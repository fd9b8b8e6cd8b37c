//! Experts that are spread over devices as a user meets them: rows, columns, the plan, the profile, the report.
#![cfg(target_os = "linux")]

use centime::{Status, load_run};
use serde_json::Value;
use std::process::{Command, Output};

const SCENARIO: &str = "version: 1\nname: t\n\
    trial: { model: { family: mixtral, n_layers: 2, d_model: 64, n_heads: 4, vocab_size: 512, n_experts: 4, d_ff: 96 }, batch: 8, \
    seq_len: 32, prompt_len: 16, new_tokens: 4, devices: 2, backend: cpu }\n\
    sweep:\n  matrix: { phase: [train, decode], parallel.expert: [1, 2] }\n\
    measure: { min_seconds: 0, max_seconds: 0.2, warmup: 1, order: file }\nprice: { usd_per_hour: 0.36 }\n";

#[test]
fn a_sweep_over_experts_has_their_tokens_memory_and_exchanges() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), SCENARIO).unwrap();
    let centime = |arguments: &[&str]| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command.args(arguments).current_dir(folder.path()).env("XDG_RUNTIME_DIR", folder.path()).env("NO_COLOR", "1");
        command.output().unwrap()
    };
    let output = centime(&["run", "s.yaml", "--no-probe", "--once", "--no-history", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let run = load_run(&folder.path().join("out")).unwrap();
    assert!(run.records.iter().all(|r| r.measurement.status == Status::Ok));
    let of: Vec<_> = run.records.iter().map(|r| (r.cell.trial.devices, r.cell.trial.parallel().expert)).collect();
    assert_eq!(of, [(2, 1), (2, 2), (2, 1), (2, 2)]);
    let text = std::fs::read_to_string(folder.path().join("out/results.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let column = |name: &str| all["rows"].as_array().unwrap().iter().map(|r| r[name].as_f64()).collect::<Vec<_>>();
    assert_eq!(column("parallel.expert"), [Some(1.0), Some(2.0), Some(1.0), Some(2.0)]);
    let weights: Vec<f64> = column("predicted_weights_bytes").into_iter().flatten().collect();
    // In training, of each layer of a device two experts less: gate, up and down.
    assert_eq!(weights[0] - weights[1], f64::from(4 * 2 * 2 * 2 * 3 * 64 * 96));
    // What a step exchanges is in the profile of each rank: tokens where experts are spread alone.
    let exchanged = |record: usize, name: &str| {
        let profile = run.records[record].measurement.figures.as_ref().unwrap().profile.as_ref().unwrap();
        profile.parts.iter().any(|p| p.name == name && p.seconds > 0.0)
    };
    assert_eq!([0, 1, 2, 3].map(|record| exchanged(record, "tokens")), [false, true, false, true]);
    assert!(exchanged(0, "gradients") && exchanged(1, "gradients") && !exchanged(3, "gradients"));
    let report = std::fs::read_to_string(folder.path().join("out/report.md")).unwrap();
    assert!(report.contains("Memory against time") && report.contains("experts over 2"), "{report}");
    let plan = centime(&["plan", "s.yaml"]);
    assert_eq!(plan.status.code(), Some(0), "{}", String::from_utf8_lossy(&plan.stderr));
    assert!(
        String::from_utf8_lossy(&plan.stdout).contains("experts over 2"),
        "{}",
        String::from_utf8_lossy(&plan.stdout)
    );
}

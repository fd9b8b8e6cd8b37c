//! Stages of a pipeline as a user meets them: rows, columns, the report.
#![cfg(target_os = "linux")]

use centime::{Status, load_run};
use serde_json::Value;
use std::process::{Command, Output};

const SCENARIO: &str = "version: 1\nname: t\n\
    trial: { model: { family: llama, n_layers: 3, d_model: 64, n_heads: 4, vocab_size: 512, tied_embeddings: false }, batch: 8, \
    seq_len: 32, accumulate: 4, backend: cpu }\n\
    sweep:\n  matrix: { parallel.pipeline: [1, 2] }\n  include:\n    - { parallel.data: 2, parallel.pipeline: 1, accumulate: 1 }\n\
    measure: { min_seconds: 0, max_seconds: 0.2, warmup: 1, order: file }\nprice: { usd_per_hour: 0.36 }\n";

#[test]
fn a_sweep_over_stages_has_their_losses_memory_and_bubble() {
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
    let of: Vec<_> = run.records.iter().map(|r| (r.cell.trial.devices, r.cell.trial.parallel().pipeline)).collect();
    assert_eq!(of, [(1, 1), (2, 2), (2, 1)]);
    let sums: Vec<u32> = run.records.iter().map(|r| r.measurement.figures.as_ref().unwrap().checksum).collect();
    assert_eq!(sums[0], sums[1], "the loss of the first step, to the bit");
    let text = std::fs::read_to_string(folder.path().join("out/results.json")).unwrap();
    let all: Value = serde_json::from_str(&text).unwrap();
    let column = |name: &str| all["rows"].as_array().unwrap().iter().map(|r| r[name].as_f64()).collect::<Vec<_>>();
    assert_eq!(column("parallel.pipeline"), [Some(1.0), Some(2.0), Some(1.0)]);
    assert_eq!(column("pipeline_bubble"), [None, Some(0.2), None]);
    let report = std::fs::read_to_string(folder.path().join("out/report.md")).unwrap();
    assert!(report.contains("Memory against time") && report.contains("| bubble |"), "{report}");
    assert!(report.contains("pipeline 2"), "{report}");
    let plan = centime(&["plan", "s.yaml"]);
    assert_eq!(plan.status.code(), Some(0), "{}", String::from_utf8_lossy(&plan.stderr));
    assert!(String::from_utf8_lossy(&plan.stdout).contains("pipeline 2"), "{}", String::from_utf8_lossy(&plan.stdout));
}

//! Weights in floats of 8 bits as a user meets them: in a scenario, in a run's rows, in the plan, in the projection, and where they are
//! refused.

#[path = "common/scenario_beside.rs"]
mod scenario_beside;

use centime::{LossChange, Measurement, Status, WeightFormat, load_run};
use scenario_beside::{beside, centime, trials};
use std::path::Path;

const MODEL: &str =
    "model: { family: llama, n_layers: 2, d_model: 128, n_heads: 4, n_kv_heads: 2, d_ff: 256, vocab_size: 96 }";

fn run(folder: &Path) -> Vec<(WeightFormat, Measurement)> {
    let out = centime(folder, &["run", "s.yaml", "--no-probe", "--out", "out"]);
    assert!(matches!(out.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&out.stderr));
    let run = load_run(&folder.join("out")).unwrap();
    run.records.into_iter().map(|r| (r.cell.trial.workload.weights, r.measurement)).collect()
}

#[test]
fn a_sweep_over_formats_runs_in_every_phase_and_says_what_each_does_to_the_loss() {
    for (phase, dtype) in [("decode", "bf16"), ("prefill", "f32"), ("generate", "f32")] {
        let sweep = format!("{{ matrix: {{ weights: [dtype, int8, f8], phase: [{phase}] }} }}");
        let folder = beside(&format!("backend: cpu, dtype: {dtype}"), MODEL, &sweep);
        let rows = run(folder.path());
        assert_eq!(rows.len(), 3);
        for (format, m) in &rows {
            assert_eq!(m.status, Status::Ok, "{phase} {format}: {}", m.reason);
            let loss = m.figures.as_ref().unwrap().quantization_loss.as_ref();
            match format {
                WeightFormat::Dtype => assert_eq!(loss, None),
                _ => {
                    let change = loss.and_then(LossChange::change).unwrap();
                    assert!(change != 0.0 && change.abs() < 0.1, "{phase} {format}: {change}");
                }
            }
        }
        let csv = std::fs::read_to_string(folder.path().join("out/results.csv")).unwrap();
        assert!(csv.lines().next().unwrap().split(',').any(|c| c == "weights"), "{csv}");
        assert!(csv.contains(",f8,"), "{csv}");
    }
}

#[test]
fn it_runs_split_among_ranks_with_experts_with_a_tied_table_and_over_a_cache_of_8_bits() {
    let mixture = "model: { family: mixtral, n_layers: 2, d_model: 64, n_heads: 4, n_kv_heads: 2, d_ff: 96, \
                   n_experts: 5, experts_per_token: 2, vocab_size: 61 }";
    let tied = "model: { family: gpt2, n_layers: 2, d_model: 64, n_heads: 4, vocab_size: 61 }";
    for (trial, model) in [
        ("parallel: { tensor: 2 }, batch: 2", MODEL),
        ("parallel: { tensor: 2 }, batch: 4", mixture),
        ("batch: 17", mixture),
        ("batch: 3, kv_cache: f8", tied),
    ] {
        let folder = beside(&format!("backend: cpu, {trial}"), model, "{ matrix: { weights: [f8] } }");
        let once = run(folder.path());
        assert_eq!(once[0].1.status, Status::Ok, "{trial} {model}: {}", once[0].1.reason);
        std::fs::remove_dir_all(folder.path().join("out")).unwrap();
        let checksum = |rows: &[(WeightFormat, Measurement)]| rows[0].1.figures.as_ref().unwrap().checksum;
        assert_eq!(checksum(&run(folder.path())), checksum(&once), "{trial} {model}");
    }
}

#[test]
fn training_has_none_and_other_backends_say_so_and_what_to_do() {
    let id = |weights: &str| {
        let folder =
            beside(&format!("backend: cpu, seq_len: 8, weights: {weights}"), MODEL, "{ matrix: { phase: [train] } }");
        trials(folder.path()).unwrap()[0].id()
    };
    assert_eq!(id("f8"), id("dtype"));
    let folder = beside("backend: naive", MODEL, "{ matrix: { weights: [dtype, f8] } }");
    for (format, m) in run(folder.path()) {
        if format == WeightFormat::Dtype {
            assert_eq!(m.status, Status::Ok, "{}", m.reason);
        } else {
            assert_ne!(m.status, Status::Ok);
            let expected = "weights: f8 is not available on backend naive; use weights: dtype, or backend: cpu";
            assert!(m.reason.contains(expected), "{}", m.reason);
        }
    }
    let fault = trials(beside("weights: f9", MODEL, "{ matrix: { batch: [1] } }").path()).unwrap_err();
    assert!(["s.yaml:2:", "weights", "`f9`", "f8"].iter().all(|w| fault.contains(w)), "{fault}");
}

#[test]
fn plan_and_projection_know_its_bytes_and_doctor_its_name() {
    let folder = beside("backend: cpu", MODEL, "{ matrix: { weights: [dtype, f8], phase: [decode] } }");
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let out = centime(folder.path(), arguments);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let plan = json(&["plan", "s.yaml", "--format", "json"]);
    let bytes: Vec<f64> = plan.iter().map(|r| r["weights_bytes"].as_f64().unwrap()).collect();
    // A layer: 256 outputs of queries, keys and values, 128 and 512 of 128 inputs, 128 of 256; and the head. Four bytes a number
    // against one, and four an output.
    let numbers = 2 * (128 * (256 + 128 + 512) + 256 * 128) + 96 * 128;
    let outputs = 2 * (256 + 128 + 512 + 128) + 96;
    assert_eq!(bytes[0] - bytes[1], f64::from(4 * numbers - (numbers + 4 * outputs)), "{plan:?}");
    let rows = json(&["project", "s.yaml", "--on", "h100-sxm-80gb", "--format", "json"]);
    let good = rows.iter().filter(|r| r["engine"] == "good engine");
    let held: Vec<f64> = good.map(|r| r["memory_bytes"].as_f64().unwrap()).collect();
    assert!(held.len() == 2 && held[1] < held[0], "{rows:?}");
    let said = format!("{:?}", json(&["doctor", "--no-probe", "--format", "json"]));
    assert!(said.contains("int4-g128-zp, f8; KV cache in"), "{said}");
}

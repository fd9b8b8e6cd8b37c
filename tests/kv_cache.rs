//! The KV cache in few bits as a user meets it: in a scenario, in a run's rows, in the plan, in the projection, and where it is refused.

#[path = "common/scenario_beside.rs"]
mod scenario_beside;

use centime::{BackendKind, CacheFormat, LossChange, Measurement, Status, load_run};
use scenario_beside::{beside, centime, trials};
use std::path::Path;

const MODEL: &str = "model: { family: llama, n_layers: 2, d_model: 128, n_heads: 4, n_kv_heads: 2, vocab_size: 61 }";

fn run(folder: &Path) -> Vec<(CacheFormat, Measurement)> {
    let out = centime(folder, &["run", "s.yaml", "--no-probe", "--out", "out"]);
    assert!(matches!(out.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&out.stderr));
    let run = load_run(&folder.join("out")).unwrap();
    run.records.into_iter().map(|r| (r.cell.trial.workload.kv_cache, r.measurement)).collect()
}

#[test]
fn a_sweep_over_formats_runs_and_says_what_each_does_to_the_loss() {
    for phase in ["decode", "prefill", "generate"] {
        let sweep = format!("{{ matrix: {{ kv_cache: [bf16, int8, f8], phase: [{phase}] }} }}");
        let folder = beside("backend: cpu, dtype: bf16", MODEL, &sweep);
        let rows = run(folder.path());
        assert_eq!(rows.len(), 3);
        for (format, m) in &rows {
            assert_eq!(m.status, Status::Ok, "{phase} {format}: {}", m.reason);
            let loss = m.figures.as_ref().unwrap().quantization_loss.as_ref();
            match format {
                CacheFormat::Dtype => assert_eq!(loss, None),
                CacheFormat::Int8 | CacheFormat::F8 => {
                    let change = loss.and_then(LossChange::change).unwrap();
                    assert!(change != 0.0 && change.abs() < 0.1, "{phase} {format}: {change}");
                }
            }
            // Of each token and layer two keys and two values of 32 numbers.
            let positions = if phase == "prefill" { 40 } else { 48 };
            let bytes = match (format, phase) {
                (CacheFormat::Dtype, "prefill") => 0,
                (CacheFormat::Dtype, _) => 2 * 4 * positions * 64,
                (CacheFormat::Int8 | CacheFormat::F8, _) => 2 * 4 * positions * (32 + 4),
            };
            assert_eq!(m.predicted_memory.kv_cache_bytes, bytes, "{phase} {format}");
        }
        let csv = std::fs::read_to_string(folder.path().join("out/results.csv")).unwrap();
        assert!(csv.lines().next().unwrap().split(',').any(|c| c == "kv_cache"), "{csv}");
        let report = std::fs::read_to_string(folder.path().join("out/report.md")).unwrap();
        assert!(report.contains("KV cache"), "{report}");
    }
}

#[test]
fn what_is_decoded_over_each_format_is_the_same_again() {
    let folder = beside("backend: cpu", MODEL, "{ matrix: { kv_cache: [dtype, int8, f8], batch: [3] } }");
    let of = |rows: Vec<(CacheFormat, Measurement)>| {
        let mut all: Vec<_> = rows.into_iter().map(|(f, m)| (f, m.figures.unwrap().checksum)).collect();
        all.sort_by_key(|(format, _)| *format);
        all
    };
    let once = of(run(folder.path()));
    std::fs::remove_dir_all(folder.path().join("out")).unwrap();
    assert_eq!(of(run(folder.path())), once);
    assert_eq!(once.len(), 3);
}

#[test]
fn a_backend_without_it_says_so_and_what_to_do() {
    let folder = beside("backend: naive", MODEL, "{ matrix: { kv_cache: [f32, int8] } }");
    for (format, m) in run(folder.path()) {
        if format == CacheFormat::Dtype {
            assert_eq!(m.status, Status::Ok, "{}", m.reason);
        } else {
            assert_ne!(m.status, Status::Ok);
            let expected = "kv_cache: int8 is not available on backend naive; use kv_cache: dtype, or backend: cpu";
            assert!(m.reason.contains(expected), "{}", m.reason);
        }
    }
}

#[test]
fn the_dtypes_own_name_is_the_default_and_anothers_is_an_error_at_its_place() {
    let folder = beside("dtype: bf16, backend: cpu", MODEL, "{ matrix: { kv_cache: [dtype, int8, f8] } }");
    let all = trials(folder.path()).unwrap();
    assert_eq!(all.iter().map(|t| t.workload.kv_cache).collect::<Vec<_>>(), CacheFormat::ALL);
    assert!(all.iter().all(|t| t.backend == BackendKind::Cpu));
    let named = beside("dtype: bf16, backend: cpu, kv_cache: bf16", MODEL, "{ matrix: { batch: [1] } }");
    assert_eq!(trials(named.path()).unwrap()[0].id(), all[0].id());
    for (said, words) in [
        ("kv_cache: f32", &["s.yaml:2:", "kv_cache", "expected bf16", "int8 or f8", "found f32"][..]),
        ("kv_cache: int9", &["s.yaml:2:", "kv_cache", "`int9`", "int8"]),
        ("kv_cach: int8", &["s.yaml:2:", "kv_cach", "kv_cache"]),
        ("kv_cache: [int8]", &["s.yaml:2:", "kv_cache", "sweep.matrix"]),
    ] {
        let fault =
            trials(beside(&format!("dtype: bf16, {said}"), MODEL, "{ matrix: { batch: [1] } }").path()).unwrap_err();
        assert!(words.iter().all(|w| fault.contains(w)), "{said}: {fault}");
    }
}

#[test]
fn plan_and_projection_know_its_bytes() {
    let folder = beside("backend: cpu, dtype: bf16", MODEL, "{ matrix: { kv_cache: [bf16, int8], phase: [decode] } }");
    let json = |arguments: &[&str]| -> Vec<serde_json::Value> {
        let out = centime(folder.path(), arguments);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let plan = json(&["plan", "s.yaml", "--format", "json"]);
    let bytes: Vec<f64> = plan.iter().map(|r| r["kv_cache_bytes"].as_f64().unwrap()).collect();
    assert_eq!(bytes[1] / bytes[0], 36.0 / 64.0, "{plan:?}");
    let large = ["--set", "prompt_len=100000", "--set", "batch=64"];
    let rows = json(&[&["project", "s.yaml", "--on", "h100-sxm-80gb", "--format", "json"], &large[..]].concat());
    let good = rows.iter().filter(|r| r["engine"] == "good engine");
    let of = |name: &str| -> Vec<f64> { good.clone().map(|r| r[name].as_f64().unwrap()).collect() };
    let (seconds, held) = (of("step_seconds"), of("memory_bytes"));
    // What is not read takes no time: at the data sheet's 3.35 TB/s, and no kernel reads at half of that.
    let least = (held[0] - held[1]) / 3.35e12;
    assert!((1.0..2.0).contains(&((seconds[0] - seconds[1]) / least)), "{rows:?}");
}

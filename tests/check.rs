//! `centime check` as users type it, on trials that are busy loops: A/A, a planted slowdown, failures, budgets, stored runs.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};

/// One check at a time: two would measure each other.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(|e| e.into_inner())
}

const SCENARIO: &str = "version: 1\nname: gate\ntrial:\n  model: { n_layers: 1, d_model: 32, n_heads: 2, vocab_size: 64, context: 32 }\n\
                        \x20 seq_len: 16\nsweep: { matrix: { batch: [1, 2] } }\nprice: { usd_per_hour: 1 }\n";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.yaml"), SCENARIO).unwrap();
    folder
}

/// A program that is centime with these faults.
fn wrapped(folder: &Path, name: &str, faults: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    let text = format!("#!/bin/sh\nCENTIME_FAULT='{faults}' exec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_centime"));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn check(folder: &Path, base: &str, head: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
    command.args(["check", "s.yaml", "--seconds", "0.02", "--quiet", "--set", "measure.warmup=1"]);
    command
        .args(["--baseline-bin", base, "--head-bin", head])
        .args(more)
        .current_dir(folder)
        .env("TMPDIR", folder)
        .output()
        .unwrap()
}

fn data(folder: &Path) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(folder.join("reports/check/check.json")).unwrap()).unwrap()
}

#[test]
fn a_build_against_itself_does_not_alarm_and_a_planted_slowdown_does() {
    let _alone = alone();
    let folder = folder();
    let same = wrapped(folder.path(), "same", "synthetic:2");
    let slow = wrapped(folder.path(), "slow", "synthetic:2;slow:25");
    let output = check(folder.path(), &same, &same, &[]);
    let found = data(folder.path());
    // On a machine that others use as well it may be inconclusive; it is never a regression.
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(found["cells"].as_array().unwrap().iter().all(|c| c["judged"]["verdict"] != "REGRESSION"), "{found}");
    assert_eq!(found["method"]["control_pairs"], found["cells"][0]["judged"]["pairs"]);
    for file in ["check.md", "junit.xml", "bmf.json", "benchmark.json"] {
        assert!(folder.path().join("reports/check").join(file).exists(), "{file}");
    }
    let output = check(folder.path(), &same, &slow, &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    let (found, code) = (data(folder.path()), output.status.code());
    assert!(found["cells"].as_array().unwrap().iter().all(|c| c["judged"]["verdict"] == "REGRESSION"), "{text}");
    let ratio = found["cells"][0]["judged"]["ratio"].as_f64().unwrap();
    assert!((ratio - 1.25).abs() < 0.05, "{ratio}");
    // A guard (a control arm that alarms, steal) may take the verdict away; without one it is exit code 5.
    let guarded = !found["guards"].as_array().unwrap().is_empty();
    assert_eq!(code, Some(if guarded { 0 } else { 5 }), "{text}");
}

#[test]
fn cells_that_cannot_be_measured_are_partial_and_say_why() {
    let _alone = alone();
    let folder = folder();
    let base = wrapped(folder.path(), "base", "synthetic:2");
    let head = wrapped(folder.path(), "head", "synthetic:2;batch=2/segfault");
    let output = check(folder.path(), &base, &head, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let found = data(folder.path());
    let cell = |name: &str| found["cells"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone();
    assert!(cell("batch 2")["failure"].as_str().unwrap().contains("head: crashed"), "{found}");
    assert_eq!(cell("batch 1")["failure"], serde_json::Value::Null);
}

#[test]
fn a_budget_that_is_exceeded_is_exit_code_6() {
    let _alone = alone();
    let folder = folder();
    let same = wrapped(folder.path(), "same", "synthetic:2");
    std::fs::write(
        folder.path().join("b.yaml"),
        "version: 1\nbudgets:\n  - { cells: \"batch 1\", usd_per_million_tokens: 0.000001 }\n",
    )
    .unwrap();
    let output = check(folder.path(), &same, &same, &["--budget", "b.yaml", "--max-pairs", "12"]);
    assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read_to_string(folder.path().join("reports/check/check.md")).unwrap().contains("OVER BUDGET"));
    std::fs::write(folder.path().join("b.yaml"), "version: 1\nbudgets:\n  - { usd_per_milion_tokens: 1 }\n").unwrap();
    let output = check(folder.path(), &same, &same, &["--budget", "b.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("b.yaml:3:7"),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn what_is_exactly_different_is_found_whatever_the_noise() {
    let _alone = alone();
    let folder = folder();
    // The head computes something else: a busy loop in the transformer's place.
    let base = wrapped(folder.path(), "base", "");
    let head = wrapped(folder.path(), "head", "synthetic:2");
    check(folder.path(), &base, &head, &["--max-pairs", "12"]);
    let found = data(folder.path());
    for c in found["cells"].as_array().unwrap() {
        let all = c["findings"].to_string();
        assert!(all.contains("checksum of the output") && all.contains("bytes allocated"), "{found}");
        assert!(!all.contains("FLOPs") && !all.contains("tokens of a step"), "{found}");
    }
    assert!(
        std::fs::read_to_string(folder.path().join("reports/check/check.md")).unwrap().contains("Exactly different")
    );
}

#[test]
fn a_stored_run_and_a_first_run_are_advisory() {
    let _alone = alone();
    let folder = folder();
    let centime = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
        command
            .args(arguments)
            .current_dir(folder.path())
            .env("CENTIME_FAULT", "synthetic:2")
            .env("TMPDIR", folder.path())
            .output()
            .unwrap()
    };
    let first = centime(&["check", "s.yaml", "--seconds", "0.02", "--set", "measure.warmup=1"]);
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(
        String::from_utf8_lossy(&first.stdout).contains("no baseline"),
        "{}",
        String::from_utf8_lossy(&first.stdout)
    );
    let run = [
        "run",
        "s.yaml",
        "--no-probe",
        "--out",
        "stored",
        "--set",
        "measure.max_seconds=0.1",
        "--set",
        "measure.min_seconds=0.05",
    ];
    assert!(centime(&run).status.success());
    let stored =
        centime(&["check", "s.yaml", "--baseline", "stored", "--seconds", "0.02", "--set", "measure.warmup=1"]);
    assert_eq!(stored.status.code(), Some(0), "{}", String::from_utf8_lossy(&stored.stderr));
    let found = data(folder.path());
    assert_eq!(found["advisory"], true);
    assert!(found["cells"][0]["judged"]["detectable"].as_f64().is_some(), "{found}");
    let strict = centime(&["check", "s.yaml", "--strict", "--seconds", "0.02", "--set", "measure.warmup=1"]);
    assert_eq!(strict.status.code(), Some(4), "nothing can be concluded");
}

#[test]
fn a_gpu_that_is_throttled_or_slow_takes_the_verdict_away_and_is_named_and_a_power_cap_does_not() {
    let _alone = alone();
    let folder = folder();
    let guards = |faults: &str| {
        let steady = wrapped(folder.path(), "steady", "synthetic:2;gpu:steady");
        let head = wrapped(folder.path(), "head", &format!("synthetic:2;{faults}"));
        let output = check(folder.path(), &steady, &head, &["--max-pairs", "12", "--set", "sweep.matrix.batch=[1]"]);
        let found = data(folder.path());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        let remarks = found["remarks"].to_string();
        (found["guards"].to_string(), found["verdict"].as_str().unwrap().to_string(), remarks)
    };
    let (said, verdict, remarks) = guards("gpu:hot");
    assert!(said.contains("was throttled in") && said.contains("thermal") && verdict == "INCONCLUSIVE", "{said}");
    assert_eq!(remarks, "[]");
    let (said, _, remarks) = guards("gpu:capped");
    assert!(!said.contains("throttled") && remarks.contains("was at its power cap in"), "{said} {remarks}");
    let (said, verdict, _) = guards("gpu:slow");
    assert!(said.contains("ran at 50.0 % of its clock in 12 of 24") && verdict == "INCONCLUSIVE", "{said}");
    let (said, _, _) = guards("gpu:silent");
    assert!(!said.contains("GPU"), "a driver that does not tell is no guard: {said}");
}

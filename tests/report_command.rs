//! `centime report` and `centime compare` as users type them, on runs made in code.

#[path = "common/fixture.rs"]
#[allow(dead_code, reason = "shared with the tests of other files")]
mod fixture;

use centime::internal::results::{Journal, RunKey, SCHEMA_VERSION, save_environment};
use centime::{Run, UsdPerHour};
use std::path::Path;
use std::process::{Command, Output};

/// Writes a run's folder as `centime run` leaves it.
fn save(run: &Run, folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    save_environment(folder, &run.environment).unwrap();
    let key = RunKey {
        schema_version: SCHEMA_VERSION,
        program_version: "0.1.0".into(),
        scenario_name: run.environment.scenario_name.clone(),
        seed: 7,
        measure: "{}".into(),
        machine: run.environment.machine.fingerprint(),
    };
    let (mut journal, _) = Journal::open(folder, &key).unwrap();
    run.records.iter().for_each(|r| journal.append(r).unwrap());
}

fn centime(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_centime"));
    command.args(arguments).current_dir(folder).env("NO_COLOR", "1").output().unwrap()
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The dollars of the closing line.
fn cheapest(text: &str) -> f64 {
    let amount = text.lines().last().unwrap().split(" at $").nth(1).unwrap();
    amount.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_run_is_priced_again_without_measuring() {
    let folder = tempfile::tempdir().unwrap();
    save(&fixture::sweep(), &folder.path().join("run"));
    let journal = std::fs::read(folder.path().join("run/journal.jsonl")).unwrap();
    let before = out(&centime(folder.path(), &["report", "run"]));
    assert!(before.lines().last().unwrap().starts_with("report: run/report.html; cheapest: "), "{before}");
    let doubled = out(&centime(folder.path(), &["report", "run", "--price", "0.1712", "--source", "a doubled price"]));
    assert!((cheapest(&doubled) / cheapest(&before) - 2.0).abs() < 0.01, "{before}\n{doubled}");
    assert!(std::fs::read_to_string(folder.path().join("run/report.html")).unwrap().contains("a doubled price"));
    let half = out(&centime(folder.path(), &["report", "run", "--utilisation", "0.5", "--out", "other"]));
    assert!((cheapest(&half) / cheapest(&before) - 2.0).abs() < 0.01);
    assert!(folder.path().join("other/report.html").exists());
    assert_eq!(
        std::fs::read(folder.path().join("run/journal.jsonl")).unwrap(),
        journal,
        "measurements stay as they are"
    );
}

#[test]
fn a_bad_price_is_one_message_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    save(&fixture::sweep(), &folder.path().join("run"));
    for bad in ["0", "-1", "NaN", "inf", "free", ""] {
        let output = centime(folder.path(), &["report", "run", "--price", bad]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{bad}: {said}");
        assert!(said.contains("--price") && said.contains("positive number of USD an hour"), "{said}");
    }
    let output = centime(folder.path(), &["report", "run", "--utilisation", "1.5"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!folder.path().join("run/report.html").exists(), "nothing was written");
}

#[test]
fn a_folder_without_a_run_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for command in [&["report", "nowhere"][..], &["compare", "nowhere", "nowhere"]] {
        let output = centime(folder.path(), command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(74), "{said}");
        assert!(said.contains("nowhere: no run is there") && said.contains("`centime run` wrote"), "{said}");
    }
}

#[test]
fn runs_are_set_side_by_side_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut dear = fixture::sweep();
    dear.environment.price.usd_per_hour = UsdPerHour::of(0.1712);
    save(&fixture::sweep(), &folder.path().join("a"));
    save(&dear, &folder.path().join("b"));
    let with = |format: &str| out(&centime(folder.path(), &["compare", "a", "b", "--format", format]));
    let table = with("table");
    assert!(table.contains("b against a, geometric mean over 9 trials: throughput 1.00x"), "{table}");
    assert!(table.contains("+100.0 %") && table.contains("price +$"), "{table}");
    assert_eq!(with("csv").lines().count(), 1 + 18);
    let json: serde_json::Value = serde_json::from_str(&with("json")).unwrap();
    assert_eq!(json["rows"][1]["cost_ratio"], 2.0);
    assert!(with("markdown").contains("| trial | run |"));
    let one = centime(folder.path(), &["compare", "a"]);
    assert_eq!(one.status.code(), Some(2), "one run is nothing to compare");
}

#[test]
fn the_formats_of_a_report_are_whole() {
    let folder = tempfile::tempdir().unwrap();
    save(&fixture::sweep(), &folder.path().join("run"));
    let with = |format: &str| out(&centime(folder.path(), &["report", "run", "--format", format]));
    assert_eq!(with("csv").trim_end().lines().count(), 13);
    assert_eq!(
        with("csv").trim_end(),
        std::fs::read_to_string(folder.path().join("run/results.csv")).unwrap().trim_end()
    );
    let json: serde_json::Value = serde_json::from_str(&with("json")).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 12);
    assert_eq!(with("markdown").lines().filter(|l| l.starts_with("| ")).count(), 14);
}

#[test]
fn a_run_on_gpus_says_how_they_ran_and_what_its_shares_are_of() {
    let folder = tempfile::tempdir().unwrap();
    save(&fixture::gpus(), &folder.path().join("run"));
    let said = out(&centime(folder.path(), &["report", "run", "--format", "csv"]));
    let read = |name: &str| std::fs::read_to_string(folder.path().join("run").join(name)).unwrap();
    let (csv, markdown) = (read("results.csv"), read("report.md"));
    for column in ["gpu_watts", "gpu_sm_mhz", "gpu_throttled_share", "gpu_throttled_steps", "peak_gpu_memory_bytes"] {
        assert!(csv.lines().next().unwrap().split(',').any(|c| c == column), "{column}");
    }
    assert!(said.contains("gpu_sm_mhz"));
    for words in [
        "GPU 0 throttled in 35.0 % of the readings (power cap)",
        "GPU 0 at 66.2 % of its clock",
        "measured (NVML)",
        "MFU and MBU are against the datasheet's peaks",
        "NVIDIA H100 80GB HBM3",
        "not yet run on a GPU",
        "of the datasheet peak (MFU)",
    ] {
        assert!(markdown.contains(words), "{words} is not in {markdown}");
    }
}

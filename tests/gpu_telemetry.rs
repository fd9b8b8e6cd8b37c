//! What GPUs tell, from the trial's process to the report: the driver is a script (`CENTIME_FAULT=gpu:NAME`), the rest is real.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "shared with the tests of other files")]
mod run_support;

use run_support::Sweep;
use serde_json::Value;

fn rows(fault: &str) -> (Vec<Value>, String) {
    let sweep = Sweep::new(fault);
    let output = sweep.run(&["--format", "json", "--set", "sweep.matrix.batch=[1,2]"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let run: Value = serde_json::from_slice(&output.stdout).unwrap();
    let report = std::fs::read_to_string(sweep.out().join("report.md")).unwrap();
    (run["rows"].as_array().unwrap().clone(), report)
}

#[test]
fn a_throttled_trial_is_marked_in_every_place_that_shows_it() {
    let (rows, report) = rows("gpu:capped");
    for row in &rows {
        let share = row["gpu_throttled_share"].as_f64().unwrap();
        // Every other reading is throttled; a trial of 0.3 s on a busy machine may have had a single one.
        assert!(share > 0.0 && share <= 1.0, "{row}");
        let (marked, all) = (row["gpu_throttled_steps"].as_f64().unwrap(), row["samples"].as_f64().unwrap());
        assert!(marked > 0.0 && marked <= all, "{marked} of {all}: marked, and none dropped");
        assert!(row["gpu_sm_mhz"].as_f64().unwrap() < 1980.0);
        assert_eq!(row["peak_gpu_memory_bytes"].as_f64(), Some((9u64 << 30) as f64));
        assert!(row["joules_per_token"].as_f64().unwrap() > 0.0);
    }
    for words in ["GPU 0 throttled in", "(power cap)", "measured (NVML)", "## GPUs", "Throttled: "] {
        assert!(report.contains(words), "{words} is not in {report}");
    }
}

#[test]
fn a_gpu_that_is_lost_ends_its_figures_and_not_the_trial() {
    let (rows, report) = rows("gpu:lost");
    assert!(rows.iter().all(|r| r["status"] == "ok"), "{rows:?}");
    // A trial lasts 0.3 s at the most, warm-up included: the third reading may come too late to miss anything.
    assert!(rows.iter().all(|r| r["gpu_sm_mhz"].as_f64() == Some(1980.0)), "{report}");
}

#[test]
fn trials_without_gpus_have_no_such_columns_filled_and_no_section() {
    let (rows, report) = rows("");
    assert!(rows.iter().all(|r| r["gpu_watts"].is_null() && r["gpu_throttled_share"].is_null()));
    assert!(!report.contains("## GPUs"), "{report}");
    let (_, report) = self::rows("gpu:none");
    assert!(!report.contains("throttled in"), "{report}");
}

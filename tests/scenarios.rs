//! The shipped scenarios, the template, and the schema that editors complete from: they agree with each other.

use centime::internal::scenario::schema;
use centime::{LoadOptions, load};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

fn as_json(path: &Path) -> Value {
    serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn faults(instance: &Value) -> Vec<String> {
    let schema = serde_json::to_value(schema()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator.iter_errors(instance).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

fn template() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_centime"))
        .args(["init", "s.yaml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

#[test]
fn the_scenarios_are_there_and_each_says_what_it_answers() {
    let names: Vec<String> = shipped().iter().map(|p| p.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    let expected = [
        "article-block",
        "batch-size",
        "context-length",
        "cost-to-loss",
        "data-size",
        "engine-command",
        "gpt2-124m",
        "gpu-attention",
        "gpu-decode",
        "gpu-experts",
        "gpu-latents",
        "gpu-prefill",
        "gpu-train",
        "head-count",
        "kv-cache",
        "levers",
        "model-size",
        "optimizers",
        "parallel",
        "quickstart",
        "scaling",
        "single-vs-multi-device",
    ];
    assert_eq!(names, expected);
    for path in shipped() {
        let scenario = load(&path, &LoadOptions::default()).unwrap();
        assert_eq!(scenario.name, path.file_stem().unwrap().to_str().unwrap());
        assert!(scenario.description.contains('?'), "{}: {}", path.display(), scenario.description);
        assert!(!scenario.price.source.is_empty(), "{}", path.display());
        assert!((2..=40).contains(&scenario.cells.len()), "{}: {} cells", path.display(), scenario.cells.len());
    }
}

#[test]
fn the_shipped_scenarios_and_the_template_hold_to_the_schema() {
    let folder = template();
    for path in shipped().into_iter().chain([folder.path().join("s.yaml")]) {
        assert_eq!(faults(&as_json(&path)), Vec::<String>::new(), "{}", path.display());
        load(&path, &LoadOptions::default()).unwrap_or_else(|e| panic!("{}: {}", path.display(), e.render(false)));
    }
}

#[test]
fn the_schema_rejects_what_the_program_rejects() {
    let good = json!({"version": 1, "name": "t", "trial": {"batch": 2}});
    assert_eq!(faults(&good), Vec::<String>::new());
    for bad in [
        json!({"version": 2}),
        json!({"version": 1, "nmae": "t"}),
        json!({"version": 1, "trial": {"bacth": 2}}),
        json!({"version": 1, "trial": {"model": {"d_modle": 2}}}),
        json!({"version": 1, "trial": {"batch": 0}}),
        json!({"version": 1, "trial": {"phase": "trian"}}),
        json!({"version": 1, "price": {"usd_per_hour": 0}}),
        json!({"version": 1, "price": {"usd_per_hour": -1}}),
        json!({"version": 1, "measure": {"precision": 2}}),
        json!({"version": 1, "measure": {"disturbed": {"lost": 0}}}),
        json!({"version": 1, "measure": {"disturbed": {"others": 1.5}}}),
        json!({"version": 1, "measure": {"disturbed": {"lots": 0.1}}}),
        json!({"version": 1, "measure": {"disturbed": 0.1}}),
        json!({"version": 1, "limits": {"cells": 0}}),
        json!({"version": 1, "sweep": {"matrix": {"bacth": [1, 2]}}}),
        json!({"version": 1, "name": "a/b"}),
    ] {
        assert!(!faults(&bad).is_empty(), "{bad}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        // JSON is YAML.
        std::fs::write(&path, bad.to_string()).unwrap();
        assert!(load(&path, &LoadOptions::default()).is_err(), "the program takes {bad}");
    }
}

#[test]
fn what_others_may_take_is_a_key_of_measure() {
    let good = json!({"version": 1, "measure": {"disturbed": {"lost": 0.05}}});
    assert_eq!(faults(&good), Vec::<String>::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.yaml");
    std::fs::write(&path, good.to_string()).unwrap();
    let set = LoadOptions { overrides: vec!["measure.disturbed.others=0.6".into()], ..LoadOptions::default() };
    let disturbed = load(&path, &set).unwrap().measure.disturbed;
    assert_eq!((disturbed.lost, disturbed.others), (0.05, 0.6));
    std::fs::write(&path, json!({"version": 1}).to_string()).unwrap();
    assert!(load(&path, &LoadOptions::default()).unwrap().measure.disturbed.is_usual());
}

#[test]
fn every_shipped_scenario_can_be_planned() {
    for path in shipped() {
        let output = Command::new(env!("CARGO_BIN_EXE_centime"))
            .args(["plan", path.to_str().unwrap(), "--format", "json"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let known = load(&path, &LoadOptions::default()).unwrap().cells.len();
        assert_eq!(rows.as_array().unwrap().len(), known);
        for row in rows.as_array().unwrap() {
            let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
            // Of another program nothing is counted.
            let own = !path.ends_with("engine-command.yaml");
            assert!(number("estimate_seconds") > 0.0);
            assert!(
                !own || number("parameters") > 0.0 && number("flops_per_step") > 0.0 && number("memory_bytes") > 0.0
            );
        }
    }
}

#[test]
fn trials_on_gpus_are_skipped_with_a_reason_where_there_are_none() {
    let gpus = centime::internal::hardware::inspect();
    for path in shipped().iter().filter(|p| p.to_string_lossy().contains("gpu-")) {
        let folder = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_centime"))
            .args(["plan", path.to_str().unwrap(), "--format", "json"])
            .output()
            .unwrap();
        let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
        let Err(trouble) = &gpus else {
            eprintln!("not tested: this machine has GPUs");
            return;
        };
        for row in rows.as_array().unwrap() {
            assert_eq!(row["note"], json!(format!("skipped: backend cuda: {trouble}")));
        }
        // And a run is a report of skipped rows, not a failure.
        let output = Command::new(env!("CARGO_BIN_EXE_centime"))
            .args(["run", path.to_str().unwrap(), "--no-probe", "--quiet", "--format", "json", "--out"])
            .arg(folder.path().join("run"))
            .env("XDG_RUNTIME_DIR", folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        let run: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(run["rows"].as_array().unwrap().iter().all(|r| r["status"] == "skipped"), "{run}");
    }
}

//! Weights from a folder as a user meets them: in a scenario, in a run, in `centime verify`.

#[path = "common/hf_folder.rs"]
#[allow(dead_code, reason = "other tests take the rest")]
mod hf_folder;

use centime::{LoadOptions, Status, Trial, load, load_run};
use hf_folder::{Saved, golden};
use safetensors::Dtype;
use std::path::Path;
use std::process::Command;
use tempfile::{TempDir, tempdir};

const TRIAL: &str =
    "version: 1\ntrial: { backend: cpu, phase: decode, prompt_len: 4, new_tokens: 4, weights_from: models/small";

/// A scenario beside a folder of the small Llama's weights.
fn beside(rest: &str) -> TempDir {
    let folder = tempdir().unwrap();
    Saved::of("llama-gqa").write(&folder.path().join("models/small"), Dtype::BF16, 2);
    let measure = "measure: { min_seconds: 0.01, max_seconds: 0.1, precision: 0.5, warmup: 1, rounds: 1 }\n";
    std::fs::write(folder.path().join("s.yaml"), format!("{TRIAL}{rest}\n{measure}")).unwrap();
    folder
}

fn trials(folder: &Path) -> Result<Vec<Trial>, String> {
    let scenario = load(&folder.join("s.yaml"), &LoadOptions::default()).map_err(|e| e.to_string())?;
    Ok(scenario.cells.into_iter().map(|c| c.trial).collect())
}

fn fault(rest: &str) -> String {
    trials(beside(rest).path()).unwrap_err()
}

#[test]
fn the_model_is_that_of_the_folder_and_nothing_else_may_be_said_of_it() {
    let folder = beside(" }");
    let trial = trials(folder.path()).unwrap().remove(0);
    let shape = &trial.workload.shape;
    assert_eq!((trial.model.as_str(), shape.d_model, shape.n_kv_heads, shape.vocab_size), ("small", 64, 2, 101));
    for same in ["hf_config: models/small/config.json", "d_model: 64, family: llama", "n_layers: 2"] {
        let said = trials(beside(&format!(", model: {{ {same} }} }}")).path()).unwrap();
        assert_eq!(said[0].id(), trial.id(), "{same}");
    }
    let said = fault(", model: { d_model: 128, head_dim: 8, d_ff: 112 } }");
    assert!(said.contains("s.yaml:2") && said.contains("model.d_model: expected 64, which"), "{said}");
    let said = fault(", model: { preset: gpt2 } }");
    assert!(said.contains("model.family: expected \"llama\", which"), "{said}");
    let said = fault(" }\nsweep: { matrix: { rope_theta: [1e6] } }");
    assert!(said.contains("rope_theta"), "{said}");
    let said = fault(" }\nsweep: { matrix: { weights_from: [models/small, models/other] } }");
    assert!(said.contains("s.yaml:3") && said.contains("expected a config.json, found none"), "{said}");
    let said = fault(" }\nsweep: { matrix: { weights_from: [3] } }");
    assert!(said.contains("3 is no path of a folder"), "{said}");
}

#[test]
fn the_same_weights_elsewhere_are_the_same_trial() {
    let (here, there) = (beside(" }"), beside(" }"));
    let id = |folder: &Path| trials(folder).unwrap()[0].id();
    assert_eq!(id(here.path()), id(there.path()));
    Saved::of("llama-gqa").write(&there.path().join("models/small"), Dtype::F16, 2);
    assert_ne!(id(here.path()), id(there.path()));
    let text = std::fs::read_to_string(here.path().join("s.yaml")).unwrap();
    let random = text.replace("weights_from: models/small", "model: { hf_config: models/small/config.json }");
    std::fs::write(there.path().join("s.yaml"), random).unwrap();
    assert_ne!(id(here.path()), id(there.path()));
}

#[test]
fn a_sweep_over_weights_runs_and_has_them_in_its_rows() {
    let folder = beside(" }\nsweep: { matrix: { weights_from: [models/small, models/moe], phase: [decode, train] } }");
    Saved::of("mixtral").write(&folder.path().join("models/moe"), Dtype::F32, 1);
    let out = Command::new(env!("CARGO_BIN_EXE_centime"))
        .args(["run", "s.yaml", "--no-probe", "--out", "out"])
        .current_dir(folder.path())
        .env("XDG_RUNTIME_DIR", folder.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let run = load_run(&folder.path().join("out")).unwrap();
    assert_eq!(run.records.len(), 4);
    for record in &run.records {
        assert_eq!(record.measurement.status, Status::Ok, "{}", record.measurement.reason);
        let weights = record.cell.trial.workload.weights_from.as_ref().unwrap();
        assert!(weights.folder.starts_with("models") && weights.digest.len() == 12, "{weights:?}");
    }
    let csv = std::fs::read_to_string(folder.path().join("out/results.csv")).unwrap();
    assert!(csv.lines().next().unwrap().split(',').any(|c| c == "weights_from"), "{csv}");
    assert!(csv.contains("models/moe"), "{csv}");
}

fn verify(arguments: &[&str]) -> (i32, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_centime")).arg("verify").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code().unwrap_or(-1), text)
}

#[test]
fn a_folder_is_verified_against_another_framework_or_the_oracle() {
    let folder = tempdir().unwrap();
    let (at, logits) = (folder.path().to_str().unwrap(), golden("qwen3"));
    let logits = logits.to_str().unwrap();
    Saved::of("qwen3").write(folder.path(), Dtype::F32, 2);
    let (code, text) = verify(&["--weights-from", at, "--logits", logits]);
    assert_eq!((code, text.matches("  logits ").count()), (0, 2), "{text}");
    for format in [["--dtype", "bf16"], ["--weights", "int8"], ["--weights", "f8"], ["--dtype", "f32"]] {
        let (code, text) = verify(&[&["--weights-from", at], &format[..]].concat());
        assert_eq!((code, text.matches("against plain loops\n").count()), (0, 1), "{text}");
    }
    let mut wrong = Saved::of("qwen3");
    wrong.tensors.get_mut("model.layers.1.mlp.up_proj.weight").unwrap().1[5] += 0.5;
    wrong.write(folder.path(), Dtype::F32, 2);
    let (code, text) = verify(&["--weights-from", at, "--logits", logits]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("FAILED"), "{text}");
    let (code, text) = verify(&["--weights-from", at, "--logits", golden("llama-gqa").to_str().unwrap()]);
    assert!(code == 2 && text.contains("llama-gqa.safetensors: "), "{code} {text}");
    let (code, text) = verify(&["--weights-from", "nowhere"]);
    assert!(code == 2 && text.contains("expected a config.json"), "{code} {text}");
    let (code, text) = verify(&["--weights-from", at, "--backend", "naive"]);
    assert!(code == 2 && text.contains("give --logits"), "{code} {text}");
    let (code, text) = verify(&["--logits", logits]);
    assert!(code == 2 && text.contains("--weights-from"), "{code} {text}");
}

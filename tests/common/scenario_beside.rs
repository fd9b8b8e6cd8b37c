//! A scenario in a folder of its own, and the program run there.

use centime::{LoadOptions, Trial, load};
use std::path::Path;
use std::process::{Command, Output};
use tempfile::{TempDir, tempdir};

/// A scenario of decoding beside a folder for its runs.
pub(crate) fn beside(trial: &str, model: &str, sweep: &str) -> TempDir {
    let folder = tempdir().unwrap();
    let trial = format!("trial: {{ phase: decode, prompt_len: 40, new_tokens: 8, {trial}, {model} }}");
    let measure = "measure: { min_seconds: 0.01, max_seconds: 0.1, precision: 0.5, rounds: 1 }";
    let text = format!("version: 1\n{trial}\nsweep: {sweep}\n{measure}\n");
    std::fs::write(folder.path().join("s.yaml"), text).unwrap();
    folder
}

pub(crate) fn trials(folder: &Path) -> Result<Vec<Trial>, String> {
    let scenario = load(&folder.join("s.yaml"), &LoadOptions::default()).map_err(|e| e.to_string())?;
    Ok(scenario.cells.into_iter().map(|c| c.trial).collect())
}

pub(crate) fn centime(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_centime"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", folder)
        .output()
        .unwrap()
}

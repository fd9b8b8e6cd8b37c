//! Where the traces of a run's trials go: a file a trial, of its first launch.

use super::super::Failure;
use crate::plan::PlannedTrial;
use crate::runner::Options;
use crate::runner::traced::VARIABLE;
use crate::scenario;
use anyhow::Context;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// The folder of the traces, if any are asked for.
#[derive(Debug)]
pub(super) struct Traces {
    folder: Option<PathBuf>,
    files: RefCell<Vec<PathBuf>>,
}

/// Longest part of a file's name that says what the cell is.
const LONGEST: usize = 80;

impl Traces {
    /// Makes the folder.
    pub(super) fn into(folder: Option<&Path>) -> Result<Self, Failure> {
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("--trace: {}: cannot be made a folder", folder.display()))
                .map_err(Failure::Io)?;
        }
        Ok(Self { folder: folder.map(Path::to_path_buf), files: RefCell::default() })
    }

    /// How the trial's process is started so that it leaves its trace.
    pub(super) fn of(&self, trial: &PlannedTrial, options: &Options) -> Options {
        let mut options = options.clone();
        if let Some(folder) = &self.folder {
            let file = folder.join(file_name(trial));
            options.variables.push((VARIABLE.into(), file.clone().into()));
            self.files.borrow_mut().push(file);
        }
        options
    }

    /// What is said at the end.
    pub(super) fn in_words(&self) -> Option<String> {
        let folder = self.folder.as_ref()?.display();
        let files = self.files.borrow();
        let there = files.iter().filter(|f| f.is_file()).count();
        Some(match (files.len(), there) {
            (0, _) => format!("traces: none in {folder}: every trial was there already (--fresh measures again)"),
            (asked, 0) => {
                format!("traces: none in {folder}: {asked} trials ran, and none of them tells of its operations")
            }
            (_, n) => format!("traces: {n} in {folder}; https://ui.perfetto.dev and chrome://tracing open them"),
        })
    }
}

/// "003-d_model-256-batch-4-1a2b3c4d.json": the cell's place, what it is, and the trial's id.
fn file_name(trial: &PlannedTrial) -> String {
    let id: String = trial.id.chars().take(8).collect();
    format!("{:03}-{}-{id}.json", trial.cell_index, words(&trial.cell))
}

/// What a cell is, as a part of a file's name.
pub(super) fn words(cell: &scenario::Cell) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "_.".contains(c) { c } else { '-' };
    cell.name().replace(", ", "-").chars().map(clean).take(LONGEST).collect()
}

//! Event files of TensorBoard, a folder a cell.

use super::super::Failure;
use super::super::output::results_failure;
use super::traces::words;
use crate::cost::metric::Context;
use crate::cost::scalars::scalars;
use crate::hardware::book::Book;
use crate::results::run::Run;
use crate::results::tensorboard;
use chrono::DateTime;
use std::path::Path;

/// Writes those of every cell that was measured; what is said of it.
pub(super) fn write(folder: &Path, run: &Run, book: &Book) -> Result<String, Failure> {
    let mut written = 0;
    for record in &run.records {
        let started = DateTime::parse_from_rfc3339(&record.started_at).map_or(0.0, |t| t.timestamp() as f64);
        let all = scalars(&Context::of(run, record, book), started);
        if !all.is_empty() {
            let cell = folder.join(format!("{:03}-{}", record.cell_index, words(&record.cell)));
            tensorboard::write(&cell, started, &all).map_err(results_failure)?;
            written += 1;
        }
    }
    Ok(format!("tensorboard: {written} cells in {0}; tensorboard --logdir {0}", folder.display()))
}

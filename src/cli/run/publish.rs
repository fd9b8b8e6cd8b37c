//! What is shown at the end of a run: the report's files, the table, and the line that says where they are.

use super::progress::{median_step, status_name};
use crate::cli::Failure;
use crate::cli::table::{Format, Rows};
use crate::results::run::Run;
use crate::runner::measurement::Status;
use crate::units::{Seconds, TokensPerSecond};
use std::path::Path;

/// Writes the report of `run` into `out` and prints the table.
pub(super) fn publish(run: &Run, out: &Path, format: Format) -> Result<(), Failure> {
    let mut rows = Rows::new(&["cell", "status", "tokens_per_second", "step_seconds_p50", "note"]);
    for r in &run.records {
        let m = &r.measurement;
        let step = m.figures.as_ref().and_then(|f| Some((f.tokens_per_step as f64, median_step(f)?)));
        let [rate, seconds] = match step {
            Some((tokens, s)) => {
                [(TokensPerSecond(tokens / s).to_string(), tokens / s).into(), (Seconds(s).to_string(), s).into()]
            }
            None => [String::new().into(), String::new().into()],
        };
        rows.push(vec![
            r.cell.name().into(),
            status_name(m.status).to_string().into(),
            rate,
            seconds,
            m.reason.clone().into(),
        ]);
    }
    rows.print(format)?;
    if format == Format::Table {
        println!("{}: {} of {} trials ok", out.display(), counted(run, Status::Ok), run.environment.requested_cells);
    }
    Ok(())
}

/// How many records have that status.
pub(super) fn counted(run: &Run, status: Status) -> usize {
    run.records.iter().filter(|r| r.measurement.status == status).count()
}

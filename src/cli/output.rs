//! What a run looks like on stdout, in every format.

use super::Failure;
use super::colour::coloured;
use super::table::Format;
use crate::hardware::book::Book;
use crate::report::{self, ReportError, Style};
use crate::results::ResultsError;
use crate::results::run::Run;
use crate::results::write::{csv_text, json_text};
use std::io::{IsTerminal, Write};
use std::path::Path;

/// Writes the report into `folder` and prints the results; for people, the last line says where the report is and what is
/// cheapest.
pub(super) fn print_run(run: &Run, book: &Book, folder: &Path, format: Format) -> Result<(), Failure> {
    let page = report::publish(run, book, folder).map_err(report_failure)?;
    let text = match format {
        Format::Table => {
            let summary = report::summary(run, book, stdout_style());
            format!("{}\nreport: {}; {}", summary.table, page.display(), summary.closing)
        }
        Format::Markdown => report::markdown_table(run, book),
        Format::Csv => csv_text(&report::results_table(run, book)).map_err(results_failure)?,
        Format::Json => json_text(&report::results_table(run, book)),
    };
    print(&text)
}

/// One text and a line's end.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{}", text.trim_end_matches('\n'))
        .map_err(|e| Failure::Io(anyhow::Error::new(e).context("writing to stdout")))
}

/// How the terminal behind stdout wants its tables.
pub(super) fn stdout_style() -> Style {
    let terminal = std::io::stdout().is_terminal();
    Style { width: terminal.then(width).flatten(), colour: coloured(terminal) }
}

#[cfg(unix)]
fn width() -> Option<u16> {
    rustix::termios::tcgetwinsize(std::io::stdout()).ok().map(|s| s.ws_col).filter(|w| *w > 0)
}

#[cfg(not(unix))]
fn width() -> Option<u16> {
    Some(100)
}

pub(super) fn report_failure(error: ReportError) -> Failure {
    match error {
        ReportError::Results(e) => results_failure(e),
        ReportError::Chart(e) => Failure::Internal(e.into()),
    }
}

pub(super) fn results_failure(error: ResultsError) -> Failure {
    match error {
        ResultsError::Locked { .. } => Failure::Locked(format!("error: {error}")),
        ResultsError::Io { .. } | ResultsError::Damaged { .. } => Failure::Io(error.into()),
    }
}

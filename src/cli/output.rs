//! What a run looks like on stdout, in every format.

use super::Failure;
pub(super) use super::stdout::{print, print_wrapped, stdout_style};
use super::table::Format;
use crate::hardware::book::Book;
use crate::report::pages::Page;
use crate::report::{self, ReportError};
use crate::results::ResultsError;
use crate::results::run::Run;
use crate::results::write::{csv_text, json_text};
use std::path::{Path, PathBuf};

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

/// Writes a page where it was asked for, or where people look for it, and prints it.
pub(super) fn publish(page: &Page, out: Option<PathBuf>, default: PathBuf, format: Format) -> Result<(), Failure> {
    let out = out.or_else(|| (format == Format::Table).then_some(default));
    let written = out.map(|out| page.publish(&out).map_err(report_failure)).transpose()?;
    if format != Format::Table {
        return print(&page.markdown());
    }
    print(&page.terminal(stdout_style()))?;
    written.map_or(Ok(()), |page| print(&format!("\nreport: {}", page.display())))
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

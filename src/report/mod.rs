//! Reports: a document made once from a run, shown as HTML, Markdown and on the terminal, with charts and tables for machines.
//!
//! The only room that knows HTML, Markdown and plots. It computes no figures: it asks `cost` and `comparison`.

mod charts;
pub(crate) mod check;
mod compared;
mod document;
mod escape;
mod facts;
pub(crate) mod fit;
mod format;
mod html;
mod markdown;
pub(crate) mod pages;
mod publish;
mod sections;
mod table;
mod terminal;

use crate::hardware::book::Book;
use crate::results::ResultsError;
use crate::results::run::Run;
use crate::results::write;
pub(crate) use compared::Comparison;
use document::Document;
use facts::Facts;
pub(crate) use format::fixed_usd;
use std::path::{Path, PathBuf};
pub use terminal::Style;
pub(crate) use terminal::wrapped;

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error(transparent)]
    Results(#[from] ResultsError),
    /// A chart could not be drawn.
    #[error(transparent)]
    Chart(#[from] charts::DrawError),
}

/// What is shown on the terminal.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// The table, drawn.
    pub table: String,
    /// "cheapest: batch 8 at $0.0041 per million tokens (95 % CI 0.0040 .. 0.0042)".
    pub closing: String,
}

/// Writes the report of a run into `folder`: report.html, report.md, results.{parquet,csv,json}, charts/*.svg. Returns the path
/// of report.html.
///
/// # Errors
/// Disk or permissions; each file is whole or the old one stays.
pub fn publish(run: &Run, book: &Book, folder: &Path) -> Result<PathBuf, ReportError> {
    let facts = Facts::of(run, book);
    write::write(folder, &table::table(&facts))?;
    let document = document_of(&facts)?;
    publish::publish(&document, folder, "report")
}

fn document_of(facts: &Facts) -> Result<Document, ReportError> {
    let e = &facts.run.environment;
    Ok(Document {
        title: format!("{}: what a token costs", e.scenario_name),
        description: e.description.clone(),
        sections: sections::sections(facts)?,
        foot: format!(
            "Made by centime {} from a run started at {} on {}. Every figure is measured, projected or quoted, as Method says.",
            e.program_version, e.started_at, e.machine.cpu_model
        ),
    })
}

/// The table for people, and the closing line.
pub fn summary(run: &Run, book: &Book, style: Style) -> Summary {
    let facts = Facts::of(run, book);
    Summary {
        table: terminal::render(&sections::compact(&facts), style),
        closing: escape::plain(&sections::closing(&facts)),
    }
}

/// What a cell of a run is called: by what differs among its cells.
pub(crate) fn cell_name(run: &Run, book: &Book, record: usize) -> String {
    Facts::of(run, book).name(record)
}

/// The command that measures again, where others on the machine disturbed every trial and there is no answer.
pub(crate) fn busy(run: &Run, book: &Book) -> Option<String> {
    Facts::of(run, book).busy()
}

/// The table for people, as Markdown.
pub(crate) fn markdown_table(run: &Run, book: &Book) -> String {
    markdown::table(&sections::table(&Facts::of(run, book)))
}

/// Every field and metric of every trial.
pub(crate) fn results_table(run: &Run, book: &Book) -> crate::results::table::DataTable {
    table::table(&Facts::of(run, book))
}

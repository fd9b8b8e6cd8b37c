//! `centime schema`: the JSON Schemas of the files that people write.

use super::Failure;
use std::io::Write;

/// Print the JSON Schema of scenarios or price books, for editors.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The schema of price books and device catalogs.
    #[arg(long)]
    prices: bool,
}

pub(super) fn run(a: &Arguments) -> Result<(), Failure> {
    let schema = if a.prices { crate::hardware::schema::schema() } else { crate::scenario::schema::schema() };
    let closed = |e: std::io::Error| Failure::Io(anyhow::Error::new(e).context("writing to stdout"));
    writeln!(std::io::stdout(), "{:#}", schema.as_value()).map_err(closed)
}

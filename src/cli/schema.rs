//! `centime schema`: the JSON Schema of scenario files.

use super::Failure;
use std::io::Write;

/// Print the JSON Schema of scenario files, for editors that complete and check YAML.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    let schema = crate::scenario::schema::schema();
    let closed = |e: std::io::Error| Failure::Io(anyhow::Error::new(e).context("writing to stdout"));
    writeln!(std::io::stdout(), "{:#}", schema.as_value()).map_err(closed)
}

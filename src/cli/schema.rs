//! `centime schema`.

use super::Failure;

/// Print the JSON Schema of scenario files.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("schema is not there yet")))
}

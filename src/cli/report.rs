//! `centime report`.

use super::Failure;

/// Write a run's report again, at other prices if wanted, without measuring.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("report is not there yet")))
}

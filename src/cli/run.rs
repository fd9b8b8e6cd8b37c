//! `centime run`.

use super::Failure;

/// Measure the trials of a scenario, price them, write and show the report.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("run is not there yet")))
}

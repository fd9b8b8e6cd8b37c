//! `centime plan`.

use super::Failure;

/// Print the trials of a scenario with parameters, FLOPs, predicted memory and time, without running any.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("plan is not there yet")))
}

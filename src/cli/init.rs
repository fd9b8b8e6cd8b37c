//! `centime init`.

use super::Failure;

/// Write a commented scenario to start from.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("init is not there yet")))
}

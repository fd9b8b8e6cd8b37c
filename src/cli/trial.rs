//! `centime trial`.

use super::Failure;

/// Run one trial in this process and report over the pipe (used by run).
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("trial is not there yet")))
}

//! `centime doctor`.

use super::Failure;

/// Say what this machine has and what will be measured with which backend.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("doctor is not there yet")))
}

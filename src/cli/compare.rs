//! `centime compare`.

use super::Failure;

/// Set runs or machines side by side.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("compare is not there yet")))
}

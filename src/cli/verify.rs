//! `centime verify`.

use super::Failure;

/// Check the built-in transformer against golden files made by other frameworks.
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    Err(Failure::Internal(anyhow::anyhow!("verify is not there yet")))
}

//! `centime trial`.

use super::Failure;
use crate::runner::child;
use crate::runner::protocol::ProtocolError;
use std::io;

/// Run one trial in this process and report over the pipe (used by run).
#[derive(Debug, clap::Args)]
pub struct Arguments {}

pub(super) fn run(_: &Arguments) -> Result<(), Failure> {
    child::serve(io::stdin().lock(), io::stdout().lock()).map_err(|e| match e {
        ProtocolError::Request(_) => Failure::Usage(e.into()),
        ProtocolError::Read(_) | ProtocolError::Write(_) => Failure::Io(e.into()),
    })
}

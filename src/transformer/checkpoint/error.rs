//! Why weights cannot be read.

use std::path::{Path, PathBuf};

/// What is wrong with a folder of weights or a file in it, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", path.display())]
pub(crate) struct CheckpointError {
    pub path: PathBuf,
    pub message: String,
}

impl CheckpointError {
    /// A fault of this file or folder.
    pub(super) fn new(path: &Path, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

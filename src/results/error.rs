//! What can go wrong with result files: what, which path, and the remedy.

use std::path::{Path, PathBuf};

/// A result file or folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    #[error("{path}: {action}: {source}")]
    Io { path: PathBuf, action: &'static str, source: std::io::Error },
    #[error("{path}: {message}")]
    Damaged { path: PathBuf, message: String },
    #[error("{path}: somebody else is running there ({holder}); wait for it, or use another --out")]
    Locked { path: PathBuf, holder: String },
}

impl ResultsError {
    /// An error of the system, with what was being done and where.
    pub fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    pub(super) fn damaged(path: &Path, message: impl Into<String>) -> Self {
        Self::Damaged { path: path.into(), message: message.into() }
    }
}

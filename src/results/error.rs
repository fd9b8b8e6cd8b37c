//! What can go wrong with result files: what, which path, and the remedy.

use std::path::{Path, PathBuf};

/// A result file or folder that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultsError {
    /// The system failed.
    #[error("{path}: {action}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was being done to it.
        action: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// What is there is not what this program writes.
    #[error("{path}: {message}")]
    Damaged {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and the remedy.
        message: String,
    },
    /// Another process uses the folder.
    #[error("{path}: somebody else is running there ({holder}); wait for it, or use another --out")]
    Locked {
        /// The folder.
        path: PathBuf,
        /// Who uses it.
        holder: String,
    },
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

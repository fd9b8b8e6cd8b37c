//! What can be wrong with data: what, where, and the remedy.

use std::path::{Path, PathBuf};

/// Data that cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// What is there is not what is wanted.
    #[error("{place}: {message}")]
    Input {
        /// A file, a line of it, or a field.
        place: String,
        /// What was expected, what was found, and the remedy.
        message: String,
    },
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
}

impl DataError {
    /// What is wrong at a place.
    pub(super) fn at(place: impl std::fmt::Display, message: impl Into<String>) -> Self {
        Self::Input { place: place.to_string(), message: message.into() }
    }

    /// An error of the system, with what was being done and where.
    pub(super) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}

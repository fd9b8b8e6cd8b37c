//! The files that a configuration is made of, and what was typed beside them: whatever is wrong points into one of them.

use super::error::{Origin, YamlError};
use super::node::{Node, Place};
use super::parse::{self, MAX_BYTES};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Everything that a message may point into.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sources(Vec<(Origin, String)>);

impl Sources {
    /// One more source; its number.
    pub(crate) fn add(&mut self, origin: Origin, text: &str) -> u32 {
        self.0.push((origin, text.into()));
        self.0.len() as u32 - 1
    }

    /// A fault at a place; without one, of the first file.
    pub(crate) fn fault(&self, place: Option<Place>, message: impl Into<String>) -> YamlError {
        let index = place.map_or(0, |p| p.source as usize);
        match self.0.get(index) {
            Some((Origin::File { path, .. }, text)) => {
                YamlError::new(Origin::File { path: path.clone(), place }, message, Some(text))
            }
            Some((origin, _)) => YamlError::new(origin.clone(), message, None),
            None => YamlError::new(Origin::CommandLine("configuration".into()), message, None),
        }
    }

    /// Reads and parses a file; every value knows its place. `remedy` is what to do where there is none.
    ///
    /// # Errors
    /// A file that is not there, too large, not UTF-8 or not YAML.
    pub(crate) fn read(&mut self, path: &Path, remedy: &str) -> Result<Node, YamlError> {
        let bytes = contents(path).map_err(|e| YamlError::unreadable(path, &e, remedy))?;
        let origin = Origin::File { path: path.into(), place: None };
        let text = String::from_utf8(bytes).map_err(|e| {
            let valid = e.utf8_error().valid_up_to();
            YamlError::new(origin.clone(), format!("not UTF-8 after byte {valid}; save it as UTF-8"), None)
        })?;
        self.parse(origin, &text)
    }

    /// Parses a text that came from `origin`.
    ///
    /// # Errors
    /// Text that is not YAML, or beyond its limits.
    pub(crate) fn parse(&mut self, origin: Origin, text: &str) -> Result<Node, YamlError> {
        let source = self.add(origin, text);
        let start = Place { source, line: 1, column: 1 };
        let mut root = parse::parse(text, source).map_err(|(m, place)| self.fault(place.or(Some(start)), m))?;
        root.place = root.place.or(Some(start));
        Ok(root)
    }

    /// The first file's folder: where its relative paths start.
    pub(crate) fn folder(&self) -> PathBuf {
        match self.0.first() {
            Some((Origin::File { path, .. }, _)) => path.parent().unwrap_or(Path::new("")).to_path_buf(),
            _ => PathBuf::new(),
        }
    }
}

/// At most [`MAX_BYTES`] of a file, whatever kind of file it is.
///
/// # Errors
/// As the system says; a file that is larger.
pub(crate) fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("larger than {} MiB", MAX_BYTES >> 20),
        ));
    }
    Ok(bytes)
}

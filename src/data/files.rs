//! Files by patterns: which there are, and what kind each is.

use super::DataError;
use super::source::Files;
use std::path::{Path, PathBuf};

/// How a file holds its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Text in UTF-8: a document, or several with the end-of-text mark between them.
    Text,
    /// A JSON object a line, each a document.
    Lines,
    /// A table, a document a row.
    Parquet,
}

/// A file, and how it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DataFile {
    pub path: PathBuf,
    pub form: Form,
}

/// `*` stays within a folder, `**` does not; what begins with a dot is named or not meant.
const MATCHING: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The pattern from the working directory of one from `base`. The name of a file that is there stands for that file, whatever
/// characters are in it.
///
/// # Errors
/// A pattern that is none, a folder, a path that is no text.
pub(super) fn locate(pattern: &str, base: &Path) -> Result<String, DataError> {
    let path = base.join(pattern);
    let as_text = |path: &Path| {
        let message = "expected a path in UTF-8, found another; rename it";
        path.to_str().map(str::to_string).ok_or_else(|| DataError::at(path.display(), message))
    };
    if path.is_dir() {
        let message = format!("expected files, found a folder; write {}", path.join("*.txt").display());
        return Err(DataError::at(path.display(), message));
    }
    if path.is_file() {
        return Ok(glob::Pattern::escape(&as_text(&path)?));
    }
    let located = if Path::new(pattern).is_absolute() || base.as_os_str().is_empty() {
        pattern.to_string()
    } else {
        format!("{}/{pattern}", glob::Pattern::escape(&as_text(base)?))
    };
    let faulty = |e: glob::PatternError| DataError::at(pattern, format!("expected a path or a pattern of paths: {e}"));
    glob::Pattern::new(&located).map(|_| located).map_err(faulty)
}

/// The files of located patterns, each once, at the first pattern that names it.
///
/// # Errors
/// A pattern that no file matches, a folder that cannot be read, a file of a kind that is not read.
pub(super) fn find(patterns: &[String]) -> Result<Vec<DataFile>, DataError> {
    if patterns.is_empty() {
        return Err(DataError::at("data.text", "expected a path or a pattern of paths, found none"));
    }
    let mut found: Vec<DataFile> = Vec::new();
    for pattern in patterns {
        let paths = glob::glob_with(pattern, MATCHING);
        let paths = paths.map_err(|e| DataError::at(pattern, format!("expected a path or a pattern of paths: {e}")))?;
        let before = found.len();
        let mut known = false;
        for path in paths {
            let path = path.map_err(|e| {
                let path = e.path().to_path_buf();
                DataError::io(&path, "reading the folder")(e.into())
            })?;
            if !path.is_file() {
                continue;
            }
            match found.iter().any(|f| f.path == path) {
                true => known = true,
                false => found.push(DataFile { form: form(&path)?, path }),
            }
        }
        if found.len() == before && !known {
            let message = "expected at least one file, found none of this name; paths count from the scenario's folder, or from the \
                           working directory on the command line";
            return Err(DataError::at(pattern, message));
        }
    }
    Ok(found)
}

fn form(path: &Path) -> Result<Form, DataError> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    let refused = |remedy: &str| {
        let message = format!("expected text, JSON lines (.jsonl) or Parquet (.parquet), found .{ending}; {remedy}");
        Err(DataError::at(path.display(), message))
    };
    match ending.as_str() {
        "jsonl" | "ndjson" => Ok(Form::Lines),
        "parquet" => Ok(Form::Parquet),
        "json" => refused("write an object a line and call it .jsonl"),
        "gz" | "zst" | "xz" | "bz2" | "zip" | "tar" | "lz4" => refused("unpack it first"),
        _ => Ok(Form::Text),
    }
}

/// Gives the content of all files, and what of the names decides how they are read, part by part.
///
/// # Errors
/// Those of [`find`]; a file that cannot be read.
pub(super) fn digest(named: &Files, mut add: impl FnMut(&[u8])) -> Result<(), DataError> {
    use std::io::Read;
    let mut buffer = vec![0; 1 << 20];
    for file in find(&named.patterns)? {
        let how = match file.form {
            Form::Text => "text",
            Form::Lines => &named.field,
            Form::Parquet => &named.column,
        };
        add(format!("{:?} {how}", file.form).as_bytes());
        let mut open = std::fs::File::open(&file.path).map_err(DataError::io(&file.path, "opening"))?;
        loop {
            // In parts of one size, so that the same content is the same parts.
            let mut filled = 0;
            while filled < buffer.len() {
                match open.read(&mut buffer[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(DataError::io(&file.path, "reading")(e)),
                }
            }
            add(&buffer[..filled]);
            if filled < buffer.len() {
                break;
            }
        }
    }
    Ok(())
}

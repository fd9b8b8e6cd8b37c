//! Texts out of files, one document after the other; never more than a file of text, or a column of Parquet, in memory.

use super::DataError;
use super::files::{DataFile, Form};
use super::source::Files;
use super::{corpus, parquet};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What stands between the documents of one text file, where it stands; and the name of the token that ends a document.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// Where documents are read from, as often as they are asked for.
#[derive(Debug)]
pub(super) enum Texts {
    /// The text that the program carries.
    Corpus,
    /// Files, and where in them the text is.
    Files(Vec<DataFile>, Files),
}

impl Texts {
    /// All documents, in their order; none is empty.
    pub(super) fn documents(&self) -> Documents<'_> {
        let begin = match self {
            Self::Corpus => Open::Corpus,
            Self::Files(..) => Open::None,
        };
        let (files, named) = match self {
            Self::Corpus => ([].iter(), None),
            Self::Files(files, named) => (files.iter(), Some(named)),
        };
        Documents { files, named, open: begin }
    }
}

/// Documents, or what is wrong with the first that cannot be read; nothing comes after that.
#[derive(Debug)]
pub(super) struct Documents<'a> {
    files: std::slice::Iter<'a, DataFile>,
    named: Option<&'a Files>,
    open: Open,
}

#[derive(Debug)]
enum Open {
    None,
    Corpus,
    Whole(std::vec::IntoIter<String>),
    Lines { path: PathBuf, reader: BufReader<File>, line: u64 },
    Failed,
}

impl Iterator for Documents<'_> {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let field = self.named.map_or("text", |n| n.field.as_str());
            let found = match &mut self.open {
                Open::Failed => return None,
                Open::Whole(all) => all.next().map(Ok),
                Open::Lines { path, reader, line } => next_line(path, reader, line, field).transpose(),
                Open::Corpus => {
                    self.open = Open::None;
                    match corpus::text() {
                        Ok(text) => {
                            self.open = Open::Whole(split(&text));
                            continue;
                        }
                        Err(e) => Some(Err(e)),
                    }
                }
                Open::None => None,
            };
            match found {
                Some(Ok(text)) if text.trim().is_empty() => {}
                Some(Ok(text)) => return Some(Ok(text)),
                Some(Err(e)) => return self.failed(e),
                None => {
                    let file = self.files.next()?;
                    match open(file, self.named.map_or("text", |n| n.column.as_str())) {
                        Ok(open) => self.open = open,
                        Err(e) => return self.failed(e),
                    }
                }
            }
        }
    }
}

impl Documents<'_> {
    fn failed(&mut self, e: DataError) -> Option<Result<String, DataError>> {
        self.open = Open::Failed;
        Some(Err(e))
    }
}

fn open(file: &DataFile, column: &str) -> Result<Open, DataError> {
    let path = &file.path;
    Ok(match file.form {
        Form::Text => {
            let bytes = std::fs::read(path).map_err(DataError::io(path, "reading"))?;
            let text = utf8(&bytes, path.display(), 1)?;
            Open::Whole(split(text.strip_prefix('\u{feff}').unwrap_or(text)))
        }
        Form::Lines => {
            let reader = BufReader::with_capacity(1 << 18, File::open(path).map_err(DataError::io(path, "opening"))?);
            Open::Lines { path: path.clone(), reader, line: 0 }
        }
        Form::Parquet => {
            let all = parquet::column(path, column)?;
            for (row, text) in all.iter().enumerate() {
                utf8(text.as_bytes(), format!("{}: row {}", path.display(), row + 1), 1)?;
            }
            Open::Whole(all.into_iter())
        }
    })
}

/// The documents of a text, without the line break after the mark.
fn split(text: &str) -> std::vec::IntoIter<String> {
    let one = |part: &str| part.strip_prefix("\r\n").or(part.strip_prefix('\n')).unwrap_or(part).to_string();
    let mut parts = text.split(END_OF_TEXT);
    let first = parts.next().map(str::to_string);
    first.into_iter().chain(parts.map(one)).collect::<Vec<_>>().into_iter()
}

/// The text of the next line that is not blank.
fn next_line(
    path: &Path,
    reader: &mut BufReader<File>,
    line: &mut u64,
    field: &str,
) -> Result<Option<String>, DataError> {
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        *line += 1;
        if reader.read_until(b'\n', &mut bytes).map_err(DataError::io(path, "reading"))? == 0 {
            return Ok(None);
        }
        let text = utf8(&bytes, path.display(), *line)?.trim_start_matches('\u{feff}').trim();
        if !text.is_empty() {
            return of_line(text, field).map(Some).map_err(|m| DataError::at(format!("{}:{line}", path.display()), m));
        }
    }
}

fn of_line(line: &str, field: &str) -> Result<String, String> {
    let parsed: Value = serde_json::from_str(line).map_err(|e| {
        format!("expected a JSON object, found what is none: {e}; a file of plain text is not called .jsonl")
    })?;
    let Value::Object(mut object) = parsed else {
        return Err(format!("expected a JSON object with a field `{field}`, found {}", kind(&parsed)));
    };
    match object.remove(field) {
        Some(Value::String(text)) if text.contains('\0') => {
            Err(format!("expected text in `{field}`, found a zero character in it; take it out"))
        }
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(format!("expected text in `{field}`, found {}", kind(&other))),
        None => {
            let names: Vec<&str> = object.keys().take(8).map(String::as_str).collect();
            let found = if names.is_empty() { "none".into() } else { names.join(", ") };
            Err(format!("expected a field `{field}`, found {found}; name the field that holds the text (field: NAME)"))
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Bytes as text, where they are UTF-8 and hold no zero, which no text has; `line` is the number of the first line.
fn utf8(bytes: &[u8], of: impl std::fmt::Display, line: u64) -> Result<&str, DataError> {
    let fault = |at: usize, found: String, remedy: &str| {
        let lines = bytes[..at].iter().filter(|b| **b == b'\n').count() as u64;
        let message = format!("expected text in UTF-8, found {found}; {remedy}");
        DataError::at(format!("{of}:{}", line + lines), message)
    };
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let at = e.valid_up_to();
            let found = format!("the byte 0x{:02x} at offset {at}", bytes[at]);
            return Err(fault(at, found, "convert it (iconv -t UTF-8), or leave the file out"));
        }
    };
    match bytes.iter().position(|b| *b == 0) {
        Some(at) => Err(fault(at, format!("a zero byte at offset {at}"), "leave files out that are not text")),
        None => Ok(text),
    }
}

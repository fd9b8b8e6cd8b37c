//! The journal: one line a finished trial, on disk before anybody hears of it.
//!
//! A line is `<bytes of the JSON> <CRC-32 of the JSON, 8 hexadecimal digits> <JSON>\n`. The first holds the [`RunKey`], each
//! later one a [`Record`]. A last line that is torn is cut off with a warning; damage before it is refused, and the file is
//! left as it is.

use super::error::ResultsError;
use super::files::sync_folder_of;
use super::record::{Record, RunKey, SCHEMA_VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Name of the journal in a run's folder.
pub(crate) const JOURNAL: &str = "journal.jsonl";

/// What was found when a journal was opened.
#[derive(Debug)]
pub enum Opened {
    Fresh,
    /// Records of the same run, and what had to be mended.
    Resumed {
        records: Vec<Record>,
        warnings: Vec<String>,
    },
}

/// What a journal holds.
#[derive(Debug)]
pub struct Content {
    pub key: RunKey,
    pub records: Vec<Record>,
    pub warnings: Vec<String>,
    /// Bytes that are whole lines.
    whole: u64,
}

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes up to the last synced line.
    end: u64,
}

fn line<T: Serialize>(path: &Path, value: &T) -> Result<String, ResultsError> {
    let json = serde_json::to_string(value)
        .map_err(|e| ResultsError::damaged(path, format!("not to be written as JSON: {e}")))?;
    Ok(format!("{} {:08x} {json}\n", json.len(), crc32fast::hash(json.as_bytes())))
}

/// The value of a line without its line break; `None` where length or checksum say otherwise.
fn parse<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(line).ok()?;
    let (length, rest) = text.split_once(' ')?;
    let (sum, json) = rest.split_once(' ')?;
    let whole =
        length.parse() == Ok(json.len()) && u32::from_str_radix(sum, 16) == Ok(crc32fast::hash(json.as_bytes()));
    whole.then(|| serde_json::from_str(json).ok())?
}

/// Reads a journal; `None` where there is none, or nothing in it was ever finished.
///
/// # Errors
/// A file that cannot be read, is damaged before its last line, or was written by a newer program.
pub fn read(folder: &Path) -> Result<Option<Content>, ResultsError> {
    let path = folder.join(JOURNAL);
    let bytes = match std::fs::read(&path) {
        Ok(b) => b,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(ResultsError::io(&path, "reading")(e)),
    };
    let mut lines = bytes.split_inclusive(|b| *b == b'\n').enumerate().peekable();
    let (mut key, mut records, mut warnings, mut whole) = (None, Vec::<Record>::new(), Vec::new(), 0);
    while let Some((number, raw)) = lines.next() {
        let body = raw.strip_suffix(b"\n");
        let good = match body {
            Some(b) if number == 0 => parse::<RunKey>(b).map(|k| key = Some(k)).is_some(),
            Some(b) => parse::<Record>(b).map(|r| records.push(r)).is_some(),
            None => false,
        };
        if good {
            whole += raw.len() as u64;
        } else if lines.peek().is_none() {
            warnings.push(format!("{}: the last line was torn and is cut off; its trial runs again", path.display()));
        } else {
            let message = format!(
                "line {} is damaged, and lines after it are not; nothing was changed. Mend it, or move the file aside and run again",
                number + 1
            );
            return Err(ResultsError::damaged(&path, message));
        }
    }
    let Some(key): Option<RunKey> = key else { return Ok(None) };
    if key.schema_version > SCHEMA_VERSION {
        let message = format!(
            "written in form {}, and this program reads up to {SCHEMA_VERSION}; use a newer centime",
            key.schema_version
        );
        return Err(ResultsError::damaged(&path, message));
    }
    Ok(Some(Content { key, records, warnings, whole }))
}

impl Journal {
    /// Opens the journal of a run for appending; the caller holds the folder's lock and has made sure (with [`read`] and
    /// [`RunKey::differences`]) that it belongs to the same run. A torn last line is cut off here.
    ///
    /// # Errors
    /// Disk, permissions or damage.
    pub fn open(folder: &Path, key: &RunKey) -> Result<(Self, Opened), ResultsError> {
        let path = folder.join(JOURNAL);
        let content = read(folder)?;
        let options = || OpenOptions::new().create(true).write(true).truncate(false).open(&path);
        let file = options().map_err(ResultsError::io(&path, "opening"))?;
        let mut journal = Self { path, file, end: content.as_ref().map_or(0, |c| c.whole) };
        journal.file.set_len(journal.end).map_err(ResultsError::io(&journal.path, "cutting a torn line off"))?;
        match content {
            Some(c) => Ok((journal, Opened::Resumed { records: c.records, warnings: c.warnings })),
            None => {
                journal.append_line(key)?;
                sync_folder_of(&journal.path)?;
                Ok((journal, Opened::Fresh))
            }
        }
    }

    /// Moves a journal of another run aside, to `journal-<n>.old.jsonl`; nothing is ever deleted.
    ///
    /// # Errors
    /// Disk or permissions.
    pub fn set_aside(folder: &Path) -> Result<Option<PathBuf>, ResultsError> {
        let path = folder.join(JOURNAL);
        if !path.exists() {
            return Ok(None);
        }
        let free = (1..).map(|n| folder.join(format!("journal-{n}.old.jsonl"))).find(|p| !p.exists());
        let Some(aside) = free else { return Ok(None) };
        std::fs::rename(&path, &aside).map_err(ResultsError::io(&path, "moving aside"))?;
        sync_folder_of(&aside)?;
        Ok(Some(aside))
    }

    /// Writes a finished trial and returns when it is on the disk.
    ///
    /// # Errors
    /// Disk or permissions; what was there before stays readable.
    pub fn append(&mut self, record: &Record) -> Result<(), ResultsError> {
        self.append_line(record)
    }

    fn append_line<T: Serialize>(&mut self, value: &T) -> Result<(), ResultsError> {
        let text = line(&self.path, value)?;
        let write = |f: &mut File, end: u64| -> std::io::Result<()> {
            f.seek(SeekFrom::Start(end))?;
            f.write_all(text.as_bytes())?;
            f.sync_data()
        };
        if let Err(e) = write(&mut self.file, self.end) {
            // A part of the line may be there: cut it off, so that the next one does not stand behind it.
            let _ = self.file.set_len(self.end);
            return Err(ResultsError::io(&self.path, "writing")(e));
        }
        self.end += text.len() as u64;
        Ok(())
    }
}

impl RunKey {
    /// What differs from another key, in words; empty when records of one count for the other.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        let mut compare = |what: &str, a: &str, b: &str| {
            if a != b {
                all.push(format!("{what}: {a} there, {b} now"));
            }
        };
        compare("schema", &self.schema_version.to_string(), &other.schema_version.to_string());
        compare("program", &self.program_version, &other.program_version);
        compare("scenario", &self.scenario_name, &other.scenario_name);
        compare("seed", &self.seed.to_string(), &other.seed.to_string());
        compare("measure", &self.measure, &other.measure);
        compare("machine", &self.machine, &other.machine);
        all
    }
}

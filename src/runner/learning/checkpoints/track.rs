//! How far a launch was, step by step, so that the process after it knows what was lost: a line of a fixed length, written over itself.
//!
//! It is not synced: it outlives the process, which is what it is for, and a power cut costs the count and nothing else.

use super::super::learned::Checkpoints;
use crate::scenario::learning::Progress;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

/// Of the line, its end included.
const LENGTH: usize = 512;

/// The file.
#[derive(Debug)]
pub(super) struct Track(File);

/// How far it is, and what checkpoints and kills have cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Reached {
    /// Digest of whose it is.
    pub launch: u32,
    pub at: Progress,
    pub sum: Checkpoints,
}

impl Track {
    /// The file at a path, and what a process before left there.
    ///
    /// # Errors
    /// Disk or permissions.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Option<Reached>)> {
        let before = std::fs::read(path).ok().and_then(|bytes| read(&bytes));
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
        Ok((Self(file), before))
    }

    /// Writes how far it is.
    ///
    /// # Errors
    /// Disk or permissions.
    pub(super) fn write(&mut self, reached: &Reached) -> io::Result<()> {
        let json = serde_json::to_string(reached)?;
        let text = format!("{:08x} {json}", crc32fast::hash(json.as_bytes()));
        let line = format!("{text:<width$}\n", width = LENGTH - 1);
        self.0.seek(SeekFrom::Start(0))?;
        self.0.write_all(line.as_bytes())
    }
}

fn read(bytes: &[u8]) -> Option<Reached> {
    let (sum, json) = std::str::from_utf8(bytes).ok()?.trim_end().split_once(' ')?;
    let whole = sum == format!("{:08x}", crc32fast::hash(json.as_bytes()));
    whole.then(|| serde_json::from_str(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_counts_and_a_torn_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("track");
        let (mut track, before) = Track::open(&path).unwrap();
        assert_eq!(before, None);
        let third = 1.0 / 3.0;
        let sum = Checkpoints { made: u64::MAX, seconds: third, lost_steps: u64::MAX, ..Checkpoints::default() };
        let reached =
            |step| Reached { launch: u32::MAX, at: Progress { step, seconds: third * step as f64 }, sum: sum.clone() };
        for step in [1, 10_000_000_000, 3] {
            track.write(&reached(step)).unwrap();
        }
        drop(track);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LENGTH as u64);
        assert_eq!(Track::open(&path).unwrap().1, Some(reached(3)));
        let whole = std::fs::read(&path).unwrap();
        for wrong in [&whole[..20], &[b"0".as_slice(), &whole].concat(), b"", b"x\n"] {
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(Track::open(&path).unwrap().1, None);
        }
    }
}

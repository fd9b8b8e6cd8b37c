//! Tokens on disk, so that the next run starts at once: a file for a content and a tokenizer, written beside, synced and renamed.
//!
//! `magic`, the header's length (u32), the CRC-32 of all that follows these 32 bytes (u32), its length (u64); then the header in
//! JSON; then where documents end (u64 each), the tokens to train on and those for validation. All numbers are little-endian. A file
//! that is cut short or damaged is noticed when it is opened.

use super::DataError;
use super::facts::Facts;
use super::make::Made;
use super::tokens::Bytes;
use crate::files::sync_folder;
use memmap2::Mmap;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What such a file begins with; changes with its form and with how texts are told apart.
const MAGIC: &[u8; 16] = b"centime tokens 1";
const FIXED: usize = 32;

#[derive(Serialize, Deserialize)]
struct Header {
    facts: Facts,
    /// Documents to train on.
    ends: usize,
    /// Bytes of the tokens to train on, and for validation.
    train: usize,
    validation: usize,
}

/// What is in a file, or was made a moment ago.
#[derive(Debug)]
pub(super) struct Shard {
    pub facts: Facts,
    pub bytes: Bytes,
    /// Where in the bytes the tokens to train on are, and those for validation.
    pub train: Range<usize>,
    pub validation: Range<usize>,
    /// After how many tokens each document to train on ends.
    pub ends: Vec<u64>,
}

impl Shard {
    /// In memory alone.
    pub(super) fn of(made: Made) -> Self {
        let Made { facts, train: mut bytes, ends, validation } = made;
        let cut = bytes.len();
        bytes.extend(validation);
        let all = bytes.len();
        Self { facts, bytes: Bytes::Own(Arc::new(bytes)), train: 0..cut, validation: cut..all, ends }
    }

    /// The file at `path`, mapped; `None` where there is none.
    ///
    /// # Errors
    /// What is wrong with a file that is there.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, String> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("cannot be opened ({e})")),
        };
        // SAFETY: the file is of this program's cache, where files are written under another name and renamed when they are whole,
        // and never written to again; whoever removes one leaves the mapping as it is.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| format!("cannot be mapped ({e})"))?;
        Self::read(map).map(Some)
    }

    fn read(map: Mmap) -> Result<Self, String> {
        let (fixed, rest) = map.split_at_checked(FIXED).ok_or("is cut short")?;
        let number = |range: Range<usize>| fixed[range].iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        if !fixed.starts_with(MAGIC) {
            return Err("is no file of tokens".into());
        }
        let (length, crc, all) = (number(16..20) as usize, number(20..24), number(24..32));
        if all != rest.len() as u64 {
            return Err(format!("has {} bytes of {all}", rest.len()));
        }
        if u64::from(crc32fast::hash(rest)) != crc {
            return Err("is damaged".into());
        }
        let json = rest.get(..length).ok_or("is damaged")?;
        let header: Header = serde_json::from_slice(json).map_err(|e| format!("is of another program ({e})"))?;
        let begin = FIXED + length;
        let train = begin + header.ends * 8;
        let validation = train + header.train;
        if validation + header.validation != map.len() {
            return Err("is damaged".into());
        }
        let ends = map[begin..train].as_chunks::<8>().0.iter().map(|end| u64::from_le_bytes(*end)).collect();
        let ranges = (train..validation, validation..map.len());
        let facts = Facts { cached: true, ..header.facts };
        Ok(Self { facts, bytes: Bytes::Mapped(Arc::new(map)), train: ranges.0, validation: ranges.1, ends })
    }

    /// Keeps it at `path`: at any moment nothing is there, or all of it.
    ///
    /// # Errors
    /// Disk or permissions; what was begun is removed.
    pub(super) fn keep(&self, path: &Path) -> Result<(), DataError> {
        static WRITTEN: AtomicU64 = AtomicU64::new(0);
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(DataError::io(folder, "creating the folder"))?;
        let nth = WRITTEN.fetch_add(1, Ordering::Relaxed);
        let beside = path.with_extension(format!("part{}.{nth}", std::process::id()));
        let written = (|| {
            let file = File::create(&beside)?;
            self.write(&file)?;
            file.sync_all()?;
            std::fs::rename(&beside, path)?;
            sync_folder(folder)
        })();
        if written.is_err() {
            // Of no use to anybody; the error that is told is the first one.
            let _ = std::fs::remove_file(&beside);
        }
        written.map_err(DataError::io(path, "writing"))
    }

    fn write(&self, file: impl Write) -> std::io::Result<()> {
        let (train, validation) = (self.tokens(&self.train), self.tokens(&self.validation));
        let header = Header {
            facts: self.facts.clone(),
            ends: self.ends.len(),
            train: train.len(),
            validation: validation.len(),
        };
        let json = serde_json::to_vec(&header)?;
        let ends: Vec<u8> = self.ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        let parts = [&json, ends.as_slice(), train, validation];
        let mut crc = crc32fast::Hasher::new();
        parts.iter().for_each(|part| crc.update(part));
        let mut file = BufWriter::new(file);
        file.write_all(MAGIC)?;
        file.write_all(&u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes())?;
        file.write_all(&crc.finalize().to_le_bytes())?;
        file.write_all(&(parts.iter().map(|p| p.len() as u64).sum::<u64>()).to_le_bytes())?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.flush()
    }

    fn tokens(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes.all()[range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> Shard {
        let facts = Facts { source: "a test".into(), vocabulary: 300, seconds: 0.1, ..Facts::default() };
        Shard::of(Made { facts, train: vec![1; 600], ends: vec![100, 300], validation: vec![2; 80] })
    }

    #[test]
    fn what_is_kept_is_read_and_every_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("x.tokens");
        assert!(Shard::open(&path).unwrap().is_none());
        shard().keep(&path).unwrap();
        let back = Shard::open(&path).unwrap().unwrap();
        assert_eq!((&back.ends, back.tokens(&back.train)), (&vec![100, 300], &[1; 600][..]));
        assert_eq!(
            (back.facts.clone(), back.tokens(&back.validation)),
            (Facts { cached: true, ..shard().facts }, &[2; 80][..])
        );
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");

        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            assert!(Shard::open(&path).is_err(), "a flipped bit of byte {at}");
        }
        for length in [0, 10, 31, 32, 200, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Shard::open(&path).is_err(), "cut to {length}");
        }
        std::fs::write(&path, [whole.as_slice(), b"x"].concat()).unwrap();
        assert!(Shard::open(&path).unwrap_err().contains("bytes of"));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_and_leaves_nothing() {
        let Ok(full) = File::options().write(true).open("/dev/full") else { return };
        assert_eq!(shard().write(full).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let said = shard().keep(&file.join("x.tokens")).unwrap_err().to_string();
        assert!(said.contains("creating the folder"), "{said}");
    }
}

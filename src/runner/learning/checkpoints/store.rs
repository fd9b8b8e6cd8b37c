//! The checkpoints of a launch on the disk: a folder each, written beside, synced and renamed, so that at any moment it is there whole
//! or not at all.

use super::manifest::{Identity, Manifest, Unusable};
use crate::files::sync_folder;
use crate::transformer::checkpoint::written::Written;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Checkpoints that are kept: the last one, and the one before, should that one be damaged.
const KEPT: usize = 2;
/// What their folders' names begin with.
const STEP: &str = "step-";
/// What the name of one ends with that is being written.
const PART: &str = "part";
/// The file that makes a folder a checkpoint.
const MANIFEST: &str = "manifest.json";

/// The folder of a launch's checkpoints.
#[derive(Debug)]
pub(super) struct Store {
    pub folder: PathBuf,
}

impl Store {
    /// Makes the folder, and clears away what was being written when a process before ended.
    ///
    /// # Errors
    /// Disk or permissions, in words.
    pub(super) fn prepare(&self) -> Result<(), String> {
        let prepare = || {
            fs::create_dir_all(&self.folder)?;
            for entry in fs::read_dir(&self.folder)? {
                let path = entry?.path();
                if path.extension().is_some_and(|e| e == PART) {
                    fs::remove_dir_all(path)?;
                }
            }
            self.folder.ancestors().skip(1).take(2).try_for_each(sync_folder)
        };
        prepare().map_err(|e: io::Error| said(&self.folder, &e))
    }

    /// The steps that there is a checkpoint of, and where, the last one first.
    pub(super) fn all(&self) -> Vec<(u64, PathBuf)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let step = |name: &str| name.strip_prefix(STEP)?.parse::<u64>().ok();
        let named = entries.filter_map(|e| Some((step(e.file_name().to_str()?)?, e.path())));
        let mut all: Vec<(u64, PathBuf)> = named.collect();
        all.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
        all
    }

    /// Makes the checkpoint of a step: `save` writes its files, synced, into the folder that it is told. Those that are older than the
    /// last two are removed then. How many bytes it has.
    ///
    /// # Errors
    /// Disk or permissions, in words; the checkpoints before are as they were.
    pub(super) fn make(
        &self,
        step: u64,
        (identity, notes): (&Identity, &impl Serialize),
        save: impl FnOnce(&Path) -> Result<Vec<Written>, String>,
    ) -> Result<u64, String> {
        let path = self.folder.join(format!("{STEP}{step:09}"));
        let part = path.with_extension(PART);
        let made = (|| {
            let io = |e: io::Error| said(&part, &e);
            if part.exists() {
                fs::remove_dir_all(&part).map_err(io)?;
            }
            fs::create_dir_all(&part).map_err(io)?;
            let files = save(&part)?;
            let bytes = files.iter().map(|f| f.bytes).sum::<u64>();
            let manifest = Manifest::new(identity, notes, files).to_bytes()?;
            let mut file = File::create(part.join(MANIFEST)).map_err(io)?;
            file.write_all(&manifest).and_then(|()| file.sync_all()).map_err(io)?;
            sync_folder(&part).map_err(io)?;
            fs::rename(&part, &path).and_then(|()| sync_folder(&self.folder)).map_err(io)?;
            Ok(bytes + manifest.len() as u64)
        })();
        if made.is_err() {
            // Of no use to anybody; the error that is told is the first one.
            let _ = fs::remove_dir_all(&part);
        } else {
            // What cannot be removed now is there at the end.
            self.all().into_iter().skip(KEPT).for_each(|(_, path)| drop(fs::remove_dir_all(path)));
        }
        made
    }

    /// What a checkpoint's manifest says, once all of its files are found whole.
    ///
    /// # Errors
    /// That it is damaged, or another's.
    pub(super) fn read<N: for<'a> Deserialize<'a>>(path: &Path, own: &Identity) -> Result<Manifest<N>, Unusable> {
        let damaged = |file: &str, e: io::Error| Unusable::Damaged(format!("{file}: {e}"));
        let bytes = fs::read(path.join(MANIFEST)).map_err(|e| damaged(MANIFEST, e))?;
        let manifest = Manifest::read(&bytes, own)?;
        for Written { file, bytes, crc32 } in &manifest.files {
            let found = digest(&path.join(file)).map_err(|e| damaged(file, e))?;
            if found != (*bytes, *crc32) {
                let how = if found.0 == *bytes {
                    "its content is not what was written".to_string()
                } else {
                    format!("expected {bytes} bytes, found {}", found.0)
                };
                return Err(Unusable::Damaged(format!("{file}: {how}")));
            }
        }
        Ok(manifest)
    }

    /// Puts a checkpoint that cannot be used where it is not taken for one; whoever wants to know more finds it there until the trial
    /// has ended.
    pub(super) fn put_aside(path: &Path) {
        let mut name = path.file_name().map(|n| n.to_os_string()).unwrap_or_default();
        name.push(".damaged");
        let aside = path.with_file_name(name);
        let _ = fs::remove_dir_all(&aside);
        if fs::rename(path, &aside).is_err() {
            let _ = fs::remove_dir_all(path);
        }
    }
}

fn said(path: &Path, e: &io::Error) -> String {
    format!("{}: {e}", path.display())
}

/// How many bytes a file has, and their CRC-32.
fn digest(path: &Path) -> io::Result<(u64, u32)> {
    let mut file = File::open(path)?;
    let (mut buffer, mut bytes, mut crc) = (vec![0; 1 << 20], 0, crc32fast::Hasher::new());
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, crc.finalize())),
            n => {
                bytes += n as u64;
                crc.update(&buffer[..n]);
            }
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

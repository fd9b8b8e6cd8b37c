//! Locks that keep two runs apart: one for a run's folder, one for the machine's processors.

use super::error::ResultsError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held until dropped, or until the process ends however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Locks a run's folder.
///
/// # Errors
/// [`ResultsError::Locked`] with the holder's own words; disk or permissions.
pub(crate) fn lock_folder(folder: &Path) -> Result<Lock, ResultsError> {
    lock(&folder.join(".lock"))
}

/// Locks this machine's processors for measuring: two sweeps at once would measure each other.
///
/// # Errors
/// As [`lock_folder`].
pub(crate) fn lock_machine() -> Result<Lock, ResultsError> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_dir());
    lock(&folder.unwrap_or_else(std::env::temp_dir).join("centime-measuring.lock"))
}

fn lock(path: &Path) -> Result<Lock, ResultsError> {
    let open = || OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path);
    let mut file = open().map_err(ResultsError::io(path, "opening the lock"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
            let holder = if known { holder.trim().to_string() } else { "a centime that has just started".into() };
            return Err(ResultsError::Locked { path: path.into(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(ResultsError::io(path, "locking")(e)),
    }
    // Who holds it, for the one who comes second; the lock itself does not depend on it.
    let _ = file.set_len(0);
    let _ = file.rewind();
    let _ = write!(file, "centime, process {}", std::process::id());
    let _ = file.flush();
    Ok(Lock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_is_there_and_gets_in_after() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock_folder(folder.path()).unwrap();
        let error = lock_folder(folder.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        lock_folder(folder.path()).unwrap();
    }
}
